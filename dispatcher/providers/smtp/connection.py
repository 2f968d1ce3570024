"""One conversation with a mail server, on smtplib: commands and replies with a limit for the whole of each reply.

Replies are read here, not by smtplib: half a line is no reply, and a server that drips must not hold us for ever.
"""

from __future__ import annotations

import re
import select
import smtplib
import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from dispatcher.providers.smtp.replies import Reply

CONNECT_SECONDS = 5.0
#: For the reply to a command; the servers' own limits are minutes, ours is the send deadline.
REPLY_SECONDS = 15.0
#: For the reply to the final dot: whoever gives up here does not know (RFC 5321 4.5.3.2.6 says ten minutes; a worker
#: that is silent for two counts as wedged).
VERDICT_SECONDS = 60.0

_LINGER_NOT = struct.pack("ii", 1, 0)
_LONGEST_REPLY = 65_536
_LINE = re.compile(rb"([2-5]\d\d)([ -]|\r?$)")
_BROKEN = (OSError, smtplib.SMTPException)
_DOT_FIRST = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed in, and as whom."""

    host: str
    port: int
    security: Literal["none", "starttls", "tls"]
    user: str | None = None
    password: str | None = field(default=None, repr=False)


_SCHEMES: dict[str, tuple[Literal["none", "starttls", "tls"], int]] = {
    "smtp": ("none", 25), "smtp+starttls": ("starttls", 587), "smtps": ("tls", 465),
}  # fmt: skip


def server_at(url: str) -> Server:
    """Return the server that a DISPATCHER_SMTP_URL names, which the settings have looked at."""
    parts = urlsplit(url)
    security, port = _SCHEMES[parts.scheme]
    return Server(
        host=parts.hostname or "",
        port=parts.port or port,
        security=security,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


class Refused(Exception):  # noqa: N818 - named for what it says
    """The server does not want us: its reply to the greeting, to STARTTLS or to our login."""

    def __init__(self, stage: Literal["greeting", "login"], reply: Reply) -> None:
        super().__init__(stage)
        self.stage, self.reply = stage, reply


class _Client(smtplib.SMTP):
    """smtplib's commands over sockets that linger for zero seconds, with replies read by a deadline."""

    reply_seconds = REPLY_SECONDS
    _pending = b""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = socket.create_connection((host, port), timeout)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def getreply(self) -> tuple[int, bytes]:
        try:
            return self._reply()
        except _BROKEN:
            self.close()
            raise

    def _reply(self) -> tuple[int, bytes]:
        lines: list[bytes] = []
        until = time.monotonic() + self.reply_seconds
        while True:
            line = self._line(until)
            found = _LINE.match(line)
            if found is None:
                raise smtplib.SMTPServerDisconnected("what the server said is no reply")
            lines.append(line[4:].strip())
            if found[2] != b"-":
                return int(found[1]), b"\n".join(lines)

    def _line(self, until: float) -> bytes:
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        while b"\n" not in self._pending:
            left = until - time.monotonic()
            if left <= 0 or len(self._pending) > _LONGEST_REPLY:
                raise TimeoutError
            self.sock.settimeout(left)
            got = self.sock.recv(4096)
            if not got:
                raise smtplib.SMTPServerDisconnected("the server closed the connection")
            self._pending += got
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def starttls(self, *, context: ssl.SSLContext | None = None, **_: Any) -> tuple[int, bytes]:  # type: ignore[override]
        code, words = super().starttls(context=context)
        if self._pending:  # said before the encryption, by whoever sits in between
            raise smtplib.SMTPServerDisconnected("the server spoke before the encryption began")
        return code, words


class _TlsClient(_Client):
    """TLS from the first byte on."""

    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        self._context = context
        super().__init__(**options)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._context.wrap_socket(super()._get_socket(host, port, timeout), server_hostname=host)


class Connection:
    """An open connection, logged in."""

    def __init__(self, server: Server, *, name: str) -> None:
        """Connect, encrypt, log in; Refused with the server's reply, else OSError or SMTPException."""
        self.mails = 0
        self.usable = True  #: for another mail
        self.idle_since = time.monotonic()
        self._client = _open(server, name)

    def is_alive(self) -> bool:
        """Whether the server has neither left nor said anything since it was last spoken to."""
        sock = self._client.sock
        return sock is not None and not select.select([sock], [], [], 0)[0]

    def command(self, line: str, *, within: float = REPLY_SECONDS) -> Reply:
        """Send one command and return the reply; OSError or SMTPException if there is none in time."""
        self._client.reply_seconds = max(0.0, min(within, REPLY_SECONDS))
        code, words = self._client.docmd(line)
        return Reply(code, words.decode("utf-8", "replace").replace("\n", " "))

    def write_content(self, mail: bytes) -> None:
        """Write a mail, dots doubled, without its end: up to here the server has taken nothing."""
        if not mail.endswith(b"\r\n"):
            mail += b"\r\n"
        assert self._client.sock is not None
        self._client.sock.settimeout(REPLY_SECONDS)
        self._client.send(_DOT_FIRST.sub(b"..", mail))

    def write_end(self) -> Reply:
        """Write the final dot and return the verdict; whatever goes wrong in here leaves a doubt."""
        self._client.send(b".\r\n")
        self._client.reply_seconds = VERDICT_SECONDS
        code, words = self._client.getreply()
        return Reply(code, words.decode("utf-8", "replace").replace("\n", " "))

    def quit(self) -> None:
        """Say good-bye, and close whatever comes of it."""
        self._client.reply_seconds = 1.0
        try:
            self._client.quit()
        except _BROKEN:
            self.drop()

    def drop(self) -> None:
        """Close it without a word: what was not finished with a dot is nothing."""
        with suppress(OSError):
            self._client.close()


def _open(server: Server, name: str) -> _Client:
    context = ssl.create_default_context() if server.security != "none" else None
    options: dict[str, Any] = {
        "host": server.host, "port": server.port, "local_hostname": name, "timeout": CONNECT_SECONDS,
    }  # fmt: skip
    try:
        client = _TlsClient(context, **options) if server.security == "tls" and context else _Client(**options)
    except smtplib.SMTPConnectError as error:
        words = error.smtp_error
        raise Refused("greeting", Reply(error.smtp_code, words if isinstance(words, str) else words.decode())) from None
    try:
        code, words = client.ehlo()
        if not 200 <= code < 300:
            code, words = client.helo()
        _expect("greeting", code, words, 250)
        if server.security == "starttls":
            if not client.has_extn("starttls"):
                raise Refused("login", Reply(530, "the server offers no STARTTLS"))
            _expect("login", *client.starttls(context=context), 220)
            client.ehlo_or_helo_if_needed()
        if server.user is not None:
            _log_in(client, server.user, server.password or "")
    except BaseException:
        client.close()
        raise
    return client


def _expect(stage: Literal["greeting", "login"], code: int, words: bytes, wanted: int) -> None:
    if code != wanted:
        raise Refused(stage, Reply(code, words.decode("utf-8", "replace").replace("\n", " ")))


def _log_in(client: _Client, user: str, password: str) -> None:
    try:
        client.login(user, password)
    except smtplib.SMTPAuthenticationError as error:
        raise Refused("login", Reply(error.smtp_code, "the login was refused")) from None
    except (smtplib.SMTPNotSupportedError, smtplib.SMTPHeloError):
        raise Refused("login", Reply(530, "the server offers no login")) from None
    except smtplib.SMTPServerDisconnected:
        raise
    except smtplib.SMTPException:
        raise Refused("login", Reply(504, "the server offers no login that we know")) from None
