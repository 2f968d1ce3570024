"""What a provider says is believed, written down and heeded."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sent_off import PEOPLE, Says, batches, faults, outbox, planned, send_all, statuses
from sqlalchemy import text

from dispatcher import release
from dispatcher.providers.protocol import Moment, NotSent, Receipt, Rejected, RetryAfter
from dispatcher.providers.sandbox import Sandbox
from dispatcher.sending import Hands, send_batch


def test_what_a_provider_says_is_written_down(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    faults(tmp_path, reject=["p01"], not_sent=["p02"], unknown=["p03"])
    send_all(hands)

    with hands.database.connect() as connection:
        rows = connection.execute(
            text("""SELECT c.external_id, m.status, m.reason, m.authorised_at IS NULL AS free,
                           m.due_at > m.first_due_at AS later
                    FROM message m JOIN contact c ON c.id = m.contact_id WHERE external_id IN ('p01', 'p02', 'p03')
                    ORDER BY 1""")
        ).all()
        assert connection.scalar(text("SELECT outcome FROM attempt")) == "not_sent"
        assert connection.scalar(text("SELECT reason FROM suppression")) == "invalid"
    assert [tuple(row) for row in rows] == [
        ("p01", "failed", "REJECTED", False, False),
        ("p02", "pending", None, True, True),
        ("p03", "unknown", None, False, False),
    ]


def test_what_a_provider_said_is_kept_with_the_message(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    faults(tmp_path, reject=["p01"], unknown=["p03"])
    send_all(hands)

    with hands.database.connect() as connection:
        said = connection.execute(
            text("""SELECT c.external_id, m.facts->>'because' FROM message m JOIN contact c ON c.id = m.contact_id
                    WHERE m.facts IS NOT NULL ORDER BY 1""")
        ).all()
    assert [tuple(row) for row in said] == [
        ("p01", "the sandbox was told to reject it"), ("p03", "the sandbox was told not to answer"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("receipt", "column", "table", "least", "most"),
    [
        (RetryAfter("enough", timedelta(seconds=17)), "paused_until", "lane", 10, 17),
        (Rejected("wrong key", 1.0, scope="account"), "open_until", "account", 50, 60),
    ],
)
def test_a_provider_that_takes_nothing_from_us_for_now_is_left_alone_and_nobody_fails(
    hands: Hands, tmp_path: Path, receipt: Receipt, column: str, table: str, least: int, most: int
) -> None:
    planned(hands.database)
    says = Says(tmp_path, receipt)
    send_all(replace(hands, providers={"email": says}))

    assert statuses(hands.database) == {"pending": PEOPLE}
    with hands.database.begin() as connection:
        [rests] = connection.scalars(
            text(f"SELECT {column} - clock_timestamp() FROM {table} WHERE {column} IS NOT NULL")
        )
        assert timedelta(seconds=least) < rests <= timedelta(seconds=most)
        assert connection.scalar(text("SELECT count(*) FROM attempt WHERE outcome = 'not_sent'")) == PEOPLE
        assert connection.scalar(text("SELECT count(*) FROM message WHERE authorised_at IS NOT NULL")) == 0
        connection.execute(text("UPDATE message SET due_at = clock_timestamp()"))
    release.release(hands.database)
    send_all(hands)  # not now, whoever would take it

    assert statuses(hands.database) == {"pending": PEOPLE}
    with hands.database.begin() as connection:
        assert set(connection.scalars(text("SELECT deferred_reason FROM message"))) == {"RATE"}
        connection.execute(text(f"UPDATE {table} SET {column} = clock_timestamp()"))
        connection.execute(text("UPDATE message SET due_at = clock_timestamp()"))
    release.release(hands.database)
    send_all(hands)
    assert statuses(hands.database) == {"sent": PEOPLE}


def test_a_provider_is_told_who_writes_for_what_and_how_long_it_is_welcome(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    says = Says(tmp_path, NotSent("later"))
    send_all(replace(hands, providers={"email": says}))

    with hands.database.connect() as connection:
        expiries = dict(connection.execute(text("SELECT id, expires_at FROM message")).all())
    assert len(says.seen) == PEOPLE
    for envelope in says.seen:
        assert envelope.from_email == "hello@small.example"
        assert (envelope.from_name, envelope.campaign, envelope.marketing) == ("Small Shop", "hello", True)
        assert envelope.closes_at == expiries[envelope.message_id]


def test_a_provider_that_breaks_leaves_doubt_and_no_second_mail(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)

    class Broken(Sandbox):
        def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
            super().hand_over(slice_, moment, deadline)
            raise RuntimeError("the reply could not be read")

    broken = replace(hands, providers={"email": Broken(tmp_path / "sandbox", "email")})
    with hands.database.connect() as connection:
        [batch_id] = batches(connection)
    send_batch(broken, batch_id)
    release.release(hands.database)
    send_all(hands)

    assert statuses(hands.database) == {"unknown": PEOPLE}
    assert len(outbox(tmp_path)) == PEOPLE
