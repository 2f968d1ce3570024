"""What this installation stands on: settings, database, keys, broker, clock, workspace, rooms, and what waits."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from dispatcher import clock, schema
from dispatcher.contact_windows import coverage
from dispatcher.doctor.check import Check, Verdict
from dispatcher.feedback import inbox
from dispatcher.keys import parse_secret_keys
from dispatcher.places import TZDATA_VERSION
from dispatcher.rates import accounts, overview
from dispatcher.registration import prove
from dispatcher.reports import list_campaigns
from dispatcher.runtime import Runtime
from dispatcher.settings import Settings
from dispatcher.shop import load_shop
from dispatcher.storefronts import requests

OLDEST_POSTGRESQL = 15
LEAST_FREE_BYTES = 1_000_000_000
#: Everything is decided by the database's clock; links and signatures are dated by this machine's.
SKEW, LARGE_SKEW = timedelta(seconds=2), timedelta(seconds=60)
_OLD_ZONE_DATA_YEARS = 2
_SILENT_SECONDS = 15
_THIS_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})


def check_python() -> Check:
    return Check("python", "ok", sys.version.split()[0])


def check_settings(settings: Settings) -> Iterator[Check]:
    yield Check("home", "ok", str(settings.home))
    yield _disk(settings)
    yield Check("providers", "ok", f"e-mail {settings.email_provider}, SMS {settings.sms_provider}")
    for name in ("sendgrid_url", "twilio_url"):
        url = urlsplit(getattr(settings, name) or "")
        if url.scheme == "http" and url.hostname not in _THIS_MACHINE:
            detail = f"DISPATCHER_{name.upper()} is http: key and addresses travel in clear"
            yield Check("providers", "look", detail, "make it https")
    https = settings.public_url.startswith("https://")
    if settings.sandbox_only or https:
        yield Check("public address", "ok", settings.public_url)
    else:
        detail = f"{settings.public_url} must be https"
        yield Check("public address", "wrong", detail, "set DISPATCHER_PUBLIC_URL to where unsubscribe links lead")
    yield from _webhooks(settings)


def _webhooks(settings: Settings) -> Iterator[Check]:
    if settings.email_provider == "sendgrid" and not settings.sendgrid_webhook_key:
        yield Check(
            "webhooks",
            "look",
            "SendGrid's events are refused: bounces, complaints and unsubscribes are not heard of",
            "switch on its signed event webhook and set DISPATCHER_SENDGRID_WEBHOOK_KEY",
        )
    elif settings.email_provider == "sendgrid":
        yield Check("webhooks", "ok", "the key of SendGrid's signed events is set")
    if settings.sms_provider == "twilio":
        yield Check("webhooks", "ok", "Twilio's are told from others by the auth token")


def _key_file(settings: Settings) -> Iterator[Check]:
    if settings.secret_keys is not None:
        number = _keys(len(parse_secret_keys(settings.secret_keys.get_secret_value())))
        yield Check("secret keys", "ok", f"{number} from the environment; a backup of the database needs them too")
        return
    path = settings.home / "secret_keys"
    if not path.exists():
        return
    about, folder = path.stat(), settings.home.stat()
    made = datetime.fromtimestamp(about.st_mtime, UTC)
    number = _keys(len(path.read_text(encoding="ascii").split()))
    shown = f"{number} in {path}, mode {about.st_mode & 0o777:o}, of {made:%Y-%m-%d}"
    if folder.st_mode & 0o022:
        detail = f"{shown}; others may write in {settings.home}, and so put another file in its place"
        yield Check("secret keys", "wrong", detail, f"chmod go-w {settings.home}")
    elif about.st_mode & 0o077:
        yield Check("secret keys", "wrong", f"{shown}: others can read it", f"chmod 600 {path}")
    else:
        yield Check("secret keys", "ok", f"{shown}; a backup of the database needs it too")


def _keys(number: int) -> str:
    return "1 key" if number == 1 else f"{number} keys, the newest first,"


def _disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB"
    if free >= LEAST_FREE_BYTES:
        return Check("free disk", "ok", detail)
    return Check("free disk", "look", detail, f"make room for {Path(folder)}")


def check_runtime(runtime: Runtime) -> Iterator[Check]:
    with runtime.database.connect() as connection:
        for check in (_database, _durability, _time_zones, _clock, _skew, _shop):
            yield check(connection)
        yield from _postal_address(connection, runtime.settings)
        for check in (_campaigns, _brake, _lanes, _accounts, _rooms, _lost, _waiting, _feedback, _asked_for, _erasures):
            yield check(connection)
        yield from _places(connection)
    yield Check("keys", "ok", "they are the ones this database was made with")
    yield from _key_file(runtime.settings)


def _database(connection: Connection) -> Check:
    version = str(connection.scalar(text("SHOW server_version")))
    detail = f"PostgreSQL {version}, schema {schema.newest_revision()}"
    if int(version.split(".")[0]) < OLDEST_POSTGRESQL:
        return Check("database", "wrong", detail, f"at least PostgreSQL {OLDEST_POSTGRESQL} is needed")
    return Check("database", "ok", detail)


def _durability(connection: Connection) -> Check:
    """A message may leave only after its commit is on disk; else a crash could send it twice."""
    off = [
        name
        for name in ("fsync", "synchronous_commit", "full_page_writes")
        if connection.scalar(text("SELECT current_setting(:name)"), {"name": name}) == "off"
    ]
    if off:
        detail = f"{', '.join(off)} off: after a crash of the server a message could be sent twice"
        return Check("durability", "wrong", detail, "switch it on in postgresql.conf")
    return Check("durability", "ok", "a commit is on disk before a message leaves")


def _time_zones(_connection: Connection) -> Check:
    shown = f"tzdata {TZDATA_VERSION}, from the package; the system's is never read"
    year = TZDATA_VERSION[:4]
    if year.isdecimal() and datetime.now(UTC).year - int(year) >= _OLD_ZONE_DATA_YEARS:
        detail = f"{shown}; countries have changed their clocks since"
        return Check("time zone data", "look", detail, "install a newer version of Dispatcher, or of tzdata")
    return Check("time zone data", "ok", shown)


def _clock(connection: Connection) -> Check:
    offset = connection.scalar(text("SELECT clock_offset FROM engine"))
    detail = f"{clock.read_now(connection):%Y-%m-%d %H:%M:%S} UTC"
    if offset:
        return Check("clock", "look", f"{detail}, shifted by {offset}: a sandbox clock")
    return Check("clock", "ok", detail)


def _skew(connection: Connection) -> Check:
    began = datetime.now(UTC)
    theirs: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return judge_skew("the database", theirs - (began + (datetime.now(UTC) - began) / 2))


def judge_skew(whose: str, ahead: timedelta) -> Check:
    """Judge by how much another clock is ahead of this machine's."""
    seconds = ahead.total_seconds()
    if abs(ahead) < SKEW:
        return Check("clocks", "ok", f"{whose} and this machine agree")
    detail = f"the clock of {whose} is {abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    verdict: Verdict = "wrong" if abs(ahead) >= LARGE_SKEW else "look"
    return Check("clocks", verdict, detail, "let both machines follow NTP: quiet hours and caps go by the database's")


def _shop(connection: Connection) -> Check:
    name = connection.scalar(text("SELECT shop->'shop'->>'name' FROM engine"))
    if name is None:
        return Check("workspace", "look", "none is applied yet", "run dispatcher apply where dispatcher.toml is")
    counts = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM segment), (SELECT count(*) FROM campaign WHERE active), "
            "(SELECT count(*) FROM template WHERE current), (SELECT count(*) FROM contact WHERE merged_into IS NULL)"
        )
    ).one()
    segments, campaigns, templates, contacts = counts
    detail = f"{name}: {segments} segments, {campaigns} campaigns, {templates} templates, {contacts:,} contacts"
    return Check("workspace", "ok", detail)


def _postal_address(connection: Connection, settings: Settings) -> Iterator[Check]:
    """Commercial mail must say where its sender can be found (CAN-SPAM, CASL; much the same elsewhere)."""
    if connection.scalar(text("SELECT shop IS NULL FROM engine")):
        return
    address = (settings.postal_address or load_shop(connection).shop.postal_address or "").strip()
    if address:
        yield Check("postal address", "ok", "is in every marketing mail")
    else:
        detail = "there is none, and marketing mail must have one"
        yield Check("postal address", "wrong", detail, "write postal_address under [shop] in dispatcher.toml")


def _campaigns(connection: Connection) -> Check:
    """Campaigns that are due and cannot be fired."""
    stuck = [row for row in list_campaigns(connection) if row["not_fired_because"]]
    if not stuck:
        return Check("schedules", "ok", "every campaign that was due could be fired")
    detail = "; ".join(f"{row['campaign']} cannot be fired: {row['not_fired_because']}" for row in stuck)
    return Check("schedules", "wrong", detail, "correct it and dispatcher apply; it is tried again by itself")


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
        detail = f"{_contacts(found.nowhere)} of no known place, to whom nothing is sent"
        yield Check("places", "look", detail, "write countries under [shop], or import zone, country or phone")
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
    return Check("brake", "look", f"stopped by {row.stopped_by}", "nothing leaves until dispatcher go-on")


def _lanes(connection: Connection) -> Check:
    now = clock.read_now(connection)
    resting = [lane for lane in accounts.read_states(connection, now) if lane.rests]
    if not resting:
        return Check("lanes", "ok", "none has to rest")
    detail = ", ".join(f"{lane.name} until {now + lane.rests:%H:%M:%S} UTC" for lane in resting)
    return Check("lanes", "look", f"at rest: {detail}", "the provider has had enough: see the log")


def _accounts(connection: Connection) -> Check:
    """Whether every provider is worth asking, and bears the rate that is configured."""
    found: list[str] = []
    for account in overview.read(connection)["accounts"]:
        if account["circuit"] != "closed":
            found.append(f"{account['name']}: circuit {account['circuit'].replace('_', '-')} ({account['because']})")
        elif account["in_force"] != account["rate"]:
            found.append(f"{account['name']}: slowed down to {account['in_force']:.3g} a second, climbing again")
    if not found:
        return Check("accounts", "ok", "none is slowed down, no circuit is open")
    return Check("accounts", "look", "; ".join(found), "dispatcher rate list shows more; the log says what happened")


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
        return Check("rooms", "look", "no clock and no worker is running", "dispatcher up starts them")
    shown = ", ".join(f"{living.count(kind)} {kind}" for kind in sorted(set(living)))
    missing = [kind for kind in ("scheduler", "control", "transactional", "marketing") if kind not in living]
    if missing:
        return Check("rooms", "look", f"{shown}; no {', no '.join(missing)}", "dispatcher up starts one of each")
    return Check("rooms", "ok", shown)


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
    detail = f"{', '.join(machines)} went silent while sending"
    return Check("lost machines", "look", detail, f"if it is off for good: dispatcher lost {machines[0]}")


def _feedback(connection: Connection) -> Check:
    waiting, failed = inbox.waiting(connection)
    kept = inbox.count_kept(connection)
    reviews = connection.scalar(text("SELECT count(*) FROM reply WHERE review = 'open'"))
    detail = f"{waiting:,} requests to sort, {failed:,} of them failed before; {reviews:,} texts to review"
    detail += f"; {kept:,} requests not understood"
    to_do = (
        "dispatcher review list shows the texts, dispatcher inbox list what was not understood; "
        "the log says feedback.not_sorted and why"
    )
    if failed or reviews or kept:
        return Check("feedback", "look", detail, to_do)
    return Check("feedback", "ok", detail)


def _asked_for(connection: Connection) -> Check:
    """What people have a right to, and asked for through the storefront."""
    asked = [one for one in requests.list_requests(connection) if one.state == "open"]
    if not asked:
        return Check("requests", "ok", "nobody waits for an export or an erasure")
    due = min(one.due_at for one in asked)
    detail = f"{len(asked):,} asked for through the storefront, the first due {due:%Y-%m-%d}"
    return Check("requests", "look", detail, "dispatcher storefront requests lists them")


def _waiting(connection: Connection) -> Check:
    overdue = connection.scalar(
        text(
            "SELECT count(*) FROM message m, engine e "
            "WHERE m.status = 'pending' AND m.due_at < clock_timestamp() + e.clock_offset - interval '5 minutes'"
        )
    )
    unknown = connection.scalar(text("SELECT count(*) FROM message WHERE status = 'unknown'"))
    detail = f"{overdue:,} messages due for over 5 minutes, {unknown:,} of unknown outcome"
    to_do = "is a worker of their lane running, and is its rate enough? docs/operating.md says what unknown means"
    return Check("messages", "look", detail, to_do) if overdue or unknown else Check("messages", "ok", detail)


def _erasures(connection: Connection) -> Check:
    row = connection.execute(
        text("""SELECT count(*) AS number, min(requested_at) < (
                    SELECT clock_timestamp() + clock_offset - interval '10 minutes' FROM engine) AS long
                FROM erasure WHERE done_at IS NULL""")
    ).one()
    if not row.long:
        return Check("erasures", "ok", f"{row.number:,} in progress")
    to_do = "is a control worker running? else a message of theirs is in the hands of a machine that is gone (above)"
    return Check("erasures", "look", f"{row.number:,} in progress, one of them for over 10 minutes", to_do)
