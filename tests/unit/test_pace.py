"""A lane's rate over the hours: who has a turn when, who has none in time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from test_gates import NOON, make_facts, night_in

from dispatcher.rates.rules import WarmUp
from dispatcher.simulate.pace import Days, Lane, Ready, pass_through

HOUR = timedelta(hours=1)


def crowd(number: int, at: datetime = NOON, **changes: Any) -> list[Ready]:
    return [Ready(at, make_facts(contact_id=contact_id, **changes)) for contact_id in range(number)]


def test_without_a_rate_everybody_leaves_when_they_may() -> None:
    passage = pass_through(Lane("email.marketing"), crowd(3), NOON)

    assert [at for at, _ in passage.left] == [NOON] * 3


def test_a_burst_leaves_at_once_and_the_rest_at_the_rate() -> None:
    passage = pass_through(Lane("email.marketing", rate_per_second=0.5, burst=2), crowd(4), NOON)

    assert [(at - NOON).total_seconds() for at, _ in passage.left] == [0, 0, 2, 4]


def test_a_text_of_three_parts_takes_three_of_the_rate() -> None:
    lane = Lane("sms.marketing", rate_per_second=1, burst=4, units_each=3, others=((NOON, 2),))
    passage = pass_through(lane, crowd(3), NOON)

    assert [(at - NOON).total_seconds() for at, _ in passage.left] == [1, 4, 7]


def test_what_others_have_due_goes_first() -> None:
    lane = Lane("email.marketing", rate_per_second=1, others=((NOON - HOUR, 10), (NOON + HOUR, 500)))
    passage = pass_through(lane, crowd(2), NOON)

    assert [(at - NOON).total_seconds() for at, _ in passage.left] == [10, 11]
    assert passage.others == 10, "what is due after our last one does not count"


def test_a_sender_that_is_warmed_up_sends_so_many_a_day_and_the_others_wait_for_the_next() -> None:
    days = Days(WarmUp(start=NOON.date(), days=(5, 3)), "UTC", {NOON.date(): 2})
    ready = crowd(8, expires_at=NOON + 72 * HOUR)
    passage = pass_through(Lane("email.marketing", days=days), ready, NOON)

    midnight = (NOON + 24 * HOUR).replace(hour=0)
    assert [at for at, _ in passage.left] == [NOON] * 3 + [midnight] * 3 + [midnight + 24 * HOUR] * 2


def test_a_paused_lane_lets_nobody_go_before_it_goes_on() -> None:
    passage = pass_through(Lane("email.marketing", paused_until=NOON + HOUR), crowd(2), NOON)

    assert [at for at, _ in passage.left] == [NOON + HOUR] * 2


def test_whose_turn_comes_after_the_expiry_is_counted_as_lost() -> None:
    lane = Lane("email.marketing", rate_per_second=1)
    passage = pass_through(lane, crowd(5, expires_at=NOON + timedelta(seconds=3)), NOON)

    assert (len(passage.left), len(passage.expire_waiting)) == (3, 2)


def test_whose_turn_comes_in_quiet_hours_leaves_at_the_next_opening() -> None:
    evening = NOON + 7 * HOUR + timedelta(minutes=50)  # 19:50 in London, and silence from 20:00 with its guard
    texts = crowd(4, evening, run={"channel": "sms"}, silences=night_in("Europe/London"),
                  expires_at=evening + timedelta(days=1))  # fmt: skip
    passage = pass_through(Lane("sms.marketing", rate_per_second=1 / 120), texts, evening)

    morning = [at for at, _ in passage.left if at > evening + HOUR]
    assert len(passage.left) == 4
    assert passage.put_off_waiting
    assert len(passage.put_off_waiting) == len(morning)
    assert min(morning) == NOON + 21 * HOUR


def test_whoever_would_wait_for_a_morning_after_the_expiry_is_lost() -> None:
    evening = NOON + 7 * HOUR + timedelta(minutes=50)
    texts = crowd(4, evening, run={"channel": "sms"}, silences=night_in("Europe/London"), expires_at=evening + HOUR)
    passage = pass_through(Lane("sms.marketing", rate_per_second=1 / 120), texts, evening)

    assert not passage.put_off_waiting, "nobody is counted twice"
    assert len(passage.left) + len(passage.expire_waiting) == 4
    assert passage.expire_waiting


@given(
    due=st.lists(st.integers(0, 300), max_size=40),
    rate=st.floats(0.05, 20),
    burst=st.integers(1, 5),
    others=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 30)), max_size=4),
)
def test_nobody_is_lost_count_of_and_the_rate_holds_in_every_window(
    due: list[int], rate: float, burst: int, others: list[tuple[int, int]]
) -> None:
    ready = [
        Ready(NOON + timedelta(seconds=s), make_facts(contact_id=n, expires_at=NOON + timedelta(minutes=10)))
        for n, s in enumerate(due)
    ]
    waiting = tuple((NOON + timedelta(seconds=s), number) for s, number in others)
    passage = pass_through(Lane("email.marketing", rate, burst, others=waiting), ready, NOON)

    assert len(passage.left) + len(passage.expire_waiting) == len(due)
    left = sorted(at for at, _ in passage.left)
    for first, begin in enumerate(left):
        for last in range(first, len(left)):
            assert last - first + 1 <= (left[last] - begin).total_seconds() * rate + burst + 1e-3
