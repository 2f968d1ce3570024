"""Reasons in plain words: each has a sentence of its own, with all its facts, with none, and with those of long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.explain.sentences import because, blame, day
from dispatcher.gates import Reason
from segments.explain import Answer

AT = datetime(2026, 3, 3, 10, 12, 30, tzinfo=UTC)

#: What each gate gives, and words that must be in what is made of it.
SPOKEN: dict[Reason, tuple[dict[str, Any], str]] = {
    Reason.OPERATOR: ({"run": "paused"}, "paused the run"),
    Reason.EXPIRED: ({"expires_at": AT}, "good until 3 March 2026 at 10:12 UTC"),
    Reason.NO_ADDRESS: ({"channel": "sms"}, "no phone number"),
    Reason.BAD_ADDRESS: ({"channel": "email"}, "for e-mail cannot work"),
    Reason.SUPPRESSED: ({"because": ["complaint"]}, "reported an earlier message as spam"),
    Reason.NO_CONSENT: (
        {"topic": "offers", "because": "withdrawn", "withdrawn_at": AT},
        "withdrew offers on 3 March 2026 at 10:12 UTC",
    ),
    Reason.PAUSED: ({"paused_until": AT}, "pause until 3 March 2026"),
    Reason.NOT_IN_SEGMENT: (
        {"segment": "fans", "unmet": ["event: order.placed (found count 0)"]},
        "segment fans, since this does not hold: event: order.placed (found count 0)",
    ),
    Reason.FLOW_EXIT: ({}, "has happened"),
    Reason.SOURCE_STALE: ({}, "too old"),
    Reason.HOLDOUT: ({"share": 0.05}, "holdout of 5.0%"),
    Reason.DUPLICATE_ADDRESS: ({"goes_to": "17850"}, "17850"),
    Reason.LATE: ({}, "had passed"),
    Reason.PLACE_UNKNOWN: ({}, "nobody knows where they are"),
    Reason.QUIET_HOURS: (
        {
            "zones": ["Europe/Paris"],
            "windows": ["shop", "FR", "FR-STRICT"],
            "in_effect": ["shop", "FR"],
            "opens_at": AT,
        },
        "in Europe/Paris (the shop's own, contact window FR), until 3 March 2026",
    ),
    Reason.OUTRANKED: ({"campaign": "vip", "cap": "daily"}, "campaign vip goes first"),
    Reason.CAPPED: (
        {"counted": 2, "cap": "daily", "frees_at": AT},
        "cap daily allows no more; a place frees on 3 March",
    ),
    Reason.RENDER_FAILED: ({"because": "body.html:3: no such field"}, "body.html:3"),
    Reason.REJECTED: ({}, "refused"),
    Reason.PROVIDER_DROPPED: ({}, "dropped"),
    Reason.RATE: ({}, "rate"),
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_sentence_with_its_facts(reason: Reason) -> None:
    found, words = SPOKEN[reason]

    assert words in because(reason, found)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"because": "circuit", "account": "sendgrid", "said": "401"}, "sendgrid cannot be reached or does not take"),
        ({"because": "rest", "lane": "sms.marketing"}, "has had enough"),
        ({"because": "domain", "domain": "gmail.com"}, "mails to gmail.com"),
        ({"because": "warm-up", "day": "2026-12-01", "allowance": 200}, "its 200 mails of the day"),
    ],
)
def test_what_waits_for_the_rate_says_for_which(found: dict[str, Any], words: str) -> None:
    assert words in because(Reason.RATE, found)


@pytest.mark.parametrize("reason", Reason)
def test_a_sentence_needs_no_fact_at_all(reason: Reason) -> None:
    said = because(reason, {})

    assert re.fullmatch(r"[a-z].{12,}[^.]", said), said
    assert "None" not in said


def test_no_two_reasons_say_the_same() -> None:
    assert len({because(reason, {}) for reason in Reason}) == len(Reason)


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("never granted", "no record that they agreed to offers"),
        ("not confirmed yet", "have not confirmed"),
        ("granted for a former address", "no longer theirs"),
        ("no longer in force", "ran out on 3 March 2026"),
        ("the topic needs a confirmed opt-in", "never confirmed"),
        ("the topic does not accept this basis", "rests on another basis"),
    ],
)
def test_every_lack_of_consent_is_told_apart(why: str, words: str) -> None:
    assert words in because(Reason.NO_CONSENT, {"topic": "offers", "because": why, "expires_at": AT})


def test_an_expiry_says_what_held_the_message_so_long() -> None:
    said = because(
        Reason.EXPIRED,
        {"blocked_by": "QUIET_HOURS", "zones": ["Asia/Tokyo"], "until": AT, "expires_at": "2026-03-03T08:00:00+00:00"},
    )

    assert "quiet hours where they may be in Asia/Tokyo" in said
    assert said.endswith("left on 3 March 2026 at 10:12 UTC, and was good until 3 March 2026 at 08:00 UTC")


def test_an_instant_reads_the_same_live_and_from_the_ledger() -> None:
    assert day(AT) == day(AT.isoformat()) == day("2026-03-03T10:12:30.000000Z") == "3 March 2026 at 10:12 UTC"
    assert day(None) == day("soon") == "a time that was not kept"


def leaf(name: str, holds: bool) -> Answer:
    return Answer(name, holds, {"count": 3})


def test_the_blame_for_being_outside_a_segment_falls_on_what_did_not_hold() -> None:
    both = Answer("all", False, {}, (leaf("a", True), leaf("b", False), Answer("not", False, {}, (leaf("c", True),))))
    either = Answer("any", False, {}, (leaf("d", False), leaf("e", False)))

    assert blame(both) == ["b (found count 3)", "not c (found count 3)"]
    assert blame(either) == ["d (found count 3)", "e (found count 3)"]
    assert blame(leaf("f", True)) == []
