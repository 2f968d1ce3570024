"""The chain over the audit: whole while nobody touches it, whoever writes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from people import add_person
from sqlalchemy import Connection, Engine, text

from dispatcher import audit, audit_chain, identity
from dispatcher.audit_chain import link_new, verify_chain
from dispatcher.keys import KeyRing


def write(database: Engine, number: int = 1, actor: str = "test") -> None:
    with database.begin() as connection:
        for each in range(number):
            audit.record(connection, actor, "tested", f"thing {each}", {"at": datetime.now(UTC), "n": each})


def findings(database: Engine) -> tuple[str, ...]:
    with database.connect() as connection:
        return verify_chain(connection).findings


def tamper(database: Engine, statement: str) -> None:
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        assert connection.execute(text(statement)).rowcount


def test_an_empty_audit_is_whole(database: Engine) -> None:
    assert link_new(database) == 0
    assert findings(database) == ()


def test_every_entry_is_linked_once(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_chain, "_PAGE", 4)
    write(database, 10)

    assert link_new(database) == 10
    assert link_new(database) == 0
    write(database, 3)
    assert link_new(database) == 3

    with database.connect() as connection:
        chain = verify_chain(connection)
    assert (chain.links, chain.not_linked, chain.findings) == (13, 0, ())


def test_an_entry_that_becomes_visible_late_is_linked_late(database: Engine) -> None:
    """Its number is lower than others' that are linked already: the chain is in the order in which they were seen."""
    with database.connect() as slow:
        audit.record(slow, "slow", "tested", "thing", {})
        write(database, 2)
        assert link_new(database) == 2
        slow.commit()

    assert link_new(database) == 1
    assert findings(database) == ()


def test_writers_and_linkers_at_once_make_one_chain(database: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write, database, 5, f"w{n}") for n in range(20)]
        linking = [pool.submit(link_new, database) for _ in range(20)]
        for future in (*writing, *linking):
            future.result()
    link_new(database)

    with database.connect() as connection:
        chain = verify_chain(connection)
    assert (chain.links, chain.findings) == (100, ())


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE audit SET details = '{}' WHERE id = 3", "audit entry 3 was changed after it was linked"),
        ("DELETE FROM audit WHERE id = 3", "audit entry 3 was deleted"),
        ("DELETE FROM audit_link WHERE number = 3", "links 3 to 3 of the audit are missing"),
        ("DELETE FROM audit_link WHERE number >= 5", "links 5 to 6 of the audit are missing at the end"),
        ("UPDATE audit_link SET hash = sha256('x') WHERE number = 6", "audit entry 6 was changed after it was linked"),
        ("DELETE FROM audit_head", "the note of the newest link of the audit is missing"),
        (
            "UPDATE audit_head SET number = 4",
            "links 5 to 6 of the audit were added by something else than this program",
        ),
        ("UPDATE audit_head SET hash = sha256('x')", "link 6 of the audit is another than was written"),
    ],
)
def test_what_was_touched_is_found(database: Engine, statement: str, finding: str) -> None:
    write(database, 6)
    link_new(database)

    tamper(database, statement)

    assert finding in findings(database)


def test_an_entry_slipped_in_among_old_ones_is_found(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_chain, "_LATE", 3)
    write(database, 2)
    tamper(database, "UPDATE audit SET id = id + 10")
    link_new(database)

    tamper(database, "INSERT INTO audit (id, actor, action, subject) VALUES (5, 'x', 'x', 'x')")

    assert findings(database) == ("audit entry 5 was added behind the chain",)


def test_what_concerns_a_person_is_found_whoever_they_were(connection: Connection, key_ring: KeyRing) -> None:
    one, other, third = (add_person(connection, key_ring, name) for name in ("one", "other", "third"))
    for contact_id in (other, third):
        audit.record(connection, "test", "contact.export", f"contact {contact_id}", {})
    identity.merge(connection, key_ring, one, other)

    assert [entry.action for entry in audit.entries(connection, contact_id=one)] == ["contact.export", "contact.merge"]
    assert audit.entries(connection, contact_id=other) == audit.entries(connection, contact_id=one)


def test_the_newest_are_told_by_action_and_time(connection: Connection) -> None:
    for number in range(5):
        audit.record(connection, "test", f"a.{number % 2}", f"thing {number}", {})

    assert [entry.subject for entry in audit.entries(connection, action="a.1")] == ["thing 1", "thing 3"]
    assert [entry.subject for entry in audit.entries(connection, action="a", most=2)] == ["thing 3", "thing 4"]
    assert audit.entries(connection, since=datetime.now(UTC) + timedelta(hours=1)) == []
