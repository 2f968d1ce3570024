"""From ticket to receipt: what leaves, what does not, and what is left when somebody dies in between."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from people import add_person, say
from pydantic import ValidationError
from small_workspace import FILES, write_workspace
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from dispatcher import release, rescue, runs
from dispatcher.apply import apply
from dispatcher.keys import KeyRing
from dispatcher.plan import plan_page
from dispatcher.providers.protocol import Envelope, Moment, NotSent, Receipt, Rejected, RetryAfter
from dispatcher.providers.sandbox import Sandbox
from dispatcher.registration import Registration, register
from dispatcher.rendering import Sender
from dispatcher.sending import Hands, send_batch
from dispatcher.workspace import read_workspace

PEOPLE = 30


@pytest.fixture
def shop(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Engine:
    """Thirty people who agreed, and a second campaign for the same audience."""
    more = {"campaigns/again.yaml": FILES["campaigns/hello.yaml"].replace("hello", "again")}
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", more)), by="test")
        for number in range(PEOPLE):
            add_person(connection, key_ring, f"p{number:02}")
    return database


@pytest.fixture
def hands(shop: Engine, key_ring: KeyRing, tmp_path: Path) -> Hands:
    registration = worker(shop, tmp_path)
    return Hands(
        shop,
        Sender(key_ring, "https://shop.example"),
        {"email": Sandbox(tmp_path / "sandbox", "email"), "sms": Sandbox(tmp_path / "sandbox", "sms")},
        registration.worker_id,
        threading.Event(),
    )


def worker(database: Engine, home: Path) -> Registration:
    return register(database, home, kind="marketing", queues=["email.marketing"], slots=2)


def planned(database: Engine, name: str = "hello") -> UUID:
    with database.begin() as connection:
        run_id = runs.start(connection, name, started_by="test", again=True)
    while plan_page(database, run_id):
        pass
    return run_id


def batches(connection: Connection) -> list[int]:
    return list(connection.scalars(text("SELECT id FROM batch WHERE state = 'ready' ORDER BY id")))


def send_all(hands: Hands) -> int:
    with hands.database.connect() as connection:
        waiting = batches(connection)
    return sum(send_batch(hands, batch_id) for batch_id in waiting)


def outbox(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "sandbox" / "outbox.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def statuses(database: Engine) -> dict[str, int]:
    with database.connect() as connection:
        rows = connection.execute(text("SELECT status, count(*) FROM message GROUP BY 1"))
        return dict(tuple(row) for row in rows)


def faults(tmp_path: Path, **what: Any) -> None:
    (tmp_path / "sandbox" / "faults.json").write_text(json.dumps(what))


def test_everybody_who_may_gets_one_mail_of_their_own(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)

    assert send_all(hands) == PEOPLE
    mails = outbox(tmp_path)
    assert len({mail["contact"] for mail in mails}) == len(mails) == PEOPLE
    assert all(mail["to"] == f"{mail['contact']}@people.example" for mail in mails)
    assert all(f"First{mail['contact']}" in mail["html"] for mail in mails)
    assert statuses(hands.database) == {"sent": PEOPLE}


@pytest.mark.parametrize("store", ["suppression", "consent"])
def test_nothing_leaves_while_what_forbids_it_cannot_be_read(hands: Hands, tmp_path: Path, store: str) -> None:
    """ASVS 5.0 16.5.3: it fails closed."""
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text(f"ALTER TABLE {store} RENAME TO away"))
    with pytest.raises(ProgrammingError):
        send_all(hands)

    assert outbox(tmp_path) == []
    assert statuses(hands.database) == {"pending": PEOPLE}


def test_every_marketing_mail_carries_its_own_way_out(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    send_all(hands)

    links = set()
    for mail in outbox(tmp_path):
        headers = dict(mail["headers"])
        link = headers["List-Unsubscribe"].split(">")[0].lstrip("<")
        assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert link.startswith("https://shop.example/u/")
        assert link in mail["html"]
        assert link in mail["text"]
        links.add(link)
    assert len(links) == PEOPLE


def test_a_doubled_ticket_finds_nothing(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.connect() as connection:
        [batch_id] = batches(connection)
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(send_batch(hands, batch_id))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(counts) == [0, 0, 0, PEOPLE]
    assert len(outbox(tmp_path)) == PEOPLE


def test_whoever_withdraws_after_the_plan_gets_nothing(hands: Hands, key_ring: KeyRing, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        contact_id = connection.scalar(text("SELECT id FROM contact WHERE external_id = 'p07'"))
        say(connection, key_ring, contact_id, [("email", "offers", "withdrawn")])
    send_all(hands)

    assert "p07" not in {mail["contact"] for mail in outbox(tmp_path)}
    assert statuses(hands.database) == {"sent": PEOPLE - 1, "skipped": 1}


def test_a_cap_holds_between_two_campaigns_that_are_sent_at_once(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database, "hello")
    planned(hands.database, "again")
    with hands.database.connect() as connection:
        waiting = batches(connection)
    threads = [threading.Thread(target=send_batch, args=(hands, batch_id)) for batch_id in waiting]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    send_all(hands)

    assert len(outbox(tmp_path)) == PEOPLE  # the shop's cap: one a day
    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT max(n) FROM (SELECT count(*) AS n FROM message WHERE status = 'sent' "
                                      "GROUP BY contact_id) AS x")) == 1  # fmt: skip


def test_a_message_whose_contact_changed_under_way_is_rendered_anew(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)

    class Meddler(Sandbox):
        """Changes a contact between the first slice's rendering and its authorisation."""

    provider = Meddler(tmp_path / "sandbox", "email")
    provider.slice_size = PEOPLE // 2
    original = provider.hand_over

    def hand_over(slice_: list[Envelope], moment: Moment, deadline: float) -> list[Receipt]:
        with hands.database.begin() as connection:
            connection.execute(text("UPDATE contact SET version = version + 1 WHERE external_id = 'p29'"))
        return original(slice_, moment, deadline)

    provider.hand_over = hand_over  # type: ignore[method-assign]
    meddling = replace(hands, providers={**hands.providers, "email": provider})
    with hands.database.connect() as connection:
        [batch_id] = batches(connection)
        rows_before = len(outbox(tmp_path))
    send_batch(meddling, batch_id)
    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT state FROM batch")) == "done"
    release.release(hands.database)
    send_all(hands)

    assert rows_before == 0
    assert statuses(hands.database) == {"sent": PEOPLE}
    assert len(outbox(tmp_path)) == PEOPLE


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


class Says(Sandbox):
    """Gives everybody the same answer, and takes nothing."""

    def __init__(self, tmp_path: Path, receipt: Receipt) -> None:
        super().__init__(tmp_path / "sandbox", "email")
        self.receipt = receipt
        self.seen: list[Envelope] = []

    def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
        self.seen += slice_
        return [self.receipt for _ in slice_]


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


def test_people_of_one_language_are_handed_over_together(hands: Hands, tmp_path: Path) -> None:
    german = FILES["templates/email/christmas/body.html"].replace("Hello", "Hallo").replace('"en"', '"de"')
    template = {"templates/email/christmas/body.de.html": german}
    with hands.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "german", template)), by="test")
        connection.execute(text("UPDATE contact SET locale = 'de-AT' WHERE id % 2 = 0"))
    planned(hands.database)
    says = Says(tmp_path, NotSent("later"))
    send_all(replace(hands, providers={"email": says}))

    languages = [envelope.content.locale for envelope in says.seen]
    assert languages == sorted(languages)
    assert set(languages) == {"de", "en"}


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


def test_past_its_deadline_a_message_is_not_sent_and_goes_back(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)

    class Late(Sandbox):
        def hand_over(self, slice_: Any, moment: Moment, deadline: float) -> list[Receipt]:
            receipts = super().hand_over(slice_, moment, deadline=moment.boot)
            assert all(isinstance(receipt, NotSent) for receipt in receipts)
            return receipts

    late = replace(hands, providers={"email": Late(tmp_path / "sandbox", "email")})
    with hands.database.connect() as connection:
        [batch_id] = batches(connection)
    send_batch(late, batch_id)

    assert statuses(hands.database) == {"pending": PEOPLE}
    assert outbox(tmp_path) == []


@pytest.mark.parametrize("recheck", [True, False])
def test_whoever_left_the_segment_meanwhile_is_skipped_if_the_campaign_asks(
    hands: Hands, tmp_path: Path, recheck: bool
) -> None:
    asking = {"campaigns/hello.yaml": FILES["campaigns/hello.yaml"] + f"recheck_segment: {str(recheck).lower()}\n"}
    with hands.database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "asking", asking)), by="test")
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE contact SET country = 'DE' WHERE external_id = 'p03'"))
    send_all(hands)

    with hands.database.connect() as connection:
        became = connection.execute(
            text("""SELECT m.status, m.reason FROM message m JOIN contact c ON c.id = m.contact_id
                    WHERE c.external_id = 'p03'""")
        ).one()
    assert tuple(became) == (("skipped", "NOT_IN_SEGMENT") if recheck else ("sent", None))


def test_a_stopped_engine_authorises_nothing_and_goes_on_where_it_was(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        runs.stop_all(connection, by="test")
    assert send_all(hands) == 0
    assert release.release(hands.database) == []
    with hands.database.begin() as connection:
        runs.go_on(connection, by="test")
    release.release(hands.database)

    assert send_all(hands) == PEOPLE


def test_a_paused_run_hands_out_no_tickets(hands: Hands) -> None:
    run_id = planned(hands.database)
    with hands.database.begin() as connection:
        runs.pause(connection, run_id, by="test")

    assert release.release(hands.database) == []
    assert send_all(hands) == 0


def test_a_lost_ticket_is_written_again_when_it_is_overdue(hands: Hands) -> None:
    planned(hands.database)

    assert len(release.release(hands.database)) == 1
    assert release.release(hands.database) == []
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE batch SET ticketed_at = ticketed_at - interval '11 s'"))
    assert len(release.release(hands.database)) == 1


def test_a_message_that_cannot_be_rendered_fails_alone(hands: Hands, tmp_path: Path) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE contact SET sealed = NULL WHERE external_id = 'p05'"))
    send_all(hands)

    assert statuses(hands.database) == {"sent": PEOPLE - 1, "failed": 1}
    assert len(outbox(tmp_path)) == PEOPLE - 1


def test_what_a_dead_worker_held_goes_on_and_what_may_have_left_is_in_doubt(
    hands: Hands, key_ring: KeyRing, tmp_path: Path
) -> None:
    import os

    planned(hands.database)
    dying = worker(hands.database, tmp_path)
    with hands.database.begin() as connection:
        connection.execute(
            text("UPDATE batch SET state = 'claimed', claim_token = 1, worker_id = :worker"),
            {"worker": dying.worker_id},
        )
        connection.execute(
            text("""UPDATE message SET status = 'sending', worker_id = :worker, authorised_at = clock_timestamp()
                    WHERE id IN (SELECT id FROM message ORDER BY contact_id LIMIT 10)"""),
            {"worker": dying.worker_id},
        )
    assert rescue.rescue(hands.database) == 0  # alive: its lock is held
    os.close(dying.descriptor)  # what the kernel does when a process dies

    assert rescue.rescue(hands.database) == 1
    assert statuses(hands.database) == {"unknown": 10, "pending": PEOPLE - 10}
    release.release(hands.database)
    send_all(hands)
    assert statuses(hands.database) == {"unknown": 10, "sent": PEOPLE - 10}


def test_a_run_is_finished_when_nothing_is_left_to_do(hands: Hands) -> None:
    planned(hands.database)
    send_all(hands)
    release.release(hands.database)

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT state FROM run")) == "finished"


def test_nothing_is_authorised_to_leave_after_its_expiry(hands: Hands) -> None:
    planned(hands.database)
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE message SET expires_at = clock_timestamp() + interval '10 s'"))
    send_all(hands)

    with hands.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message WHERE send_deadline <= expires_at")) == PEOPLE


def test_a_run_that_cannot_be_sent_holds_up_no_other(hands: Hands) -> None:
    broken, places = planned(hands.database), 2 * release.TICKETS_PER_SLOT
    with hands.database.begin() as connection:
        connection.execute(text("UPDATE run SET definition = '{}'"))
        connection.execute(  # as many batches as a large run has
            text("INSERT INTO batch (run_id, lane) SELECT :run, 'email.marketing' FROM generate_series(1, :more)"),
            {"run": broken, "more": 2 * places},
        )
        connection.execute(text("UPDATE message SET due_at = due_at + interval '2 days'"))  # it is nobody's rival
    tickets = release.release(hands.database)
    assert len(tickets) == places
    for ticket in tickets:
        with pytest.raises(ValidationError):
            send_batch(hands, ticket.batch_id)
    good = planned(hands.database, "again")
    for ticket in release.release(hands.database):
        send_batch(hands, ticket.batch_id)

    with hands.database.connect() as connection:
        became = connection.scalars(text("SELECT status FROM message WHERE run_id = :run"), {"run": good})
        assert Counter(became) == {"sent": PEOPLE}
        connection.execute(text("UPDATE batch SET lease_until = lease_until - interval '1 min'"))
        connection.commit()
    assert len(release.release(hands.database)) == places  # whoever mends the run need not know of its batches
