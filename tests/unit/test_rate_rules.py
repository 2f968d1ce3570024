"""Rates, circuits and warm-up on values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatcher.definitions import EXPIRES_AFTER
from dispatcher.providers.protocol import Accepted, Allowance, NotSent, Receipt, Rejected, RetryAfter, Unknown
from dispatcher.rates.adaptive import LEAST, Pace, after_allowance, after_enough
from dispatcher.rates.buckets import Bucket, rescaled
from dispatcher.rates.circuit import (
    ACCOUNT_WAIT,
    FAILURES,
    FIRST_WAIT,
    LONGEST_WAIT,
    PROBE_WITHIN,
    Circuit,
    admits,
    after,
    probing,
)
from dispatcher.rates.hearing import listen_to
from dispatcher.rates.rules import AccountRate, Rate, Rates, WarmUp, day_of, next_day

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


# --- buckets


@given(
    rate=st.floats(0.05, 5_000),
    burst=st.integers(1, 500),
    asked=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=60),
)
def test_in_no_window_more_is_taken_than_rate_times_time_and_burst(
    rate: float, burst: int, asked: list[tuple[float, int, int]]
) -> None:
    arrival, now, took = None, NOON, []
    for pause, messages, units in asked:
        now += timedelta(seconds=pause)
        bucket = Bucket(rate, burst, arrival, now)
        for _ in range(messages):
            if bucket.has(units):
                bucket.take(units)
                took.append((now, units))
        arrival = bucket.arrival
    for first, (begin, _) in enumerate(took):
        total = 0
        for at, units in took[first:]:
            total += units
            # a message that is larger than the burst goes when nothing is owed, and is owed itself
            allowed = (at - begin).total_seconds() * rate + max(burst, units)
            assert total <= allowed + max(0, units - 1) + 1e-3


@given(rate=st.floats(0.05, 5_000), burst=st.integers(1, 500), units=st.integers(1, 600))
def test_when_a_bucket_says_that_it_opens_it_does(rate: float, burst: int, units: int) -> None:
    bucket = Bucket(rate, burst, NOON + timedelta(seconds=burst / rate), NOON)
    at = bucket.opens_at(units)
    assert Bucket(rate, burst, bucket.arrival, at).has(units)
    if at > NOON + timedelta(milliseconds=2):
        assert not Bucket(rate, burst, bucket.arrival, at - timedelta(milliseconds=1)).has(units) or rate > 500


def test_an_sms_that_is_larger_than_the_burst_goes_when_nothing_is_owed() -> None:
    bucket = Bucket(1, 1, None, NOON)
    assert bucket.has(3)
    bucket.take(3)
    assert not bucket.has(1)
    assert bucket.opens_at(1) == NOON + 3 * SECOND


def test_at_a_lower_rate_as_many_units_are_owed_as_before() -> None:
    bucket = Bucket(100, 100, None, NOON)
    bucket.take(100)
    lower = Bucket(50, 100, rescaled(bucket.arrival, NOON, 100, 50), NOON)
    assert not lower.has(1)


# --- the rate in force


def test_a_too_much_halves_the_rate_once_and_it_climbs_back_to_the_whole_and_no_further() -> None:
    pace = after_enough(Pace(100.0), 80, NOON)
    assert pace.at(NOON) == 50
    assert after_enough(pace, 80, NOON + SECOND) == pace  # others of us heard of the same
    assert pace.at(NOON + 10 * SECOND) == pytest.approx(60)
    assert pace.at(NOON + 50 * SECOND) == 100
    assert pace.at(NOON + 500 * SECOND) == 100


def test_without_a_rate_of_its_own_what_was_reached_is_halved_for_a_while() -> None:
    pace = after_enough(Pace(), 40, NOON)
    assert pace.at(NOON) == 20
    assert pace.at(NOON + 60 * SECOND) is None


def test_what_a_provider_still_takes_is_spread_over_its_window() -> None:
    pace = after_allowance(Pace(100.0), 300, 10 * SECOND, 90, NOON)
    assert pace.at(NOON) == 30
    assert after_allowance(Pace(100.0), 3_000, 10 * SECOND, 90, NOON) == Pace(100.0)


@given(
    configured=st.none() | st.floats(0.1, 1_000),
    told=st.lists(st.tuples(st.floats(0, 90), st.booleans(), st.floats(0, 5_000), st.floats(0.5, 100))),
)
def test_whatever_a_provider_says_the_rate_is_above_nothing_and_never_above_what_is_configured(
    configured: float | None, told: list[tuple[float, bool, float, float]]
) -> None:
    pace, now = Pace(configured), NOON
    for pause, enough, units, window in told:
        now += timedelta(seconds=pause)
        before = pace.at(now)
        pace = (
            after_enough(pace, 50, now) if enough else after_allowance(pace, units, timedelta(seconds=window), 50, now)
        )
        rate = pace.at(now)
        assert rate is None or rate > 0
        assert before is None or (rate is not None and rate <= before)
        if configured is not None:
            assert rate is not None
            assert configured * LEAST * 0.999 <= rate <= configured


# --- circuits


def test_a_few_failures_in_a_row_open_it_and_a_success_forgets_them() -> None:
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        circuit = after(circuit, "failed", "no connection", NOON, probe=False)
    assert admits(circuit, NOON) == "all"
    assert after(circuit, "alive", "", NOON, probe=False) == Circuit()
    circuit = after(circuit, "failed", "no connection", NOON, probe=False)
    assert admits(circuit, NOON) == NOON + FIRST_WAIT


def test_a_refusal_of_our_account_opens_it_at_once() -> None:
    assert admits(after(Circuit(), "refused", "401", NOON, probe=False), NOON) == NOON + ACCOUNT_WAIT


def test_one_probe_at_a_time_and_each_failure_waits_twice_as_long() -> None:
    circuit, now, waits = after(Circuit(), "refused", "401", NOON, probe=False), NOON, []
    for _ in range(8):
        assert circuit.open_until is not None
        now = circuit.open_until
        assert admits(circuit, now) == "probe"
        circuit = probing(circuit, now)
        assert isinstance(admits(circuit, now + SECOND), datetime)
        circuit = after(circuit, "failed", "no connection", now, probe=True)
        assert circuit.open_until is not None
        waits.append(circuit.open_until - now)
    assert waits[:4] == [2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT, 16 * FIRST_WAIT]
    assert waits[-1] == LONGEST_WAIT
    assert after(probing(circuit, now), "alive", "", now, probe=True) == Circuit()


def test_a_probe_that_never_comes_back_is_followed_by_another() -> None:
    circuit = probing(Circuit("open", 3, 1, NOON), NOON)
    assert admits(circuit, NOON + PROBE_WITHIN) == "probe"


def test_a_code_that_comes_while_it_is_open_lives_to_see_a_probe() -> None:
    assert EXPIRES_AFTER["security"] > LONGEST_WAIT + PROBE_WITHIN


@pytest.mark.parametrize("circuit", [Circuit("open", 9, 9, NOON), probing(Circuit("open", 3, 1, NOON), NOON)])
def test_a_clock_that_was_set_back_leaves_no_circuit_open_until_it_has_caught_up(circuit: Circuit) -> None:
    assert admits(circuit, NOON - timedelta(hours=3)) == "probe"
    assert admits(replace(circuit, open_until=NOON + LONGEST_WAIT), NOON) != "all"


def test_what_began_before_it_opened_moves_it_no_more() -> None:
    opened = after(Circuit(), "refused", "401", NOON, probe=False)
    assert after(opened, "alive", "", NOON, probe=False) == opened
    assert after(opened, "failed", "late", NOON, probe=False) == opened


def test_a_probe_that_says_nothing_lets_the_next_one_go() -> None:
    circuit = after(probing(Circuit("open", 3, 1, NOON), NOON), "none", "", NOON, probe=True)
    assert admits(circuit, NOON) == "probe"


def test_a_probe_that_is_told_to_wait_is_followed_by_the_next_when_the_wait_is_over() -> None:
    circuit = after(probing(Circuit("open", 3, 1, NOON), NOON), "none", "", NOON, probe=True, rest=20 * SECOND)
    assert admits(circuit, NOON) == NOON + 20 * SECOND
    assert admits(circuit, NOON + 20 * SECOND) == "probe"


def test_who_wants_to_be_left_alone_for_long_is_asked_again_in_the_lifetime_of_a_code() -> None:
    for wait, until in ((120 * SECOND, NOON + 120 * SECOND), (timedelta(hours=1), NOON + LONGEST_WAIT)):
        circuit = after(Circuit(), "enough", "429", NOON, probe=False, rest=wait)
        assert admits(circuit, NOON) == until
        assert (circuit.failures, circuit.openings, circuit.because) == (0, 0, "429")  # it is there, and it spoke


@pytest.mark.parametrize(
    ("receipts", "sign"),
    [
        ([Accepted("1", 1.0), Unknown("reset", 1.0)], "alive"),
        ([Rejected("no such address", scope="address")], "alive"),
        ([NotSent("mailbox full", answered=True)], "alive"),
        ([Unknown("reset", 1.0)], "failed"),
        ([NotSent("no connection", unreachable=True)], "failed"),
        ([NotSent("past the send deadline")], "none"),
        ([RetryAfter("enough", SECOND), NotSent("enough")], "none"),
        ([NotSent("401"), Rejected("401", scope="account")], "refused"),
        ([RetryAfter("enough", 60 * SECOND)], "none"),
        ([Accepted("1", 1.0), RetryAfter("enough", 61 * SECOND)], "enough"),
        ([Accepted("1", 1.0, allowance=Allowance(0, 600 * SECOND))], "enough"),
        ([RetryAfter("enough", 600 * SECOND), Rejected("401", scope="account")], "refused"),
    ],
)
def test_what_receipts_say_of_the_provider(receipts: list[Receipt], sign: str) -> None:
    assert listen_to(receipts).sign == sign


# --- what the shop writes


@pytest.mark.parametrize(
    ("written", "per_second"), [("20/s", 20), ("600/min", 10), ("7200/h", 2), ("86400 / d", 1), ({"per_second": 3}, 3)]
)
def test_a_rate_may_be_written_by_the_second_minute_hour_and_day(written: object, per_second: float) -> None:
    assert Rate.model_validate(written).per_second == per_second


@pytest.mark.parametrize("written", ["20", "20/week", "fast", 20, 2.5])
def test_what_is_no_rate_is_refused_with_one_that_is(written: object) -> None:
    with pytest.raises(ValidationError, match="is not a rate; write it like 20/s"):
        Rate.model_validate(written)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError):
        Rate.model_validate({"per_second": 0})


def test_an_account_keeps_a_fifth_for_transactional_unless_told() -> None:
    assert AccountRate.model_validate("10/s").reserve == 0.2
    assert AccountRate.model_validate({"per_second": 10, "reserve": "35%"}).reserve == 0.35


def test_what_is_written_reads_back_the_same() -> None:
    rates = Rates.model_validate(
        {
            "email.marketing": "5/s",
            "accounts": {"smtp": "10/s"},
            "domains": {"GMail.com": "2/s", "bücher.example": "1/s"},
        }
    )
    assert Rates.model_validate(rates.model_dump(mode="json", by_alias=True)) == rates
    assert set(rates.domains) == {"gmail.com", "xn--bcher-kva.example"}
    assert rates.lanes == {"email.marketing": Rate(per_second=5)}


def test_a_warm_up_grows_until_it_is_warm() -> None:
    warm_up = WarmUp(start=date(2026, 6, 1), first=100, growth=2, until=500)
    days = [warm_up.allowance(date(2026, 5, 31) + timedelta(days=n)) for n in range(6)]
    assert days == [0, 100, 200, 400, None, None]
    assert warm_up.ends_on() == date(2026, 6, 4)


def test_a_warm_up_may_be_a_list_of_days() -> None:
    warm_up = WarmUp(start=date(2026, 6, 1), days=(50, 80))
    assert [warm_up.allowance(date(2026, 6, day)) for day in (1, 2, 3)] == [50, 80, None]


@pytest.mark.parametrize("more", [{}, {"days": [1], "first": 1, "until": 2}, {"first": 5}, {"first": 5, "until": 4}])
def test_a_warm_up_has_one_schedule(more: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WarmUp.model_validate({"start": "2026-06-01", **more})


def test_a_senders_day_is_that_of_its_zone() -> None:
    late = datetime(2026, 6, 1, 23, 30, tzinfo=UTC)
    assert day_of(late, "Europe/London") == date(2026, 6, 2)
    assert next_day(late, "Europe/London") == datetime(2026, 6, 2, 23, tzinfo=UTC)
