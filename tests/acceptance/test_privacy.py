"""Their data is theirs: after a full run no name, address or phone is anywhere but where a provider would have it."""

from __future__ import annotations

import csv
import http.client
import json
import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis
from house import ROOMY_CAPS, Live, command, eventually, live_shop, unsubscribe_url
from small_workspace import FILES
from sqlalchemy import text

from dispatcher import api_keys
from dispatcher.rooms import environment_of
from dispatcher.up import rooms_of

pytestmark = pytest.mark.thorough

PEOPLE = 60
#: In every name, address, order and browser of these people, and in nothing else.
MARK = "zqxjkvw"
WORKSPACE = {
    **ROOMY_CAPS,
    "campaigns/hello.yaml": FILES["campaigns/hello.yaml"] + "track_clicks: true\nutm: {source: letter}\n",
    "templates/email/christmas/body.html": FILES["templates/email/christmas/body.html"].replace(
        "<p>Hello",
        '<a href="https://small.example/of/{{ contact.email }}?name={{ contact.last_name }}">Yours</a><p>Hello',
    ),
    "campaigns/texts.yaml": "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n",
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }}: hello {{ contact.first_name }}. Stop: {{ unsubscribe_url }}\n",
    "templates/email/order/body.html": "<html lang='en'><body><p>Thank you, {{ data.gift_for }}</p></body></html>\n",
}


def phone(number: int) -> str:
    return f"+4477009{number:05}"


def address(number: int) -> str:
    return f"{MARK}.{number}@{MARK}-mail.example"


def write_marked_people(path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["contact_id", "first_name", "last_name", "email", "phone", "country", "timezone", "email_consent",
             "email_consent_at", "sms_consent", "sms_consent_at"]
        )  # fmt: skip
        for number in range(PEOPLE):
            writer.writerow(
                [f"c{number}", f"Ana{MARK}", f"Popescu-{MARK}", address(number), phone(number), "GB", "Europe/London",
                 "subscribed", "2020-01-01T00:00:00Z", "subscribed", "2020-01-01T00:00:00Z"]
            )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, str]]:
    """A house in which everything was played once, at the most talkative log level; and what its commands printed."""
    folder = tmp_path_factory.mktemp("private")
    people = write_marked_people(folder / "people.csv")
    with live_shop(
        folder / "home", workspace=WORKSPACE, people=people, rooms=rooms_of(1), log_level="debug"
    ) as live:  # fmt: skip
        printed = [_import_again(live, people)]
        runs = [live.start(campaign) for campaign in ("hello", "texts")]
        for run_id in runs:
            live.finish(run_id)
        assert len(live.outbox()) == 2 * PEOPLE
        _use_http(live)
        printed += _use_commands(live)
        yield live, "".join(printed)


def _import_again(live: Live, people: Path) -> str:
    """Import from the command line what is there already, and some rows that cannot be used."""
    bad = people.with_name("bad.csv")
    bad.write_text(
        f"contact_id,first_name,email,phone,zone\nb1,{MARK},{MARK}@@nowhere,12{MARK},Mars\n,{MARK},{address(1)},,\n"
    )
    rejects = ("--rejects", str(people.with_name("rejected.csv")))
    done = live.command("import", "contacts", str(people), *rejects)
    worse = live.command("import", "contacts", str(bad), *rejects)
    return done.stdout + done.stderr + worse.stdout + worse.stderr


def _use_http(live: Live) -> None:
    """Unsubscribe, order, explain, and ask for what does not exist, with personal data wherever it can stand."""
    mail = next(mail for mail in live.outbox() if mail["channel"] == "email")
    link = f"{unsubscribe_url(mail)}?to={quote(mail['to'])}"
    agent = {"User-Agent": f"Mozilla/5.0 {MARK}"}
    assert live.http(link, None, agent)[0] == 200
    form = {**agent, "Content-Type": "application/x-www-form-urlencoded"}
    assert live.http(link, f"List-Unsubscribe=One-Click&from={MARK}".encode(), form)[0] == 200
    clicked = re.search(r"/c/[\w-]+", mail["html"])
    assert clicked is not None
    status, headers = _followed(f"{live.url}{clicked[0]}?to={quote(mail['to'])}", agent)
    assert status == 302
    assert MARK in headers["Location"], "the shop's own page, where it says so"
    eventually(lambda: live.rows("SELECT FROM feedback WHERE kind = 'clicked'"))
    with live.database.begin() as connection:
        key = api_keys.create(connection, "shop", ["messages:write", "messages:read", "explain:read"])
    bearer = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    body: dict[str, Any] = {
        "template": "order",
        "channel": "email",
        "contact": "c1",
        "data": {"gift_for": f"Ina {MARK}"},
    }
    asked = {**bearer, "Idempotency-Key": "order-1"}
    assert live.http(f"{live.url}/v1/messages", json.dumps(body).encode(), asked)[0] == 202
    wrong = json.dumps({**body, "email": address(2), "contact": 7}).encode()
    assert live.http(f"{live.url}/v1/messages", wrong, asked)[0] == 422
    unusable = json.dumps({**body, "data": {"wrong_name": f"Ina {MARK}"}}).encode()
    assert live.http(f"{live.url}/v1/messages", unusable, {**bearer, "Idempotency-Key": "order-2"})[0] == 202
    assert live.http(f"{live.url}/v1/explain?contact={quote(address(3))}&campaign=hello", None, bearer)[0] == 200
    assert (
        live.http(f"{live.url}/v1/explain?contact={quote(f'nobody{address(3)}')}&campaign=hello", None, bearer)[0]
        == 404
    )
    assert live.http(f"{live.url}/{MARK}/{quote(address(4))}?name={MARK}")[0] == 404
    eventually(
        lambda: (
            live.rows("SELECT FROM message WHERE client = 'shop' AND status = 'sent'")
            and live.rows("SELECT FROM message WHERE client = 'shop' AND status = 'failed'")
        )
    )


def _followed(url: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Return status and headers of an answer, not going where it leads."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers
    finally:
        connection.close()


def _use_commands(live: Live) -> list[str]:
    run_id = str(live.rows("SELECT id FROM run WHERE name = 'hello'")[0].id)
    commands = [
        ("explain", address(5), "hello"), ("contact", "show", address(6)), ("suppression", "add", address(8)),
        ("segment", "sample", "everybody"), ("run", "export", run_id), ("verify", "--provider-log", str(live.log)),
    ]  # fmt: skip
    printed = []
    for arguments in commands:
        done = live.command(*arguments)
        printed.append(done.stdout + done.stderr)
    refused = command(["explain", f"nobody{address(9)}", "hello"], environment_of(live.settings))
    assert refused.returncode == 1
    return [*printed, refused.stdout, refused.stderr]


def marks_in(data: bytes) -> list[bytes]:
    """Return what of these people is in some bytes: in clear, in hexadecimal, or as a phone number."""
    lower = data.lower()
    found = []
    for mark in (MARK.encode(), MARK.encode().hex().encode()):
        if mark in lower:  # first: much faster than the expression, and almost never true
            found += re.findall(rb"(?s).{0,80}" + mark + rb".{0,40}", lower)
    phones = {phone(number)[3:].encode() for number in range(PEOPLE)}
    return found + [one for one in re.findall(rb"77009[0-9]{5}", data) if one in phones]


def test_the_marks_can_be_found_where_a_provider_has_them(played: tuple[Live, str]) -> None:
    live, _ = played
    data = live.log.read_bytes()

    assert MARK.encode() in data
    assert len(marks_in(data)) > 3 * PEOPLE
    assert marks_in(MARK.encode().hex().encode())


def test_nothing_that_was_printed_or_logged_names_anybody(played: tuple[Live, str]) -> None:
    live, printed = played
    logs = sorted(live.rooms.logs.iterdir())

    assert {"clock.log", "control.log", "marketing-1.log", "transactional.log", "web.log", "postgres.log"} <= {
        log.name for log in logs
    }
    assert b'"level": "debug"' in b"".join(log.read_bytes() for log in logs)
    assert {log.name: marks_in(log.read_bytes()) for log in logs} == {log.name: [] for log in logs}
    assert "NO_CONSENT" in printed
    assert marks_in(printed.encode()) == []


def test_tickets_name_batches_and_nobody(played: tuple[Live, str]) -> None:
    live, _ = played
    hands = [live.pid(room) for room in ("marketing-1", "transactional")]
    for pid in hands:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    try:
        live.start("hello")
        eventually(lambda: live.broker_holds("email.marketing"), saying="a ticket that waits")
        with live.broker() as broker:
            held = _dump(broker)
    finally:
        for pid in hands:
            os.kill(pid, signal.SIGCONT)  # type: ignore[arg-type]

    assert b'"actor_name":"send"' in held
    assert marks_in(held) == []


def _dump(broker: redis.Redis) -> bytes:
    """Return every key with its value, whatever its type."""
    read = {
        b"string": broker.get,
        b"list": lambda key: broker.lrange(key, 0, -1),
        b"set": broker.smembers,
        b"zset": lambda key: broker.zrange(key, 0, -1, withscores=True),
        b"hash": broker.hgetall,
        b"none": lambda _: None,  # gone since the scan
    }
    kinds = {key: broker.type(key) for key in broker.scan_iter(count=1_000)}
    return b"\n".join(key + b" " + repr(read[kind](key)).encode() for key, kind in kinds.items())


def test_no_column_of_any_table_names_anybody(played: tuple[Live, str]) -> None:
    live, _ = played
    with live.database.connect() as connection:
        tables = connection.scalars(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        ).all()
        for table in tables:
            rows = "\n".join(connection.scalars(text(f"SELECT whole::text FROM {table} AS whole")))
            assert marks_in(rows.encode()) == [], table
    assert {"contact", "address", "message", "consent_event", "unsubscribe", "audit", "event"} <= set(tables)


def test_no_file_of_the_house_names_anybody_but_the_outbox(played: tuple[Live, str]) -> None:
    live, _ = played
    with live.database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CHECKPOINT"))
    home = live.settings.home
    folders = [home / name for name in os.listdir(home) if name not in ("sandbox", "workspace")]
    folders.append((home / "servers" / "postgres").resolve())
    telling = []
    size = 0
    for folder in folders:
        for path in [folder] if folder.is_file() else folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                size += len(data)
                telling += [str(path)] if marks_in(data) else []

    assert size > 20_000_000, "the database's files were not looked at"
    assert telling == []


def test_who_else_is_on_this_machine_can_read_none_of_it(played: tuple[Live, str]) -> None:
    live, _ = played
    home = live.settings.home

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(home / "secret_keys") == 0o600
    assert mode(home / "sandbox") == 0o700
    assert mode(live.log) == 0o600
    assert mode(home / "logs") == 0o700
    assert {mode(log) for log in live.rooms.logs.iterdir()} == {0o600}
