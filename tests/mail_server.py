"""A mail server in a process of its own: `mail_server.py RECORD [--tls|--smtps CERT KEY] [--login USER:PASSWORD]`.

Who is written to decides how it behaves: `rcpt-550-5.1.1@...` is refused so at RCPT, `dot-451-4.3.0@...` after the
final dot; `drop-...@...` and others break the connection at a point.  What it takes is a JSON line in RECORD.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Server(SMTP):
    """Breaks off in the middle of a mail, for whom it shall."""

    async def smtp_DATA(self, arg: str) -> None:
        to = self.envelope.rcpt_tos[0] if self.envelope and self.envelope.rcpt_tos else ""
        if to.startswith("data-"):
            await self.push(_words_of(to))
        elif to.startswith("drop-before-dot"):
            await self.push("354 go on")
            await self._reader.read(10)
            self.transport.abort()
        elif to.startswith("slow-data"):
            await asyncio.sleep(1.5)
            await super().smtp_DATA(arg)
        else:
            await super().smtp_DATA(arg)


class Behaviour:
    def __init__(self, record: Path, seconds: float) -> None:
        self.record, self.seconds = record, seconds

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("mail-"):
            return _words_of(address)
        envelope.mail_from = address
        return "250 2.1.0 fine"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("rcpt-"):
            return _words_of(address)
        if address.startswith("drop-at-rcpt"):
            server.transport.abort()
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        to = envelope.rcpt_tos[0]
        if to.startswith("dot-"):
            return _words_of(to)
        await asyncio.sleep(self.seconds)
        line = {
            "from": envelope.mail_from, "to": to, "mail": base64.b64encode(envelope.original_content).decode(),
            "tls": server.transport.get_extra_info("ssl_object") is not None, "login": session.auth_data,
            "peer": session.peer, "at": time.clock_gettime(time.CLOCK_BOOTTIME),
        }  # fmt: skip
        with self.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if to.startswith("drop-after-dot"):
            server.transport.abort()
        elif to.startswith("half-after-dot"):
            server.transport.write(b"250 2.0")
            server.transport.close()
        elif to.startswith("garble-after-dot"):
            server.transport.write(b"all is well\r\n")
            server.transport.close()
        return f"250 2.0.0 Ok: queued as Q{abs(hash(to)) % 10**8}"


def _words_of(address: str) -> str:
    """Return `550 5.1.1 said so to <...>` for rcpt-550-5.1.1@people.example."""
    _, code, *enhanced = address.partition("@")[0].split("-")[:3]
    return f"{code} {enhanced[0] + ' ' if enhanced else ''}said so to <{address}>"


async def main(options: argparse.Namespace) -> None:
    context = None
    if options.tls or options.smtps:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*(options.tls or options.smtps))

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        right = f"{data.login.decode()}:{data.password.decode()}" == options.login
        return AuthResult(success=right, handled=False, auth_data=data.login.decode())

    def protocol() -> Server:
        return Server(
            Behaviour(Path(options.record), options.seconds), hostname="mail.standin.example",
            tls_context=context if options.tls else None, require_starttls=bool(options.tls),
            auth_required=bool(options.login), auth_require_tls=bool(options.tls),
            authenticator=authenticate if options.login else None,
        )  # fmt: skip

    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", 0, ssl=context if options.smtps else None
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass(frozen=True)
class Running:
    port: int
    record: Path

    def taken(self) -> list[dict[str, Any]]:
        """Return what the server took: from, to, the mail's bytes, tls, login, peer and when."""
        lines = self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []
        mails = [json.loads(line) for line in lines]
        return [mail | {"mail": base64.b64decode(mail["mail"])} for mail in mails]


@contextmanager
def mail_server(folder: Path, *arguments: str) -> Iterator[Running]:
    """Yield a server that runs."""
    record = folder / "mails.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, str(record), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield Running(int(process.stdout.readline()), record)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("record")
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--smtps", nargs=2)
    parser.add_argument("--login")
    parser.add_argument("--seconds", type=float, default=0.0, help="it takes that long to take a mail")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(read_arguments()))
