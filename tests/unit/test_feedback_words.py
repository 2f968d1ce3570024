"""The providers' words into ours: what hard is, what suppresses, and that one bad item concerns itself alone."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.feedback import sendgrid, twilio
from dispatcher.feedback.codes import enhanced_code, speaks_of_the_address
from dispatcher.feedback.report import STATUS, Kind, Standing, standing_by, standing_of
from dispatcher.lifecycle import MOVES, Status

ID = "0192f0c1-2b1e-7c3a-8f00-0123456789ab"
EVENT = {"email": "Ana@Shop.Example", "timestamp": 1461095250, "sg_event_id": "e1", "sg_message_id": "ref.filter1.0",
         "dispatcher_message_id": ID}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "kind", "hard", "suppress"),
    [
        ({"event": "processed"}, Kind.ACCEPTED, None, None),
        ({"event": "deferred", "response": "400 try again"}, Kind.DELAYED, None, None),
        ({"event": "delivered"}, Kind.DELIVERED, None, None),
        ({"event": "open"}, Kind.OPENED, None, None),
        ({"event": "click", "url": "https://shop.example"}, Kind.CLICKED, None, None),
        ({"event": "spamreport"}, Kind.COMPLAINED, None, "complaint"),
        ({"event": "unsubscribe"}, Kind.UNSUBSCRIBED, None, "unsubscribe"),
        ({"event": "group_unsubscribe", "asm_group_id": 1}, Kind.UNSUBSCRIBED, None, "unsubscribe"),
        ({"event": "group_resubscribe"}, None, None, None),
        ({"event": "account_status_change", "type": "compliance_suspend"}, None, None, None),
        ({"event": "bounce", "type": "bounce", "status": "5.1.1"}, Kind.BOUNCED, True, "hard_bounce"),
        ({"event": "bounce", "type": "bounce", "status": "5.0.0", "reason": "unable to deliver"}, Kind.BOUNCED, True,
         "hard_bounce"),
        ({"event": "bounce", "type": "bounce", "reason": "550 5.2.2 mailbox full"}, Kind.BOUNCED, False, None),
        ({"event": "bounce", "type": "bounce", "status": "5.7.1", "reason": "spam"}, Kind.BOUNCED, False, None),
        ({"event": "bounce", "type": "blocked", "status": "5.1.1"}, Kind.BOUNCED, False, None),
        ({"event": "bounce", "bounce_classification": "Invalid Address"}, Kind.BOUNCED, True, "hard_bounce"),
        ({"event": "dropped", "reason": "Bounced Address"}, Kind.DROPPED, None, "hard_bounce"),
        ({"event": "dropped", "reason": "Invalid"}, Kind.DROPPED, None, "invalid"),
        ({"event": "dropped", "reason": "Unsubscribed Address"}, Kind.DROPPED, None, "unsubscribe"),
        ({"event": "dropped", "reason": "Spam Reporting Address"}, Kind.DROPPED, None, "complaint"),
        ({"event": "dropped", "reason": "Spam Content (if Spam Checker app is enabled)"}, Kind.DROPPED, None, None),
        ({"event": "dropped", "reason": "Invalid SMTPAPI header"}, Kind.DROPPED, None, None),
    ],
)  # fmt: skip
def test_an_event_of_sendgrid_is_understood(
    changes: dict[str, Any], kind: Kind | None, hard: bool | None, suppress: str | None
) -> None:
    report = sendgrid.read_event(EVENT | changes)

    assert (report.kind, report.hard, report.suppress, report.flaw) == (kind, hard, suppress, None)
    assert (str(report.message_id), report.provider_ref, report.address) == (ID, "ref", "ana@shop.example")


@pytest.mark.parametrize(
    "item",
    [None, 7, [], "x", {}, {"event": 5}, {"event": None}, {"event": {}}, {"event": "delivered"},
     {"event": "delivered", "timestamp": "soon", "email": 3, "dispatcher_message_id": "no id", "sg_event_id": {}},
     {"event": "bounce", "status": {}, "reason": [], "timestamp": 1e300, "sg_message_id": "x" * 5_000},
     {"event": "no such event", "email": "\ud800@x"}],
)  # fmt: skip
def test_a_malformed_item_is_kept_and_its_neighbours_are_read(item: Any) -> None:
    body = json.dumps([EVENT | {"event": "delivered"}, item, EVENT | {"event": "open"}]).encode()
    first, middle, last = sendgrid.read_events(body)

    assert (first.kind, last.kind) == (Kind.DELIVERED, Kind.OPENED)
    assert middle.flaw is not None or middle.message_id is None


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    assert all(report.source == "sendgrid" for report in sendgrid.read_events(body))
    twilio.read_status(twilio.read_fields("application/json", body), body.decode("latin-1"))
    twilio.read_status(twilio.read_fields("application/x-www-form-urlencoded", body), "")


def test_anymails_recorded_events_are_understood(shared: Path) -> None:
    cases = json.loads((shared / "data/webhooks/esp-events/sendgrid.json").read_text(encoding="utf-8"))
    read = {case["case"]: sendgrid.read_events(json.dumps(case["payload"]).encode()) for case in cases}
    kinds = {name: [report.kind for report in reports] for name, reports in read.items()}

    assert kinds == {
        "test_processed_event": [Kind.ACCEPTED],
        "test_delivered_event": [Kind.DELIVERED],
        "test_dropped_invalid_event": [Kind.DROPPED],
        "test_dropped_unsubscribed_event": [Kind.DROPPED],
        "test_deferred_event": [Kind.DELAYED],
        "test_click_event": [Kind.CLICKED],
        "test_compatibility_message_id_from_smtp_id": [Kind.DELIVERED],
    }
    assert read["test_dropped_invalid_event"][0].suppress == "invalid"
    assert read["test_dropped_unsubscribed_event"][0].suppress == "unsubscribe"
    assert all(report.occurred_at is not None and not report.flaw for reports in read.values() for report in reports)


def test_the_composed_status_callbacks_are_understood(shared: Path) -> None:
    composed = json.loads((shared / "data/webhooks/twilio-forms-composed.json").read_text(encoding="utf-8"))
    read = {}
    for case in composed["forms"]:
        if case["kind"] == "status":
            report = twilio.read_status(dict(case["params"]), f"dispatcher_message_id={ID}")
            read[case["case"]] = (report.kind, report.hard, report.suppress)
            assert str(report.message_id) == ID
            assert report.address is not None

    assert read == {
        "queued": (Kind.ACCEPTED, None, None),
        "sent": (Kind.ACCEPTED, None, None),
        "delivered": (Kind.DELIVERED, None, None),
        "undelivered 30003": (Kind.BOUNCED, False, None),
        "undelivered 30005": (Kind.BOUNCED, True, "invalid"),
        "undelivered 30006": (Kind.BOUNCED, True, "invalid"),
        "undelivered 30007": (Kind.DROPPED, None, None),
        "failed 30008": (Kind.BOUNCED, False, None),
        "failed 21610": (Kind.DROPPED, None, "stop"),
        "undelivered 30034": (Kind.DROPPED, None, None),
    }


@pytest.mark.parametrize(
    ("words", "hard"),
    [
        ("550 5.1.1 <a@b.example>... User unknown", True),
        ("smtp; 550-5.1.1 The email account that you tried to reach does not exist", True),
        ("550 5.1.10 RESOLVER.ADR.RecipientNotFound", True),
        ("554 5.1.2 Bad destination system", True),
        ("550 No such user here", True),
        ("550 Unknown user a@b.example", True),
        ("554 delivery error: dd This user doesn't have a example.com account", True),
        ("550 5.2.1 User Unknown", False),  # a disabled mailbox may be enabled again: many in a row end it
        ("552 5.2.2 mailbox full", False),
        ("554 5.7.1 rejected for policy", False),
        ("552 5.3.4 message too big", False),
        ("450 4.1.1 user unknown", False),
        ("451 4.7.1 greylisted", False),
        ("550 rejected", False),
        ("", False),
    ],
)
def test_hard_is_only_what_speaks_of_the_address(words: str, hard: bool) -> None:
    assert speaks_of_the_address(enhanced_code(words), words) is hard


def test_no_order_of_reports_changes_where_a_message_stands() -> None:
    for kinds in permutations(Kind, 3):
        standing = Standing.UNREPORTED
        for kind in (*kinds, *kinds):
            standing = max(standing, standing_by([kind]))
        assert standing == standing_by(kinds)


@pytest.mark.parametrize("start", [Status.SENDING, Status.UNKNOWN, Status.SENT, Status.FAILED])
def test_a_message_only_ever_moves_as_the_ledger_allows(start: Status) -> None:
    for kinds in permutations(Kind, 4):
        status, reason = start.value, None
        for kind in kinds:
            standing = standing_by([kind])
            if standing > standing_of(status, reason):
                new, reason = STATUS[standing]
                assert new == status or Status(new) in MOVES[Status(status)]
                status = new
        assert standing_of(status, reason) == standing_by(kinds)
