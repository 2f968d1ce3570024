"""A shop at work for a test: real servers, people, and every room a process of its own."""

from __future__ import annotations

import csv
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import databases
import redis
from small_workspace import FILES, write_workspace
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from dispatcher import clock, embedded, runs
from dispatcher.apply import apply
from dispatcher.demo import working_noon
from dispatcher.embedded.places import make_places
from dispatcher.imports.contacts import import_contacts, topics_by_channel
from dispatcher.rooms import House, Room, environment_of
from dispatcher.runtime import Runtime, open_runtime
from dispatcher.settings import Settings, load_settings
from dispatcher.shop import load_shop
from dispatcher.up import healthz_of, rooms_of, rooms_running, wait_until_ready
from dispatcher.verify import verify
from dispatcher.workspace import read_workspace

REPOSITORY = Path(__file__).parents[1]
PATIENCE_SECONDS = 60.0
#: Caps so wide that the same people can be in run after run, and are still counted each time.
ROOMY_CAPS = {"dispatcher.toml": FILES["dispatcher.toml"].replace("max = 1\n", "max = 1000\n")}
#: So many people make four batches of a run.
CROWD = 2_000
_LOOK_EVERY_SECONDS = 0.05


def eventually(what: Callable[[], Any], seconds: float = PATIENCE_SECONDS, *, saying: str = "") -> float:
    """Return after how many seconds `what` was true; it must be so before `seconds` are over.

    While the database is away nothing is true.
    """
    began = time.monotonic()
    while not _is_true(what):
        assert time.monotonic() - began < seconds, f"not after {seconds:g} s: {saying or 'what was waited for'}"
        time.sleep(_LOOK_EVERY_SECONDS)
    return time.monotonic() - began


def _is_true(what: Callable[[], Any]) -> bool:
    try:
        return bool(what())
    except OperationalError:
        return False


@dataclass(frozen=True)
class Live:
    """A shop whose rooms are running."""

    runtime: Runtime
    rooms: House

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def database(self) -> Engine:
        return self.runtime.database

    @property
    def url(self) -> str:
        return self.settings.public_url

    @property
    def log(self) -> Path:
        """What the sandbox accepted."""
        return self.settings.home / "sandbox" / "outbox.jsonl"

    # --- what happens

    def tell_sandbox(self, **faults: Any) -> None:
        """Change how the sandbox behaves, from its next call on."""
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self.log.parent / "faults.new"
        new.write_text(json.dumps(faults), encoding="utf-8")
        new.replace(self.log.parent / "faults.json")  # the rooms read it at any moment

    def start(self, campaign: str) -> UUID:
        with self.database.begin() as connection:
            return runs.start(connection, campaign, started_by="test", again=True)

    def finish(self, run_id: UUID, seconds: float = PATIENCE_SECONDS) -> float:
        """Return how long it took until nothing of the run was pending or on the wire."""
        return eventually(lambda: self.is_done(run_id), seconds, saying=f"run {run_id} at its end")

    def is_done(self, run_id: UUID) -> bool:
        return bool(
            self.one(
                """SELECT planned_at IS NOT NULL AND NOT EXISTS (
                       SELECT FROM message WHERE run_id = :run AND status IN ('pending', 'sending'))
                   FROM run WHERE id = :run""",
                run=run_id,
            )
        )

    # --- what is seen

    def one(self, query: str, **parameters: Any) -> Any:
        """Return the one value a query asks for."""
        with self.database.connect() as connection:
            return connection.execute(text(query), parameters).scalar()

    def rows(self, query: str, **parameters: Any) -> Sequence[Any]:
        with self.database.connect() as connection:
            return connection.execute(text(query), parameters).all()

    def statuses(self, run_id: UUID) -> Counter[str]:
        return Counter(
            dict(self.rows("SELECT status, count(*) FROM message WHERE run_id = :run GROUP BY 1", run=run_id))
        )

    def outbox(self, run_id: UUID | None = None) -> list[dict[str, Any]]:
        """Return what the sandbox accepted, in its order; a line that a killed hand tore is none."""
        of_run = b"" if run_id is None else str(run_id).encode()
        lines = self.log.read_bytes().split(b"\n") if self.log.exists() else []
        mails = [mail for mail in (_parsed(line) for line in lines if of_run in line) if mail is not None]
        return [mail for mail in mails if run_id is None or mail["run"] == str(run_id)]

    def agreed(self) -> int:
        """Return how many people have granted what the campaigns are about."""
        query = "SELECT count(*) FROM consent WHERE channel = 'email' AND topic = 'offers' AND state = 'granted'"
        return int(self.one(query))

    def broker(self) -> redis.Redis:
        return redis.Redis.from_url(self.runtime.broker_url)

    def broker_holds(self, queue: str) -> int:
        """Return how many tickets wait in a queue."""
        with self.broker() as broker:
            return int(broker.llen(f"dispatcher:{queue}"))

    def pid(self, room: str) -> int | None:
        return self.rooms.pids().get(room)

    # --- what must hold

    def check_nobody_twice_nobody_lost(self, run_id: UUID) -> Counter[str]:
        """Check a run that has ended, and return its statuses."""
        mails = self.outbox(run_id)
        assert not _more_than_once(mail["contact"] for mail in mails), "a contact was written to twice"
        assert not _more_than_once(mail["to"] for mail in mails), "an address was written to twice"
        audience, chosen, alike = self.rows(
            """SELECT r.audience, (SELECT array_agg(c ORDER BY c) FROM audience_page p, unnest(p.contact_ids) AS c
                                   WHERE p.run_id = r.id),
                      (SELECT array_agg(m.contact_id ORDER BY m.contact_id) FROM message m WHERE m.run_id = r.id)
               FROM run r WHERE r.id = :run""",
            run=run_id,
        )[0]
        assert audience == len(chosen)
        assert chosen == alike, "not exactly one row for each contact of the audience"
        statuses = self.statuses(run_id)
        assert set(statuses) <= {"sent", "skipped", "failed", "cancelled", "unknown"}, statuses
        accepted = {mail["message_id"] for mail in mails}
        rows = self.rows("SELECT id, status FROM message WHERE run_id = :run", run=run_id)
        assert accepted <= {str(row.id) for row in rows if row.status in ("sent", "unknown")}
        assert accepted >= {str(row.id) for row in rows if row.status == "sent"}
        return statuses

    def check_invariants(self) -> None:
        """Check all that `dispatcher verify` knows, the sandbox's log included."""
        with self.database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            report = verify(connection, self.runtime.key_ring, self.log)
        broken = [(result.name, result.findings) for result in report.results if result.status == "broken"]
        assert not broken, broken
        assert report.ok

    # --- how it is talked to

    def http(
        self, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, timeout: float = 30
    ) -> tuple[int, bytes]:
        """Return status and body of a GET, or of a POST if there is something to post."""
        request = urllib.request.Request(url, data=body, headers=dict(headers or {}))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line in this house; it must succeed."""
        done = command(arguments, environment_of(self.settings))
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done


def command(
    arguments: Sequence[str], environment: Mapping[str, str], *, folder: Path = REPOSITORY, timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run `dispatcher ARGUMENTS` and return what it printed and how it ended."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("dispatcher")), *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, cwd=folder, timeout=timeout,
        check=False,
    )  # fmt: skip


def bare_environment(home: Path | None = None) -> dict[str, str]:
    """Return an environment without any setting of ours but this HOME."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")}
    return environment if home is None else environment | {"DISPATCHER_HOME": str(home)}


def running(home: Path) -> list[str]:
    """Return the command lines of all processes that have to do with this home."""
    marks = (str(home).encode(), make_places(home).home_hash.encode())
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            known = words + (process / "environ").read_bytes()
        except OSError:  # gone meanwhile, or another user's
            continue
        if any(mark in known for mark in marks):
            found.append(f"{process.name} {words.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def own_servers(servers: tuple[str, str], template_database: URL) -> Iterator[tuple[str, str]]:
    """Yield URLs on the session's servers: of a migrated database and of a broker's database for one house alone."""
    url = databases.copy(servers[0], template_database)
    try:
        yield url.render_as_string(hide_password=False), _own_broker(servers[1])
    finally:
        databases.drop(servers[0], url)


def _own_broker(url: str) -> str:
    plain, number = url.split("?")[0].rstrip("/"), secrets.randbelow(14) + 1
    return f"{plain}?db={number}" if plain.startswith("unix:") else f"{plain}/{number}"


@contextmanager
def live_shop(
    home: Path,
    *,
    servers: tuple[str, str] | None = None,
    rooms: Sequence[Room] | None = None,
    workspace: Mapping[str, str | None] | None = None,
    people: Path,
    log_level: str = "info",
    providers: Mapping[str, Any] | None = None,
) -> Iterator[Live]:
    """Yield a shop at a working day's noon in London, with its rooms at work (two hands for marketing unless told).

    `servers`: URLs of a migrated database and of a broker that is this house's alone; none: embedded ones.
    `providers`: settings of real ones; it is then the time that it is.
    """
    port = free_port()
    database_url, broker_url = servers or (None, None)
    carried = {"public_url": f"http://127.0.0.1:{port}", "email_provider": "sandbox", "sms_provider": "sandbox"}
    settings = load_settings(
        home=home, database_url=database_url, broker_url=broker_url, secret_keys=None, log_level=log_level,
        host="127.0.0.1", port=port, from_email=None, postal_address=None, **{**carried, **(providers or {})},
    )  # fmt: skip
    rooms = rooms_of(2) if rooms is None else rooms
    has_web = any(room.name == "web" for room in rooms)
    try:
        with open_runtime(settings, needs_broker=True) as runtime:
            if servers is not None:
                with redis.Redis.from_url(runtime.broker_url) as broker:
                    broker.flushdb()  # tickets of an earlier house
            _furnish(runtime, workspace or {}, people)
            with rooms_running(settings, rooms) as house:
                wait_until_ready(runtime.database, house, healthz=healthz_of(settings) if has_web else None)
                yield Live(runtime, house)
    finally:
        if servers is None:
            embedded.remove(home)  # as root the data are not under `home`


def _furnish(runtime: Runtime, workspace: Mapping[str, str | None], people: Path) -> None:
    folder = write_workspace(runtime.settings.home / "workspace", dict(workspace))
    now = datetime.now(UTC)
    with runtime.database.begin() as connection:
        if runtime.settings.sandbox_only:
            clock.shift(connection, working_noon(now) - now, sandbox_only=True)
        apply(connection, read_workspace(folder), by="test")
        topics = topics_by_channel(load_shop(connection))
    import_contacts(runtime.database, runtime.key_ring, people, topics=topics)


def write_people(path: Path, number: int, *, mark: str = "p") -> Path:
    """Write a contacts file: `number` people in London who agreed to e-mail, and every fortieth who did not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["contact_id", "first_name", "last_name", "email", "phone", "country", "timezone", "locale",
             "email_consent", "email_consent_at", "email_consent_source", "sms_consent", "sms_consent_at"]
        )  # fmt: skip
        for one in range(number):
            agreed = "unsubscribed" if one % 40 == 7 else "subscribed"
            writer.writerow(
                [f"{mark}{one:05}", f"First{mark}{one:05}", f"Last{mark}{one:05}", f"{mark}{one:05}@people.example",
                 f"+4477009{one:05}", "GB", "Europe/London", "en-GB", agreed, "2020-01-01T00:00:00Z", "checkout",
                 agreed, "2020-01-01T00:00:00Z"]
            )  # fmt: skip
    return path


def unsubscribe_url(mail: Mapping[str, Any]) -> str:
    """Return the link of a mail's List-Unsubscribe header."""
    return str(dict(mail["headers"])["List-Unsubscribe"]).split(">")[0].lstrip("<")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        mail: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return mail


def _more_than_once(values: Iterator[str]) -> dict[str, int]:
    return {value: number for value, number in Counter(values).items() if number > 1}
