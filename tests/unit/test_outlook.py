"""Following a deferral: to the instant at which nothing objects, to why none comes, or to whoever must act."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from test_gates import DAILY, NOON, SYDNEY, any_facts, make_facts, night_in, rival, sent

from dispatcher.facts import Facts
from dispatcher.gates import Defer, Reason, Send, Skip, decide
from dispatcher.outlook import Outlook, follow
from dispatcher.places import NOWHERE

MORNING_IN_SYDNEY = datetime(2026, 11, 23, 22, tzinfo=UTC)


def outlook_of(facts: Facts, at: datetime = NOON) -> Outlook:
    return follow(facts, at, decide(facts, at))


def test_what_may_leave_leaves_at_once() -> None:
    assert outlook_of(make_facts()).leaves_at == NOON


def test_a_text_for_the_night_leaves_in_the_morning() -> None:
    outlook = outlook_of(make_facts(run={"channel": "sms"}, **SYDNEY))

    assert outlook.leaves_at == MORNING_IN_SYDNEY
    assert [type(verdict) for _, verdict in outlook.steps] == [Defer, Send]


def test_a_skip_is_for_this_run_and_for_ever() -> None:
    outlook = outlook_of(make_facts(consent="withdrawn"))

    assert (outlook.leaves_at, outlook.never) == (None, Reason.NO_CONSENT)


def test_a_consent_that_runs_out_during_the_night_is_seen_in_the_morning() -> None:
    facts = make_facts(run={"channel": "sms"}, consent_expires_at=MORNING_IN_SYDNEY - timedelta(hours=1), **SYDNEY)

    assert outlook_of(facts).never == Reason.NO_CONSENT


def test_a_cap_that_waits_is_followed_to_the_free_slot_and_through_the_night_after_it() -> None:
    facts = make_facts(
        run={"channel": "sms", "caps": (DAILY,), "on_cap": "defer"},
        silences=night_in("Europe/London"),
        counted=(sent(14, channel="sms"),),
    )
    outlook = outlook_of(facts)

    # the slot frees at 22:00 in London, and that is a time of silence there until 09:00
    assert outlook.leaves_at == datetime(2026, 11, 24, 9, tzinfo=UTC)
    first, last = outlook.steps[0][1], outlook.steps[-1][1]
    assert isinstance(first, Defer)
    assert (first.reason, type(last)) == (Reason.CAPPED, Send)


def test_whoever_is_outranked_finds_the_slot_taken_when_the_winner_has_left() -> None:
    facts = make_facts(run={"caps": (DAILY,)}, rivals=(rival(due_at=NOON + timedelta(hours=1)),))

    outlook = outlook_of(facts)

    assert outlook.never == Reason.CAPPED
    assert outlook.steps[-1][0] == NOON + timedelta(hours=1)


def test_whoever_is_outranked_and_may_wait_leaves_when_the_winners_slot_frees() -> None:
    facts = make_facts(
        run={"caps": (DAILY,), "on_cap": "defer"}, rivals=(rival(),), expires_at=NOON + timedelta(days=3)
    )

    assert outlook_of(facts).leaves_at == NOON + timedelta(hours=24)


def test_only_a_human_ends_a_stop_and_only_better_data_an_unknown_place() -> None:
    assert outlook_of(make_facts(run={"stopped": True})).waits_for == Reason.OPERATOR
    assert outlook_of(make_facts(places=NOWHERE)).waits_for == Reason.PLACE_UNKNOWN


@given(facts=any_facts())
def test_every_outlook_has_exactly_one_end_and_agrees_with_decide(facts: Facts) -> None:
    verdict = decide(facts, NOON)
    outlook = follow(facts, NOON, verdict)

    assert sum(end is not None for end in (outlook.leaves_at, outlook.never, outlook.waits_for)) == 1
    if isinstance(verdict, Send):
        assert outlook.leaves_at == NOON
    if isinstance(verdict, Skip):
        assert outlook.never == verdict.reason
    if outlook.leaves_at is not None:
        assert NOON <= outlook.leaves_at < facts.expires_at
    instants = [at for at, _ in outlook.steps]
    assert instants == sorted(instants)


@given(facts=any_facts())
def test_without_rivals_nothing_objects_at_the_instant_it_leaves(facts: Facts) -> None:
    alone: dict[str, Any] = {"rivals": ()}
    facts = replace(facts, **alone)
    outlook = outlook_of(facts)

    if outlook.leaves_at is not None:
        assert isinstance(decide(facts, outlook.leaves_at), Send)
