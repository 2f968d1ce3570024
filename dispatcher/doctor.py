"""Is this installation fit for work?  Each check says what it found and, where something is wrong, what to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from dispatcher import clock, schema
from dispatcher.contact_windows import coverage
from dispatcher.errors import DispatcherError
from dispatcher.feedback import inbox
from dispatcher.places import TZDATA_VERSION
from dispatcher.registration import prove
from dispatcher.runtime import Runtime, check_broker, open_runtime
from dispatcher.settings import Settings, load_settings
from dispatcher.shop import load_shop

OLDEST_POSTGRESQL = 15
LEAST_FREE_BYTES = 1_000_000_000
_SILENT_SECONDS = 15
_THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Literal["ok", "look", "wrong"]  # `look`: works, but somebody should know
    detail: str


def examine() -> list[Check]:
    """Return every check, in order; what cannot be looked at because something before it is wrong is left out."""
    checks: list[Check] = [Check("python", "ok", sys.version.split()[0])]
    try:
        settings = load_settings()
        checks += _check_settings(settings)
        with open_runtime(settings) as runtime:
            checks += _check_runtime(runtime)
    except DispatcherError as error:
        checks += [Check("start", "wrong", line) for line in str(error).splitlines()]
    return checks


def _check_settings(settings: Settings) -> Iterator[Check]:
    yield Check("home", "ok", str(settings.home))
    yield _disk(settings)
    yield Check("providers", "ok", f"e-mail {settings.email_provider}, SMS {settings.sms_provider}")
    for name in ("sendgrid_url", "twilio_url"):
        url = urlsplit(getattr(settings, name) or "")
        if url.scheme == "http" and url.hostname not in _THIS_MACHINE:
            yield Check("providers", "look", f"DISPATCHER_{name.upper()} is http: key and addresses travel in clear")
    https = settings.public_url.startswith("https://")
    if settings.sandbox_only or https:
        yield Check("public address", "ok", settings.public_url)
    else:
        detail = f"{settings.public_url} must be https: set DISPATCHER_PUBLIC_URL to where unsubscribe links lead"
        yield Check("public address", "wrong", detail)


def _disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    return Check("free disk", "ok" if free >= LEAST_FREE_BYTES else "look", f"{free / 1e9:.1f} GB")


def _check_runtime(runtime: Runtime) -> Iterator[Check]:
    with runtime.database.connect() as connection:
        for check in (_database, _time_zones, _clock, _shop, _brake, _lanes, _rooms, _lost, _waiting, _feedback):
            yield check(connection)
        yield from _places(connection)
    yield Check("keys", "ok", "they are the ones this database was made with")
    try:
        check_broker(runtime.broker_url)
        yield Check("broker", "ok", "answers")
    except DispatcherError as error:
        yield Check("broker", "wrong", str(error))


def _database(connection: Connection) -> Check:
    version = str(connection.scalar(text("SHOW server_version")))
    detail = f"PostgreSQL {version}, schema {schema.newest_revision()}"
    if int(version.split(".")[0]) < OLDEST_POSTGRESQL:
        return Check("database", "wrong", f"{detail}; at least PostgreSQL {OLDEST_POSTGRESQL} is needed")
    return Check("database", "ok", detail)


def _time_zones(_connection: Connection) -> Check:
    return Check("time zone data", "ok", f"tzdata {TZDATA_VERSION}, from the package; the system's is never read")


def _clock(connection: Connection) -> Check:
    offset = connection.scalar(text("SELECT clock_offset FROM engine"))
    detail = f"{clock.read_now(connection):%Y-%m-%d %H:%M:%S} UTC"
    if offset:
        return Check("clock", "look", f"{detail}, shifted by {offset}: a sandbox clock")
    return Check("clock", "ok", detail)


def _shop(connection: Connection) -> Check:
    name = connection.scalar(text("SELECT shop->'shop'->>'name' FROM engine"))
    if name is None:
        return Check("workspace", "look", "none is applied yet: run dispatcher apply where dispatcher.toml is")
    counts = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM segment), (SELECT count(*) FROM campaign WHERE active), "
            "(SELECT count(*) FROM template WHERE current), (SELECT count(*) FROM contact WHERE merged_into IS NULL)"
        )
    ).one()
    segments, campaigns, templates, contacts = counts
    detail = f"{name}: {segments} segments, {campaigns} campaigns, {templates} templates, {contacts:,} contacts"
    return Check("workspace", "ok", detail)


def _places(connection: Connection) -> Iterator[Check]:
    """Where the contacts may be, which contact windows hold for them, and whom nothing can be sent to for that."""
    if connection.scalar(text("SELECT shop IS NULL FROM engine")):
        return
    found = coverage.survey(connection, load_shop(connection), clock.read_now(connection))
    known = ", ".join(f"{count:,} by {name}" for name, count in found.known_from.most_common())
    detail = f"{found.contacts - found.nowhere:,} of {found.contacts:,} contacts" + (f": {known}" if known else "")
    yield Check("places", "ok", detail)
    for name, count in found.by_row.most_common():
        row = found.rows[name]
        yield Check("contact window", "ok", f"{name} for {_contacts(count)}, {row.standing}: {row.basis}")
    if found.nowhere:
        detail = f"{_contacts(found.nowhere)} of no known place, to whom nothing is sent; see shop.countries"
        yield Check("places", "look", detail)
    if found.default_only:
        countries = ", ".join(f"{name} {count:,}" for name, count in found.default_only.most_common(12))
        yield Check("contact window", "look", f"only the default's hours are known for {countries}")
    for name, count in found.no_calendar.most_common():
        yield Check(
            "holidays", "look", f"nothing is sent to {_contacts(count)}: there is no calendar of holidays {name}"
        )
    if found.never:
        detail = f"no hour within nine days suits every place that {_contacts(found.never)} may be in: no text is sent"
        yield Check("contact window", "look", detail)


def _contacts(number: int) -> str:
    return f"{number:,} contact" + ("" if number == 1 else "s")


def _brake(connection: Connection) -> Check:
    row = connection.execute(text("SELECT stopped_at, stopped_by FROM engine")).one()
    if row.stopped_at is None:
        return Check("brake", "ok", "off")
    return Check("brake", "look", f"stopped by {row.stopped_by}: nothing leaves until dispatcher go-on")


def _lanes(connection: Connection) -> Check:
    resting = connection.execute(
        text("""SELECT name, paused_until FROM lane
                WHERE paused_until > clock_timestamp() + (SELECT clock_offset FROM engine) ORDER BY name""")
    ).all()
    if not resting:
        return Check("lanes", "ok", "none has to rest")
    detail = ", ".join(f"{lane.name} until {lane.paused_until:%H:%M:%S} UTC" for lane in resting)
    return Check("lanes", "look", f"at rest: {detail}; the provider has had enough or refuses our account, see the log")


def _rooms(connection: Connection) -> Check:
    rows = connection.execute(
        text(
            "SELECT kind, host, pid, lock_path FROM worker WHERE ended_at IS NULL "
            "AND heartbeat_at > clock_timestamp() - make_interval(secs => :silent) ORDER BY kind"
        ),
        {"silent": _SILENT_SECONDS},
    ).all()
    living = [row.kind for row in rows if prove(row) != "dead"]
    if not living:
        return Check("rooms", "look", "no clock and no worker is running: dispatcher up starts them")
    return Check("rooms", "ok", ", ".join(f"{living.count(kind)} {kind}" for kind in sorted(set(living))))


def _lost(connection: Connection) -> Check:
    """Machines whose workers have gone silent with messages in hand: nobody here can tell what became of those."""
    rows = connection.execute(
        text(
            "SELECT host, lock_path, pid FROM worker w WHERE ended_at IS NULL "
            "AND heartbeat_at < clock_timestamp() - make_interval(secs => :silent) AND EXISTS ("
            "SELECT FROM batch b JOIN message m ON m.run_id = b.run_id AND m.batch_id = b.id "
            "WHERE b.worker_id = w.id AND m.status = 'sending' AND m.worker_id = w.id)"
        ),
        {"silent": _SILENT_SECONDS},
    ).all()
    machines = sorted({row.host.rpartition("/")[0] for row in rows if prove(row) == "unproven"})
    if not machines:
        return Check("lost machines", "ok", "none")
    detail = f"{', '.join(machines)} went silent while sending; if it is off for good: dispatcher lost {machines[0]}"
    return Check("lost machines", "look", detail)


def _feedback(connection: Connection) -> Check:
    waiting, failed = inbox.waiting(connection)
    reviews = connection.scalar(text("SELECT count(*) FROM reply WHERE review = 'open'"))
    detail = f"{waiting:,} requests to sort, {failed:,} of them failed before; {reviews:,} texts to review"
    return Check("feedback", "look" if failed or reviews else "ok", detail)


def _waiting(connection: Connection) -> Check:
    overdue = connection.scalar(
        text(
            "SELECT count(*) FROM message m, engine e "
            "WHERE m.status = 'pending' AND m.due_at < clock_timestamp() + e.clock_offset - interval '5 minutes'"
        )
    )
    unknown = connection.scalar(text("SELECT count(*) FROM message WHERE status = 'unknown'"))
    detail = f"{overdue:,} messages due for over 5 minutes, {unknown:,} of unknown outcome"
    return Check("messages", "look" if overdue or unknown else "ok", detail)
