"""The whole engine at work on a real shop's orders, on this machine alone.

The same things happen at whatever hour it is started: the engine's clock is set to a working day's noon in London,
which only the sandbox allows; in Sydney it is night then, and texts wait there for the morning.
"""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from datetime import time as wall_time
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from sqlalchemy import Connection, text

from dispatcher import api_keys, audience, clock, embedded, logs, reports, runs
from dispatcher.apply import apply
from dispatcher.cli.explanations import print_explanation
from dispatcher.cli.operations import print_verification
from dispatcher.cli.runs import print_funnel
from dispatcher.embedded.places import make_home
from dispatcher.errors import Refused
from dispatcher.explain import explain
from dispatcher.imports.contacts import import_contacts, topics_by_channel
from dispatcher.imports.counts import numbers_of
from dispatcher.imports.events import import_events
from dispatcher.imports.mapping import read_mapping
from dispatcher.resources import resource
from dispatcher.runtime import Runtime, open_runtime
from dispatcher.settings import Settings, load_settings
from dispatcher.shop import load_shop
from dispatcher.up import healthz_of, require_free_port, rooms_of, rooms_running, wait_until_ready
from dispatcher.verify import verify
from dispatcher.workspace import read_workspace

LONDON = ZoneInfo("Europe/London")
MARKER = "demo"  # in HOME: what is here was made by the demo, and the next one may clear it away
PATIENCE_SECONDS = 90

console = Console(highlight=False, soft_wrap=True)


def main(*, keep: bool = False) -> int:
    """Play the demo; return 0 if everything held.  `keep`: serve on until Ctrl-C."""
    settings = _settings()
    logs.configure("warning")
    _clear(settings.home)
    console.print(f"[bold]Dispatcher demo[/]: a real shop's orders, nothing leaves this machine. Data: {settings.home}")
    with open_runtime(settings, progress=_say, needs_broker=True) as runtime:
        _set_the_clock(runtime)
        _import(runtime)
        _step("Starting the clock, the workers and the API")
        with rooms_running(settings, rooms_of(1), say=_say) as house:
            wait_until_ready(runtime.database, house, healthz=healthz_of(settings))
            held = _play(runtime)
            if keep:
                _serve_on(settings)
    console.print(
        "\n[bold green]Everything held.[/] Look around: .venv/bin/dispatcher run list"
        if held
        else "\n[bold red]An invariant is broken: see above.[/]"
    )
    return 0 if held else 1


def _play(runtime: Runtime) -> bool:
    _step("Campaign christmas: e-mail to everybody who bought something for Christmas lately")
    christmas = _run(runtime, "christmas")
    _step("Campaign christmas-sms: a text to those who love gifts; in some places it is night")
    _run(runtime, "christmas-sms")
    _step("The shop asks for an order confirmation, over HTTP")
    _confirm_an_order(runtime)
    _step("One reader clicks unsubscribe")
    mail = _a_mail(runtime, christmas, "kitchen-week")
    _unsubscribe(mail)
    _step("The next campaign, kitchen-week")
    following = _run(runtime, "kitchen-week")
    held = _show_who_was_left_out(runtime, following, mail["contact"])
    _step("dispatcher verify: every promise, checked against the ledger and the provider's log")
    with runtime.database.connect() as connection:
        report = verify(connection, runtime.key_ring, _outbox(runtime))
        connection.rollback()
    print_verification(report)
    return report.ok and held


# --- before


def _settings() -> Settings:
    """Return settings with the demo's own servers and providers, on a free port, whatever is configured."""
    settings = load_settings(
        database_url=None, broker_url=None, secret_keys=None, email_provider="sandbox", sms_provider="sandbox"
    )
    try:
        require_free_port(settings)
        port = settings.port
    except Refused:
        with socket.create_server((settings.host, 0)) as listener:
            port = listener.getsockname()[1]
    return settings.model_copy(update={"port": port, "public_url": f"http://{settings.host}:{port}"})


def _clear(home: Path) -> None:
    """Remove an earlier demo; refuse to touch what was not made by one."""
    make_home(home)
    marker = home / MARKER
    if not marker.exists() and any(home.iterdir()):
        raise Refused(f"{home} holds something that is not a demo; set DISPATCHER_HOME to another folder for the demo")
    marker.touch()
    embedded.remove(home)
    for leftover in ("sandbox", "workers", "logs"):
        shutil.rmtree(home / leftover, ignore_errors=True)
    (home / "secret_keys").unlink(missing_ok=True)


def _set_the_clock(runtime: Runtime) -> None:
    noon = working_noon(datetime.now(UTC))
    with runtime.database.begin() as connection:
        clock.shift(connection, noon - datetime.now(UTC), sandbox_only=runtime.settings.sandbox_only)
    _say(f"the engine's clock shows {noon.astimezone(LONDON):%A %d %B %Y, %H:%M} in London")


def working_noon(now: datetime) -> datetime:
    """Return noon in London today, or on Monday if today is a weekend there, as a UTC instant."""
    day: date = now.astimezone(LONDON).date()
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return datetime.combine(day, wall_time(12), LONDON).astimezone(UTC)


def _import(runtime: Runtime) -> None:
    with runtime.database.begin() as connection:
        changes = apply(connection, read_workspace(resource("examples", "workspace")), by="demo")
        shop, now = load_shop(connection), clock.read_now(connection)
    _say(f"applied the workspace examples/workspace: {len(changes)} definitions")
    folder = resource("examples", "shop")
    with _bar("contacts") as progress:
        contacts = import_contacts(
            runtime.database,
            runtime.key_ring,
            folder / "contacts.csv",
            topics=topics_by_channel(shop),
            rejects=runtime.settings.home / "contacts.rejected.csv",
            progress=progress,
        )
    _say(f"contacts: {_counts(contacts)}")
    with _bar("order lines") as progress:
        events = import_events(
            runtime.database,
            runtime.key_ring,
            folder / "orders.csv.gz",
            mapping=read_mapping(resource("examples", "maps", "online-retail.yaml")),
            rebase=now - timedelta(days=1),
            rejects=runtime.settings.home / "orders.rejected.csv",
            progress=progress,
        )
    _say(f"orders: {_counts(events)}")


# --- the acts


def _run(runtime: Runtime, name: str) -> UUID:
    with runtime.database.begin() as connection:
        run_id = runs.start(connection, name, started_by="demo")
    with _bar(name) as progress:
        _wait(lambda: _is_done(runtime, run_id, progress), f"run {name}")
    with runtime.database.connect() as connection:
        report = reports.run_report(connection, run_id)
    print_funnel(report)
    lines = reports.funnel(report)
    assert lines[0].count == sum(line.count for line in lines[1:]), "the funnel does not add up"
    return run_id


def _is_done(runtime: Runtime, run_id: UUID, progress: Callable[[int, int], None]) -> bool:
    with runtime.database.connect() as connection:
        now = clock.read_now(connection)
        row = connection.execute(
            text("""SELECT r.audience, r.planned_at IS NOT NULL AS planned,
                           count(m.id) FILTER (WHERE m.status NOT IN ('pending', 'sending')) AS settled,
                           count(m.id) FILTER (WHERE m.status = 'sending' OR (m.status = 'pending'
                                AND (m.deferred_reason IS NULL OR m.due_at <= :soon))) AS open
                    FROM run r LEFT JOIN message m ON m.run_id = r.id WHERE r.id = :run GROUP BY r.id"""),
            {"run": run_id, "soon": now + timedelta(seconds=30)},
        ).one()
    progress(row.settled, row.audience)
    return bool(row.planned and not row.open)


def _confirm_an_order(runtime: Runtime) -> None:
    with runtime.database.begin() as connection:
        key = api_keys.create(connection, f"shop-{secrets.token_hex(4)}", ["messages:write", "messages:read"])
        contact = _a_customer(connection)
    order = f"order-{secrets.token_hex(4)}"
    body = {
        "template": "order-confirmation",
        "channel": "email",
        "contact": contact,
        "data": {
            "order_id": order,
            "items": [{"name": "Baking set, 9 pieces", "quantity": 3, "price": 4.95}],
            "total": 14.85,
        },
    }
    answer = _http(
        f"{runtime.settings.public_url}/v1/messages",
        orjson.dumps(body),
        {"Authorization": f"Bearer {key}", "Idempotency-Key": order, "Content-Type": "application/json"},
    )
    message_id = orjson.loads(answer[1])["id"]
    began = time.monotonic()
    _wait(lambda: any(mail["message_id"] == message_id for mail in _mails(runtime)), "the order confirmation")
    _say(f"POST /v1/messages: {answer[0]}, message {message_id}, handed over after {time.monotonic() - began:.1f} s")


def _a_customer(connection: Connection) -> str:
    """Return a contact with an e-mail address who withdrew from marketing: their order is confirmed all the same."""
    return str(
        connection.scalar(
            text("""SELECT external_id FROM contact c JOIN consent k ON k.contact_id = c.id AND k.channel = 'email'
                    WHERE k.state = 'withdrawn' AND c.email_address_id IS NOT NULL ORDER BY c.id LIMIT 1""")
        )
    )


def _a_mail(runtime: Runtime, run_id: UUID, next_campaign: str) -> dict[str, Any]:
    """Return a mail of the run whose reader the next campaign is for, too."""
    with runtime.database.connect() as connection:
        drafted, segment = runs.draft(
            connection, next_campaign, occurrence_key="demo", nominal_at=clock.read_now(connection), started_by="demo"
        )
        inside = set(audience.contact_ids(connection, segment, drafted.nominal_at))
        names = {
            row.external_id
            for row in connection.execute(text("SELECT id, external_id FROM contact"))
            if row.id in inside
        }
    mail = next(m for m in _mails(runtime) if m["run"] == str(run_id) and m["contact"] in names)
    _say(f"their mail: {runtime.settings.public_url}/sandbox/{mail['message_id']} (a line of {_outbox(runtime)})")
    return mail


def _unsubscribe(mail: dict[str, Any]) -> None:
    headers = dict(mail["headers"])
    found = re.search(r"<(https?://[^>]+)>", headers["List-Unsubscribe"])
    assert found is not None
    _say(f"GET, as a scanner would: {_http(found[1], None)[0]}; it shows a page and changes nothing")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _ = _http(found[1], headers["List-Unsubscribe-Post"].encode(), form)
    _say(f"POST {headers['List-Unsubscribe-Post']} (RFC 8058): {status}; no more of this topic for them")
    if status != 200:
        raise Refused(f"the unsubscribe was answered with {status}")


def _show_who_was_left_out(runtime: Runtime, run_id: UUID, contact: str) -> bool:
    with runtime.database.connect() as connection:
        row = connection.execute(
            text("""SELECT m.status, m.reason FROM message m JOIN contact c ON c.id = m.contact_id
                    WHERE m.run_id = :run AND c.external_id = :contact"""),
            {"run": run_id, "contact": contact},
        ).one()
        explained = explain(connection, runtime.key_ring, contact, "kitchen-week")
    _say(f"the reader who unsubscribed, contact {contact}: {row.status} {row.reason}")
    console.print(f"\n[bold]dispatcher explain {contact} kitchen-week[/]")
    print_explanation(explained)
    return (row.status, row.reason) == ("skipped", "NO_CONSENT")


def _serve_on(settings: Settings) -> None:
    console.print(f"\nServing on at {settings.public_url}/sandbox until Ctrl-C.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("stopping")


# --- small things


def _counts(report: Any) -> str:
    """Return what an import's report counted, in one line."""
    numbers = {name.replace("_", " "): value for name, value in numbers_of(report).items()}
    counted = [f"{value:,} {name}" for name, value in numbers.items() if isinstance(value, int) and value]
    counted += [f"{value:,} left out: {reason}" for reason, value in numbers["left out"].items()]
    return ", ".join(counted)


def _outbox(runtime: Runtime) -> Path:
    return runtime.settings.home / "sandbox" / "outbox.jsonl"


def _mails(runtime: Runtime) -> Iterator[dict[str, Any]]:
    if _outbox(runtime).exists():
        with _outbox(runtime).open("rb") as lines:
            yield from (orjson.loads(line) for line in lines)


def _http(url: str, body: bytes | None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, headers=headers or {})  # noqa: S310 - our own http address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return response.status, response.read()


def _wait(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise Refused(f"{what} has not come to an end within {PATIENCE_SECONDS} s; see the logs under HOME/logs")
        time.sleep(0.1)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


def _step(what: str) -> None:
    console.print(f"\n[bold cyan]{what}[/]")


def _say(what: str) -> None:
    console.print(f"  {what}")
