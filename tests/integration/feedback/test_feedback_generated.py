"""Generated stories: whatever the order, the repetitions and the pages, a message and its address end the same."""

from __future__ import annotations

from itertools import count
from uuid import UUID

import pytest
from feedback_rows import add_left, report, state_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_rows import add_contact, add_message
from sqlalchemy import Engine, text

from dispatcher.feedback.recording import record
from dispatcher.feedback.report import STATUS, Kind, standing_by
from dispatcher.keys import KeyRing
from dispatcher.suppression import SCOPES

pytestmark = pytest.mark.thorough

EVENTS = st.sampled_from(
    [(Kind.ACCEPTED, None), (Kind.DELAYED, None), (Kind.DELIVERED, None), (Kind.DROPPED, None),
     (Kind.DROPPED, "invalid"), (Kind.BOUNCED, None), (Kind.BOUNCED, "hard_bounce"), (Kind.OPENED, None),
     (Kind.CLICKED, None), (Kind.COMPLAINED, "complaint"), (Kind.UNSUBSCRIBED, "unsubscribe")]
)  # fmt: skip
NUMBERS = count()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    story=st.lists(EVENTS, min_size=1, max_size=6, unique=True),
    start=st.sampled_from(["sending", "unknown", "sent", "delivered", "failed"]),
    chance=st.randoms(use_true_random=False),
)
def test_a_story_ends_the_same_however_it_is_told(
    database: Engine, key_ring: KeyRing, story: list[tuple[Kind, str | None]], start: str, chance: object
) -> None:
    shuffle, choice = chance.shuffle, chance.randint  # type: ignore[attr-defined]
    number = next(NUMBERS)
    message_id, pending, address_id = _person(database, key_ring, number, start)
    told = [
        report(message_id, kind, identity=f"{number} {kind} {suppress}", address=None, suppress=suppress,
               hard=suppress is not None if kind is Kind.BOUNCED else None)
        for kind, suppress in story
    ]  # fmt: skip
    told += [one for one in told if choice(0, 1)]
    shuffle(told)
    while told:
        size = choice(1, 4)
        record(database, key_ring, told[:size])
        told = told[size:]

    reached = standing_by([kind for kind, _ in story])
    begun = {"delivered": standing_by([Kind.DELIVERED]), "sent": standing_by([Kind.ACCEPTED])}.get(start)
    assert state_of(database, message_id) == STATUS[max(reached, begun) if begun is not None else reached]
    reasons = {suppress for _, suppress in story if suppress}
    with database.connect() as connection:
        found = connection.scalars(
            text("SELECT reason FROM suppression WHERE address_id = :address"), {"address": address_id}
        ).all()
    assert set(found) == reasons
    scopes = {SCOPES[reason] for reason in reasons}  # type: ignore[index]
    for class_, one in pending.items():
        stopped = bool(scopes) if class_ == "marketing" else "all" in scopes
        assert state_of(database, one)[0] == ("skipped" if stopped else "pending")


def _person(database: Engine, key_ring: KeyRing, number: int, start: str) -> tuple[UUID, dict[str, UUID], int]:
    email = f"p{number}@people.example"
    with database.begin() as connection:
        contact_id = add_contact(connection, key_ring, f"p{number}", email=email)
        message_id = add_left(connection, key_ring, contact_id=contact_id, email=email, status=start,
                              reason="REJECTED" if start == "failed" else None)  # fmt: skip
        address_id = connection.scalar(text("SELECT address_id FROM message WHERE id = :id"), {"id": message_id})
        pending = {
            class_: add_message(connection, contact_id, address_id, class_=class_)
            for class_ in ("marketing", "transactional")
        }
    return message_id, pending, int(address_id or 0)
