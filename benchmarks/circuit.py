"""`python -m benchmarks.circuit`: what a campaign of 200,000 does while its provider is not there, and comes back.

Everything is due while the circuit is open; then the mail server thinks for half a minute about the probe (half-open),
then it is well (closed).  Counted in each of the three: rows of the ledger and bytes of the database's log written a
second, and how long a text on another lane, by another provider, takes.  On embedded servers of its own, with every
room a process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from rich.console import Console
from sqlalchemy import text

from benchmarks.house import own_house
from benchmarks.shop import write_contacts, write_workspace
from dispatcher import messages, runs
from dispatcher.apply import apply
from dispatcher.imports.contacts import import_contacts, topics_by_channel
from dispatcher.plan import plan_page
from dispatcher.runtime import Runtime
from dispatcher.shop import load_shop
from dispatcher.up import rooms_of, rooms_running, wait_until_ready
from dispatcher.workspace import read_workspace

CODE = {
    "templates/sms/code/meta.yaml": "class: transactional\nurgent: true\n",
    "templates/sms/code/body.txt": "Your code is {{ data.code }}\n",
}
PHONE = "contact_id,phone,country,timezone\ntexts,+447700900123,GB,Europe/London\n"
_CLOSED_SECONDS = 30.0
_LATELY_SECONDS = 5.0
console = Console(highlight=False, soft_wrap=True)


class MailServer:
    """Takes every mail at once, but the first one, which it thinks about."""

    def __init__(self, think_seconds: float) -> None:
        self.asked_at: float | None = None  #: when the first mail was there
        self.think_seconds = think_seconds
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                if line.upper().startswith(b"DATA"):
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    if self.asked_at is None:
                        self.asked_at = time.monotonic()
                        await asyncio.sleep(self.think_seconds)
                writer.write(b"250 fine\r\n")
                await writer.drain()
        writer.close()


@dataclass
class Texts:
    """One text every so often, asked for as the shop does."""

    runtime: Runtime
    asked: list[tuple[str, UUID]] = field(default_factory=list)
    phase: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def being_asked_for(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.25):
            wish = messages.Wish("code", "sms", "texts", {"code": "123456"})
            with self.runtime.database.begin() as connection:
                asked = messages.submit(
                    connection, self.runtime.key_ring, wish, client="benchmark", idempotency_key=str(uuid4())
                )
            self.asked.append((self.phase, asked))

    def took(self, phase: str) -> list[float]:
        """Return the milliseconds from the wish to the first byte, sorted."""
        ids = [number for name, number in self.asked if name == phase]
        with self.runtime.database.connect() as connection:
            rows = connection.execute(
                text("SELECT first_due_at, handed_over_at FROM message WHERE id = ANY(:ids)"), {"ids": ids}
            ).all()
        return sorted((row.handed_over_at - row.first_due_at) / timedelta(milliseconds=1) for row in rows)


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.circuit", description=__doc__.splitlines()[0])
    arguments.add_argument("--contacts", type=int, default=200_000)
    arguments.add_argument("--open", type=int, default=90, help="seconds: long enough to look at everybody once")
    arguments.add_argument("--think", type=int, default=30, help="seconds that the probe takes; well below a minute")
    given = arguments.parse_args()
    server = MailServer(given.think)
    smtp = {"email_provider": "smtp", "smtp_url": f"smtp://127.0.0.1:{server.port}", "sms_provider": "sandbox"}
    with own_house(**smtp, public_url="https://shop.example") as (runtime, folder):
        _measure(runtime, folder, given.contacts, given.open, server)
    return 0


def _measure(runtime: Runtime, folder: Path, contacts: int, seconds: float, server: MailServer) -> None:
    run_id = _plan(runtime, folder, contacts)
    texts = Texts(runtime)
    with rooms_running(runtime.settings, rooms_of(2, web=False)) as house:
        wait_until_ready(runtime.database, house)
        with runtime.database.begin() as connection:
            connection.execute(
                text("""INSERT INTO account (name, circuit, openings, open_until)
                        VALUES ('smtp', 'open', 1, clock_timestamp() + :wait * interval '1 s')"""), {"wait": seconds}
            )  # fmt: skip
            runs.go_on(connection, by="benchmark")
        opens_at = time.monotonic() + seconds
        with texts.being_asked_for():
            _show(runtime, run_id, texts, "open", opens_at)
            while server.asked_at is None:
                time.sleep(0.01)
            console.print(f"the probe is there {server.asked_at - opens_at:.2f} s after the wait is over")
            _show(runtime, run_id, texts, "half-open", server.asked_at + server.think_seconds)
            _show(runtime, run_id, texts, "closed", time.monotonic() + _CLOSED_SECONDS)
        time.sleep(2)  # the last text is on its way
    for phase in ("open", "half-open", "closed"):
        found = texts.took(phase)
        p50, p99 = (found[min(len(found) - 1, int(len(found) * share))] for share in (0.5, 0.99))
        console.print(f"a text while {phase:<10} {len(found):>4} of them: p50 {p50:.0f} ms, p99 {p99:.0f} ms")


def _show(runtime: Runtime, run_id: UUID, texts: Texts, phase: str, until: float) -> None:
    """Wait, and print what was written and sent meanwhile."""
    texts.phase = phase
    before, began, sent = _written(runtime), time.monotonic(), _sent(runtime, run_id)
    while (left := until - time.monotonic()) > 0:
        now = _written(runtime)
        time.sleep(min(left, _LATELY_SECONDS))
        lately = (_written(runtime)[0] - now[0]) / min(left, _LATELY_SECONDS)
    took = time.monotonic() - began
    rows, log = (after - was for after, was in zip(_written(runtime), before, strict=True))
    console.print(
        f"{phase:<10} {took:5.1f} s: {rows / took:>9,.0f} rows/s ({lately:,.0f} in the end), "
        f"{log / took / 1e6:6.2f} MB of log/s, {(_sent(runtime, run_id) - sent) / took:>7,.0f} mails/s; "
        f"load {os.getloadavg()[0]:.1f}"
    )


def _plan(runtime: Runtime, folder: Path, contacts: int) -> UUID:
    """Return a run of everybody, planned and due; nothing leaves before `go_on`."""
    workspace = write_workspace(folder / "workspace")
    for name, content in CODE.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    with runtime.database.begin() as connection:
        apply(connection, read_workspace(workspace), by="benchmark")
        topics = topics_by_channel(load_shop(connection))
    import_contacts(runtime.database, runtime.key_ring, write_contacts(folder / "people.csv", contacts), topics=topics)
    (folder / "texts.csv").write_text(PHONE, encoding="utf-8")
    import_contacts(runtime.database, runtime.key_ring, folder / "texts.csv", topics=topics)
    with runtime.database.begin() as connection:
        runs.stop_all(connection, by="benchmark")
        run_id = runs.start(connection, "bench", started_by="benchmark")
    while plan_page(runtime.database, run_id):
        pass
    with runtime.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return run_id


def _written(runtime: Runtime) -> tuple[int, int]:
    """Return how many rows of the ledger and bytes of the database's log were written so far."""
    with runtime.database.connect() as connection:
        row: Any = connection.execute(
            text("""SELECT n_tup_upd + n_tup_ins AS rows, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') AS log
                    FROM pg_stat_user_tables WHERE relname = 'message'""")
        ).one()
    return int(row.rows), int(row.log)


def _sent(runtime: Runtime, run_id: UUID) -> int:
    with runtime.database.connect() as connection:
        return int(
            connection.scalar(
                text("SELECT count(*) FROM message WHERE run_id = :run AND status = 'sent'"), {"run": run_id}
            )
            or 0
        )


if __name__ == "__main__":
    sys.exit(main())
