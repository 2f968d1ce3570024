"""Whole houses that send through SendGrid, Twilio and SMTP, to stand-ins that look hard, count, and lose replies.

In mid-run a hand is killed.  Nobody is written to twice, nobody is lost, and what is in doubt is counted.
"""

from __future__ import annotations

import csv
import email
import email.policy
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from envelopes import ACCOUNT_SID, SERVICE_SID
from house import ROOMY_CAPS, Live, eventually, live_shop, own_servers, write_people
from mail_server import mail_server
from sqlalchemy.engine import URL
from standins import Call, Say, StandIn, mails_in, stand_in, twilio_error

from dispatcher import rooms
from dispatcher.providers.protocol import boot_seconds
from dispatcher.room_guard import is_running
from dispatcher.up import rooms_of
from dispatcher.verify import verify

pytestmark = pytest.mark.thorough

PUBLIC_URL = "https://shop.example"


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a killed hand come back soon: this is no start that fails again and again."""
    monkeypatch.setattr(rooms, "_LONGEST_PAUSE_SECONDS", 0.5)


@dataclass(frozen=True)
class Arrived:
    """A message at the other side, as its own record has it."""

    message_id: str
    to: str
    at: float  #: boot time
    subject: str
    headers: Sequence[tuple[str, str]]
    text: str
    html: str | None


@contextmanager
def house(
    tmp_path: Path,
    servers: tuple[str, str],
    template_database: URL,
    people: Path,
    providers: Mapping[str, Any],
    workspace: Mapping[str, str],
) -> Iterator[Live]:
    with (
        own_servers(servers, template_database) as own,
        live_shop(
            tmp_path / "home", servers=own, workspace=workspace, people=people, rooms=rooms_of(2),
            providers={"public_url": PUBLIC_URL, **providers},
        ) as live,
    ):  # fmt: skip
        yield live


def kill_a_hand_at_work(live: Live, run_id: UUID) -> None:
    """Kill a marketing hand that has messages on the wire, once some of the run were settled."""
    query = """SELECT w.pid FROM worker w WHERE w.ended_at IS NULL AND w.kind = 'marketing' AND EXISTS (
                   SELECT FROM message m WHERE m.worker_id = w.id AND m.status = 'sending' AND m.run_id = :run)
               ORDER BY w.id LIMIT 1"""
    at_work: list[int] = []
    eventually(lambda: live.statuses(run_id)["sent"] > 0, saying="the first that were sent")
    eventually(lambda: at_work.extend(row.pid for row in live.rows(query, run=run_id)) or at_work, saying="a hand")
    os.kill(at_work[0], signal.SIGKILL)
    eventually(lambda: not is_running(at_work[0]))


def check(live: Live, run_id: UUID, arrived: list[Arrived], *, people: int, fails: int = 0) -> Counter[str]:
    """Check a run that has ended against the other side's record, and return its statuses."""
    statuses = live.statuses(run_id)
    ids = [one.message_id for one in arrived]
    assert len(ids) == len(set(ids)), "somebody was written to twice"
    assert len({one.to for one in arrived}) == len(arrived), "an address was written to twice"
    assert sum(statuses.values()) == live.one("SELECT audience FROM run WHERE id = :run", run=run_id) == people
    assert set(statuses) <= {"sent", "skipped", "unknown", "failed"}
    assert statuses["failed"] == fails
    by_id = {str(row.id): row.status for row in live.rows("SELECT id, status FROM message WHERE run_id = :r", r=run_id)}
    assert {by_id[message_id] for message_id in ids} <= {"sent", "unknown"}
    assert {message_id for message_id, status in by_id.items() if status == "sent"} <= set(ids)
    assert statuses["unknown"] >= len(set(ids)) - statuses["sent"]
    check_invariants(live, arrived)
    return statuses


def check_invariants(live: Live, arrived: list[Arrived]) -> None:
    """Have `verify` hold the ledger against the other side's record, in the sandbox's line format."""
    rows = live.rows(
        "SELECT m.id, m.run_id, m.channel, c.external_id FROM message m JOIN contact c ON c.id = m.contact_id"
    )
    known = {str(row.id): row for row in rows}
    boot, now = boot_seconds(), datetime.now(UTC)
    log = live.settings.home / "arrived.jsonl"
    with log.open("w", encoding="utf-8") as file:
        for one in arrived:
            row = known[one.message_id]
            line = {
                "message_id": one.message_id, "run": str(row.run_id), "contact": row.external_id,
                "channel": row.channel, "to": one.to, "subject": one.subject, "headers": list(one.headers),
                "text": one.text, "html": one.html, "at": (now + timedelta(seconds=one.at - boot)).isoformat(),
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")
    with live.database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        report = verify(connection, live.runtime.key_ring, log)
    broken = [(result.name, result.findings) for result in report.results if result.status == "broken"]
    assert not broken, broken


def losing(api: StandIn, chance: random.Random, *, one_in: int, seconds: float) -> Callable[[Call], Say | None]:
    """Return answers that take their time, and of which one in so many is lost after the acceptance."""

    def answers(call: Call) -> Say | None:
        time.sleep(seconds)
        return Say(202, accept=True, lose=True) if chance.randrange(one_in) == 0 else None

    return answers


# --- SendGrid


def mails_of(api: StandIn) -> list[Arrived]:
    contents = {
        (headers["X-Dispatcher-Message-Id"]): (subject, texts, headers)
        for call in api.calls
        for _, subject, texts, headers in mails_in(call.body)
    }
    arrived = []
    for taken in api.taken:
        subject, texts, headers = contents[taken.message_id]
        arrived.append(
            Arrived(
                taken.message_id, taken.to, taken.at, subject, list(headers.items()),
                texts["text/plain"], texts.get("text/html"),
            )
        )  # fmt: skip
    return arrived


def test_a_run_through_sendgrid(
    servers: tuple[str, str], template_database: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = write_people(tmp_path / "people.csv", 900)
    with stand_in() as api:
        settings = {"email_provider": "sendgrid", "sendgrid_api_key": "SG.standin", "sendgrid_url": api.url}
        with house(tmp_path, servers, template_database, people, settings, ROOMY_CAPS) as live:
            first = live.start("hello")
            live.finish(first)
            statuses = check(live, first, mails_of(api), people=900)
            agreed, calls = live.agreed(), len(api.calls)

            assert statuses["sent"] == agreed
            assert calls <= 5  # 250 mails a request, of batches of 500

            api.calls.clear()
            api.taken.clear()
            api.answers = losing(api, random.Random(4), one_in=4, seconds=0.4)
            second = live.start("hello")
            kill_a_hand_at_work(live, second)
            live.finish(second)
            api.answers = lambda _: None
            statuses = check(live, second, mails_of(api), people=900)

        assert api.complaints == []
        assert statuses["sent"] + statuses["unknown"] == agreed
        assert statuses["unknown"]
    with capsys.disabled():
        print(f"\nSendGrid: {agreed} mails in {calls} calls; killed and lossy: {dict(statuses)}")


# --- Twilio

#: Somewhere in each it is between 08:15 and 19:30, whenever these tests run; numbers of nobody.
PLACES = (
    ("IS", "Atlantic/Reykjavik", "+3546", 6),
    ("CR", "America/Costa_Rica", "+5068", 7),
    ("KR", "Asia/Seoul", "+8210", 8),
)


def in_daylight() -> tuple[str, str, str, int]:
    """Return country, zone, and the beginning of phone numbers with how many digits follow, where it is day now."""
    for place in PLACES:
        local = datetime.now(ZoneInfo(place[1]))
        if 8 * 60 + 15 <= local.hour * 60 + local.minute <= 19 * 60 + 30:
            return place
    raise AssertionError("it is night everywhere")


TEXTS = {
    "dispatcher.toml": ROOMY_CAPS["dispatcher.toml"].replace('sms = ["20:00-09:00"]', "sms = []"),
    "segments/everybody.yaml": "name: everybody\nmatch: {attribute: country, in: [IS, CR, KR]}\n",
    "campaigns/texts.yaml": "name: texts\nchannel: sms\ntopic: offers\nsegment: everybody\ntemplate: short\n",
    "templates/sms/short/meta.yaml": "class: marketing\ntopic: offers\n",
    "templates/sms/short/body.txt": "{{ shop.name }}: hello {{ contact.first_name }}. {{ unsubscribe_url }}\n",
}


def write_phones(path: Path, count: int) -> Path:
    country, zone, prefix, digits = in_daylight()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["contact_id", "first_name", "phone", "country", "timezone", "sms_consent", "sms_consent_at"])
        for number in range(count):
            phone = f"{prefix}{number:0{digits}}"
            writer.writerow(
                [f"p{number}", f"First{number}", phone, country, zone, "subscribed", "2020-01-01T00:00:00Z"]
            )
    return path


def texts_of(api: StandIn) -> list[Arrived]:
    return [Arrived(one.message_id, one.to, one.at, "", [], one.said["Body"], None) for one in api.taken]


def test_a_run_through_twilio(
    servers: tuple[str, str], template_database: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = write_phones(tmp_path / "people.csv", 400)
    chance = random.Random(7)
    with stand_in() as api:
        lossy = losing(api, chance, one_in=50, seconds=0.02)
        left = in_daylight()[2] + "0" * (in_daylight()[3] - 3) + "123"
        api.answers = lambda call: twilio_error(21610) if call.people[0].to == left else lossy(call)
        api.records.answers = lambda _target: Say(429, headers={"Retry-After": "2"})  # nobody looks anything up
        settings = {
            "sms_provider": "twilio", "twilio_account_sid": ACCOUNT_SID, "twilio_auth_token": "standin",
            "twilio_messaging_service_sid": SERVICE_SID, "twilio_url": api.url,
        }  # fmt: skip
        with house(tmp_path, servers, template_database, people, settings, TEXTS) as live:
            run_id = live.start("texts")
            kill_a_hand_at_work(live, run_id)
            live.finish(run_id)
            statuses = check(live, run_id, texts_of(api), people=400, fails=1)

            assert api.complaints == []
            assert statuses["sent"] + statuses["unknown"] == 399
            assert statuses["unknown"]
            assert len(api.calls) <= 400
            assert live.one("SELECT reason FROM suppression") == "stop"
            silence = datetime.now(ZoneInfo(in_daylight()[1])).replace(hour=20, minute=0, second=0, microsecond=0)
            seconds = (silence - datetime.now(UTC)).total_seconds() + 120  # as long as this took
            for one in api.taken:
                assert 1 <= int(one.said["ValidityPeriod"]) <= min(36_000, seconds)
                assert one.said["Body"].endswith("\nReply STOP to opt out")

            api.records.answers = lambda _target: None
            taken = set(api.ids())
            shown = "SELECT id FROM message WHERE run_id = :run AND status = 'sent'"
            took = eventually(lambda: {str(row.id) for row in live.rows(shown, run=run_id)} == taken, 120,
                              saying="Twilio's own list has settled whatever it took, and nothing else")  # fmt: skip
            assert api.records.complaints == []
    with capsys.disabled():
        print(f"\nTwilio: {len(api.calls)} calls for 400 people, one hand killed: {dict(statuses)}")
        print(f"whatever of it Twilio had taken was looked up within {took:.0f} s")


# --- SMTP


def test_a_run_through_smtp(
    servers: tuple[str, str], template_database: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = write_people(tmp_path / "people.csv", 400)
    listed = people.read_text(encoding="utf-8")
    for number in range(0, 400, 40):
        listed = listed.replace(f"p{number:05}@people", f"drop-after-dot-{number}@people")
    people.write_text(listed.replace("p00011@people", "rcpt-550-5.1.1@people"), encoding="utf-8")
    with mail_server(tmp_path, "--login", "shop:secret", "--seconds", "0.02") as server:
        settings = {"email_provider": "smtp", "smtp_url": f"smtp://shop:secret@127.0.0.1:{server.port}"}
        with house(tmp_path, servers, template_database, people, settings, ROOMY_CAPS) as live:
            run_id = live.start("hello")
            kill_a_hand_at_work(live, run_id)
            live.finish(run_id)
            arrived = [_arrived(mail) for mail in server.taken()]
            statuses = check(live, run_id, arrived, people=400, fails=1)

            assert statuses["sent"] + statuses["unknown"] == live.agreed() - 1
            assert statuses["unknown"] >= 10
            assert live.one("SELECT reason FROM suppression") == "hard_bounce"
            assert len({tuple(mail["peer"]) for mail in server.taken()}) < 60
    with capsys.disabled():
        print(f"\nSMTP: {len(arrived)} mails arrived, one hand killed: {dict(statuses)}")


def _arrived(taken: dict[str, Any]) -> Arrived:
    message = email.message_from_bytes(taken["mail"], policy=email.policy.default)
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    return Arrived(
        str(message["X-Dispatcher-Message-Id"]), taken["to"], taken["at"], str(message["Subject"]),
        [(name, str(value)) for name, value in message.items()],
        text.get_content().replace("\r\n", "\n"), html.get_content(),
    )  # fmt: skip
