"""`decide`: every gate alone, the order between them, and what holds for any facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.definitions import Cap, Silence
from dispatcher.facts import Counted, Facts, Flow, Rival, RunFacts
from dispatcher.gates import ASK_AGAIN, GATES, SEND, Defer, Reason, Skip, decide
from dispatcher.openings import open_until
from dispatcher.places import NOWHERE, Place, Places
from dispatcher.quiet_hours import LocalSilence, next_opening

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NIGHT = Silence.model_validate("20:00-09:00")


def in_zones(*zones: str) -> Places:
    return Places(tuple(Place(zone, None, None, "stated zone") for zone in zones))


def night_in(*zones: str) -> tuple[LocalSilence, ...]:
    return tuple(LocalSilence(zone, (NIGHT,), (), "shop") for zone in zones)


LONDON = in_zones("Europe/London")
SYDNEY = {"places": in_zones("Australia/Sydney"), "silences": night_in("Australia/Sydney")}
DAILY = Cap(name="daily", max=1, window=timedelta(hours=24))


def make_facts(**changes: Any) -> Facts:
    """Facts of a marketing e-mail that nothing objects to; `run=` changes the run's."""
    run = RunFacts(state="running", stopped=False, channel="email", topic="offers", class_="marketing")
    facts = Facts(
        run=replace(run, **changes.pop("run", {})),
        contact_id=7,
        expires_at=NOON + timedelta(hours=24),
        address_id=70,
        consent="granted",
        places=LONDON,
    )
    return replace(facts, **changes)


def sent(hours_ago: float, **changes: Any) -> Counted:
    counted = Counted(NOON - timedelta(hours=hours_ago), "email", "offers", to_contact=True, to_address=True)
    return replace(counted, **changes)


def rival(**changes: Any) -> Rival:
    better = Rival("m1", "r1", "vip", "once", "email", "offers", 90, NOON, NOON, NOON + timedelta(hours=6))
    return replace(better, **changes)


def test_nothing_objects_to_a_contact_who_agreed_at_noon() -> None:
    assert decide(make_facts(), NOON) == SEND


SKIPS: list[tuple[Reason, dict[str, Any]]] = [
    (Reason.OPERATOR, {"run": {"state": "cancelled"}}),
    (Reason.EXPIRED, {"expires_at": NOON}),
    (Reason.NO_ADDRESS, {"address_id": None}),
    (Reason.BAD_ADDRESS, {"address_ok": False}),
    (Reason.SUPPRESSED, {"suppressions": (("complaint", "marketing"),)}),
    (Reason.SUPPRESSED, {"suppressions": (("hard_bounce", "all"),)}),
    (Reason.NO_CONSENT, {"consent": "none"}),
    (Reason.NO_CONSENT, {"consent": "pending"}),
    (Reason.NO_CONSENT, {"consent": "withdrawn"}),
    (Reason.NO_CONSENT, {"consent_for_this_address": False}),
    (Reason.NO_CONSENT, {"consent_expires_at": NOON}),
    (Reason.NO_CONSENT, {"run": {"double_opt_in": True}}),
    (Reason.NO_CONSENT, {"consent_basis": "soft_opt_in"}),
    (Reason.NO_CONSENT, {"consent_basis": "soft_opt_in", "run": {"bases": ("implied_purchase",)}}),
    (Reason.PAUSED, {"paused_until": NOON + timedelta(days=1)}),
    (Reason.NOT_IN_SEGMENT, {"in_segment": False}),
    (Reason.FLOW_EXIT, {"flow": Flow(NOON, ended_by="order.placed")}),
    (Reason.SOURCE_STALE, {"flow": Flow(NOON, stale=True), "expires_at": NOON + ASK_AGAIN[Reason.SOURCE_STALE]}),
    (Reason.HOLDOUT, {"held_out": True}),
    (Reason.DUPLICATE_ADDRESS, {"duplicate_of": "12345"}),
    (Reason.LATE, {"too_late": True}),
    (Reason.CAPPED, {"run": {"caps": (DAILY,)}, "counted": (sent(1),)}),
]


@pytest.mark.parametrize(("reason", "changes"), SKIPS)
def test_each_skip_has_its_reason(reason: Reason, changes: dict[str, Any]) -> None:
    assert decide(make_facts(**changes), NOON) == Skip(reason)


def test_a_paused_run_and_a_stopped_engine_put_messages_off() -> None:
    until = NOON + ASK_AGAIN[Reason.OPERATOR]

    assert decide(make_facts(run={"state": "paused"}), NOON) == Defer(until, Reason.OPERATOR)
    assert decide(make_facts(run={"stopped": True}), NOON) == Defer(until, Reason.OPERATOR)


def test_an_unknown_place_waits_and_is_never_taken_for_no_rule() -> None:
    facts = make_facts(places=NOWHERE)

    assert decide(facts, NOON) == Defer(NOON + ASK_AGAIN[Reason.PLACE_UNKNOWN], Reason.PLACE_UNKNOWN)


def test_a_text_to_sydney_at_noon_in_london_waits_for_the_morning_there() -> None:
    facts = make_facts(run={"channel": "sms"}, **SYDNEY)

    assert decide(facts, NOON) == Defer(datetime(2026, 11, 23, 22, tzinfo=UTC), Reason.QUIET_HOURS)


def test_a_deferred_message_is_spread_over_the_opening() -> None:
    facts = make_facts(run={"channel": "sms"}, **SYDNEY, spread=0.5)

    assert decide(facts, NOON) == Defer(datetime(2026, 11, 23, 22, 15, tzinfo=UTC), Reason.QUIET_HOURS)


def test_the_spread_leaves_room_for_the_guard_in_a_short_opening() -> None:
    nearly_always = Silence.model_validate("09:16-09:00")
    facts = make_facts(
        run={"channel": "sms", "guard": timedelta(minutes=15)},
        silences=(LocalSilence("Europe/London", (nearly_always,), (), "shop"),),
        spread=0.999,
    )
    verdict = decide(facts, NOON)

    assert isinstance(verdict, Defer)
    assert decide(facts, verdict.until) == SEND


def test_a_deferral_past_the_expiry_is_a_skip_that_names_the_gate() -> None:
    facts = make_facts(run={"channel": "sms"}, **SYDNEY, expires_at=NOON + timedelta(hours=2))
    verdict = decide(facts, NOON)

    assert verdict == Skip(Reason.EXPIRED)
    assert isinstance(verdict, Skip)
    assert verdict.facts["blocked_by"] == Reason.QUIET_HOURS


def test_all_candidate_places_must_be_awake() -> None:
    both = in_zones("Australia/Sydney", "Europe/London")
    facts = make_facts(run={"channel": "sms"}, places=both, silences=night_in(*both.zones))

    verdict = decide(facts, NOON)

    assert isinstance(verdict, Defer | Skip)
    assert verdict.facts["zones"] == both.zones


def test_transactional_messages_need_no_consent_and_heed_no_cap() -> None:
    facts = make_facts(
        run={"class_": "transactional", "caps": (DAILY,)},
        consent="withdrawn",
        counted=(sent(1),),
        suppressions=(("unsubscribe", "marketing"),),
        paused_until=NOON + timedelta(days=1),
    )

    assert decide(facts, NOON) == SEND


def test_a_hard_bounce_stops_every_class() -> None:
    facts = make_facts(run={"class_": "security"}, suppressions=(("hard_bounce", "all"),))

    assert decide(facts, NOON) == Skip(Reason.SUPPRESSED)


@pytest.mark.parametrize(
    ("changes", "quiet"),
    [
        ({"class_": "transactional", "channel": "sms"}, True),
        ({"class_": "transactional", "channel": "sms", "urgent": True}, False),
        ({"class_": "transactional", "channel": "email"}, False),
        ({"class_": "security", "channel": "sms"}, False),
    ],
)
def test_who_heeds_quiet_hours(changes: dict[str, Any], quiet: bool) -> None:
    facts = make_facts(run=changes, **SYDNEY)

    assert (decide(facts, NOON) != SEND) == quiet


def test_a_message_exactly_one_window_old_no_longer_counts() -> None:
    facts = make_facts(run={"caps": (DAILY,)}, counted=(sent(24),))

    assert decide(facts, NOON) == SEND


def test_a_cap_can_put_off_until_the_slot_frees() -> None:
    facts = make_facts(run={"caps": (DAILY,), "on_cap": "defer"}, counted=(sent(20),))

    assert decide(facts, NOON) == Defer(NOON + timedelta(hours=4), Reason.CAPPED)


def test_a_shared_address_counts_what_others_got_there() -> None:
    facts = make_facts(run={"caps": (DAILY,)}, counted=(sent(1, to_contact=False),))

    assert decide(facts, NOON) == Skip(Reason.CAPPED)


def test_the_last_slot_goes_to_the_more_important_message() -> None:
    facts = make_facts(run={"caps": (DAILY,)}, rivals=(rival(),))
    verdict = decide(facts, NOON)

    assert verdict == Defer(NOON + timedelta(hours=6), Reason.OUTRANKED)
    assert isinstance(verdict, Defer)
    assert verdict.facts["winner"] == "m1"


def test_a_rival_due_after_this_message_expires_does_not_outrank_it() -> None:
    facts = make_facts(run={"caps": (DAILY,)}, rivals=(rival(due_at=NOON + timedelta(hours=24)),))

    assert decide(facts, NOON) == SEND


def test_two_slots_are_enough_for_a_message_and_its_rival() -> None:
    two = Cap(name="two", max=2, window=timedelta(hours=24))

    assert decide(make_facts(run={"caps": (two,)}, rivals=(rival(),)), NOON) == SEND


def test_without_caps_nobody_is_outranked() -> None:
    assert decide(make_facts(rivals=(rival(),)), NOON) == SEND


SAMPLES = [*(changes for _, changes in SKIPS), {"places": NOWHERE}, {"rivals": (rival(),)}]


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """Several objections at once."""
    facts = make_facts()
    for changes in draw(st.lists(st.sampled_from(SAMPLES), max_size=5)):
        rest = {key: value for key, value in changes.items() if key != "run"}
        facts = replace(facts, run=replace(facts.run, **changes.get("run", {})), **rest)
    return facts


@given(facts=any_facts())
def test_the_first_gate_that_objects_gives_the_reason(facts: Facts) -> None:
    objections = [reason for reason, gate in GATES.items() if gate(facts, NOON) is not SEND]
    verdict = decide(facts, NOON)

    if not objections:
        assert verdict == SEND
    elif isinstance(verdict, Skip) and verdict.reason is Reason.EXPIRED and "blocked_by" in verdict.facts:
        assert verdict.facts["blocked_by"] == objections[0]
    else:
        assert isinstance(verdict, Defer | Skip)
        assert verdict.reason == objections[0]


@given(facts=any_facts())
def test_no_deferral_reaches_past_the_expiry_or_into_the_past(facts: Facts) -> None:
    verdict = decide(facts, NOON)

    assert not isinstance(verdict, Defer) or NOON < verdict.until < facts.expires_at


@given(facts=any_facts())
def test_whoever_withdrew_is_never_sent_marketing(facts: Facts) -> None:
    assert decide(replace(facts, consent="withdrawn"), NOON) != SEND


@given(
    minutes=st.integers(0, 14 * 24 * 60),
    spread=st.floats(0, 1, exclude_max=True),
    zone=st.sampled_from(["Asia/Kathmandu", "America/Los_Angeles", "Pacific/Chatham", "Europe/London"]),
)
def test_a_deferred_text_is_welcome_when_it_is_asked_again(minutes: int, spread: float, zone: str) -> None:
    now = NOON + timedelta(minutes=minutes)
    facts = make_facts(
        run={"channel": "sms", "guard": timedelta(minutes=15)},
        places=in_zones(zone),
        silences=night_in(zone),
        expires_at=now + timedelta(days=3),
        spread=spread,
    )
    verdict = decide(facts, now)

    if isinstance(verdict, Defer):
        opening = next_opening(verdict.until, facts.silences, timedelta(minutes=15))
        assert opening is not None
        assert opening.opens_at == verdict.until
        assert decide(facts, verdict.until) == SEND


def test_another_basis_counts_where_the_topic_accepts_it_until_it_expires() -> None:
    facts = make_facts(consent_basis="implied_purchase", consent_expires_at=NOON, run={"bases": ("implied_purchase",)})

    assert decide(facts, NOON - timedelta(microseconds=1)) == SEND
    refused = decide(facts, NOON)
    assert isinstance(refused, Skip)
    assert refused.facts == {
        "topic": "offers", "state": "granted", "because": "no longer in force", "basis": "implied_purchase",
        "expires_at": NOON,
    }  # fmt: skip


def test_another_basis_never_satisfies_a_double_opt_in() -> None:
    facts = make_facts(consent_basis="soft_opt_in", run={"bases": ("soft_opt_in",), "double_opt_in": True})

    assert getattr(decide(facts, NOON), "reason", None) is Reason.NO_CONSENT


# --- how long a provider may keep it


def test_a_message_is_welcome_until_the_next_silence_or_its_expiry_whichever_comes_first() -> None:
    late, early = NOON + timedelta(hours=20), NOON + timedelta(hours=2)

    assert open_until(make_facts(silences=night_in("Europe/London"), expires_at=late), NOON) == NOON.replace(hour=20)
    assert open_until(make_facts(silences=night_in("Europe/London"), expires_at=early), NOON) == early
    assert open_until(make_facts(expires_at=late), NOON) == late
    security = make_facts(run={"class_": "security"}, silences=night_in("Europe/London"), expires_at=late)
    assert open_until(security, NOON) == late


def test_in_the_middle_of_a_silence_the_next_opening_is_not_now() -> None:
    midnight = NOON.replace(hour=23)

    assert open_until(make_facts(silences=night_in("Europe/London")), midnight) > midnight


# --- the person's own quiet hours


def own(*hours: str, zone: str = "Europe/London") -> LocalSilence:
    return LocalSilence(zone, tuple(Silence.model_validate(each) for each in hours), (), "person")


def test_a_persons_own_hours_are_one_more_silence() -> None:
    verdict = decide(make_facts(silences=(*night_in("Europe/London"), own("11:00-15:00"))), NOON)

    assert isinstance(verdict, Defer)
    assert verdict.reason is Reason.QUIET_HOURS
    assert verdict.until == NOON.replace(hour=15)
    assert verdict.facts["in_effect"] == ("person",)


@given(st.lists(st.sampled_from(["11:00-15:00", "22:00-08:00", "06:00-07:00", "00:00-24:00"]), max_size=3),
       st.integers(0, 7 * 24 * 60))  # fmt: skip
def test_own_hours_only_ever_tighten(hours: list[str], minutes: int) -> None:
    now = NOON + timedelta(minutes=minutes)
    expires_at = now + timedelta(days=2)
    without = decide(make_facts(silences=night_in("Europe/London"), expires_at=expires_at), now)
    with_own = decide(make_facts(silences=(*night_in("Europe/London"), own(*hours)), expires_at=expires_at), now)

    assert (without == SEND) >= (with_own == SEND)  # what was put off before is never let through
    if not hours:
        assert with_own == without


def test_hours_of_their_own_that_leave_no_time_say_nothing_of_the_place() -> None:
    """By day the law of the place lets messages through, by night they would: together nothing is left."""
    silences = (*night_in("Europe/London"), own("09:00-20:00"))
    verdict = decide(make_facts(silences=silences), NOON)

    assert isinstance(verdict, Skip)
    assert (verdict.reason, verdict.facts["blocked_by"]) == (Reason.EXPIRED, Reason.QUIET_HOURS)
    assert GATES[Reason.PLACE_UNKNOWN](make_facts(silences=silences), NOON) == SEND
