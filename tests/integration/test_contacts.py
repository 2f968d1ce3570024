"""Contacts: finding them, writing them down, and who turns out to be whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from people import say
from sqlalchemy import Connection, Engine, text

from dispatcher import consent, suppression
from dispatcher.contacts import (
    Particulars,
    Personal,
    Saved,
    ensure_contacts,
    find_contact,
    personal_of,
    save_contact,
    save_contacts,
)
from dispatcher.contacts.saving import Outcome
from dispatcher.errors import NotFound
from dispatcher.keys import KeyRing

ANNA = Particulars("anna", email="anna@shop.example", first_name="Anna", country="RO", attributes={"plan": "gold"})


def row(connection: Connection, contact_id: int | None) -> dict[str, object]:
    found = connection.execute(text("SELECT * FROM contact WHERE id = :id"), {"id": contact_id})
    return dict(found.mappings().one())


def outcomes(saved: list[Saved]) -> list[str]:
    return [one.outcome.value for one in saved]


def test_a_contact_is_found_by_id_or_address(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contact(connection, key_ring, ANNA)

    assert find_contact(connection, key_ring, "anna") == saved.contact_id
    assert find_contact(connection, key_ring, " ANNA@Shop.Example ") == saved.contact_id
    for unknown in ("bob", "bob@shop.example", "no address @ all"):
        with pytest.raises(NotFound) as refused:
            find_contact(connection, key_ring, unknown)
        assert "@" not in str(refused.value)  # never the address


def test_what_is_personal_is_only_readable_with_the_key(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contact(connection, key_ring, ANNA)

    assert personal_of(connection, key_ring, saved.contact_id or 0) == Personal("anna@shop.example", first_name="Anna")
    assert b"nna" not in bytes(row(connection, saved.contact_id)["sealed"])  # type: ignore[call-overload]
    connection.execute(text("UPDATE contact SET data_key = NULL"))
    assert personal_of(connection, key_ring, saved.contact_id or 0) == Personal()


def test_whoever_turns_out_to_be_another_later_in_the_page_is_told_of_as_that_one(
    connection: Connection, key_ring: KeyRing
) -> None:
    first = save_contact(connection, key_ring, Particulars("first"))
    anna, same = save_contacts(connection, key_ring, [ANNA, Particulars("first", email="anna@shop.example")])

    assert anna.contact_id == same.contact_id == first.contact_id
    assert (anna.lost, same.lost is not None, same.lost != same.contact_id) == (None, True, True)


def test_saving_the_same_again_changes_nothing(connection: Connection, key_ring: KeyRing) -> None:
    first = save_contact(connection, key_ring, ANNA)
    before = row(connection, first.contact_id)

    again = save_contact(connection, key_ring, ANNA)

    assert (first.outcome, again.outcome) == (Outcome.CREATED, Outcome.UNCHANGED)
    assert row(connection, again.contact_id) == before


def test_the_version_rises_only_with_what_rendering_sees(connection: Connection, key_ring: KeyRing) -> None:
    versions = []
    for change in (
        {},
        {"zone": "Europe/Bucharest"},  # where it is night: read live, in no mail
        {"subdivision": "B"},
        {"first_name": "Ana"},
        {"locale": "ro-RO"},
        {"attributes": {"plan": "silver"}},
        {"email": "ana@shop.example"},
    ):
        saved = save_contact(connection, key_ring, Particulars("anna", **change))  # type: ignore[arg-type]
        versions.append(row(connection, saved.contact_id)["version"])

    assert versions == [1, 1, 1, 2, 3, 4, 5]


def test_what_is_not_said_stays(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contact(connection, key_ring, ANNA)
    save_contact(connection, key_ring, Particulars("anna", last_name="Popescu", attributes={"size": "M"}))

    contact = row(connection, saved.contact_id)
    assert contact["country"] == "RO"
    assert contact["attributes"] == {"plan": "gold", "size": "M"}
    assert personal_of(connection, key_ring, saved.contact_id or 0).first_name == "Anna"


def test_one_mailbox_is_one_contact_and_its_aliases_only_fill_blanks(connection: Connection, key_ring: KeyRing) -> None:
    bea = Particulars("bea", email="anna@shop.example", first_name="Bea", last_name="Berg", phone="+447700900123")

    saved = save_contacts(connection, key_ring, [ANNA, bea])
    again = save_contacts(connection, key_ring, [ANNA, bea])

    assert outcomes(saved) == ["created", "merged"]
    assert outcomes(again) == ["unchanged", "unchanged"]  # they do not take turns
    assert saved[0].contact_id == saved[1].contact_id == find_contact(connection, key_ring, "bea")
    assert personal_of(connection, key_ring, saved[0].contact_id or 0) == Personal(
        "anna@shop.example", "+447700900123", "Anna", "Berg"
    )


def test_a_contact_that_shows_anothers_address_is_merged_with_it(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contacts(connection, key_ring, [ANNA, Particulars("bea", email="bea@shop.example", last_name="Berg")])

    merged = save_contact(connection, key_ring, Particulars("bea", email="anna@shop.example"))

    assert (merged.outcome, merged.contact_id) == (Outcome.MERGED, saved[0].contact_id)
    assert row(connection, saved[1].contact_id)["merged_into"] == saved[0].contact_id
    assert find_contact(connection, key_ring, "bea") == saved[0].contact_id


def test_a_merge_in_mid_page_sees_what_came_before_it(connection: Connection, key_ring: KeyRing) -> None:
    ensure_contacts(connection, key_ring, ["bare"])  # known from an order only

    saved = save_contacts(
        connection,
        key_ring,
        [
            Particulars("new", email="shared@shop.example", first_name="Nea"),
            Particulars("bare", email="shared@shop.example", last_name="Bar"),
            Particulars("third", email="shared@shop.example", locale="ro"),
        ],
    )

    assert outcomes(saved) == ["created", "merged", "merged"]
    assert (
        len({find_contact(connection, key_ring, name) for name in ("new", "bare", "third", "shared@shop.example")}) == 1
    )
    [living] = connection.scalars(text("SELECT id FROM contact WHERE merged_into IS NULL")).all()
    assert personal_of(connection, key_ring, living) == Personal("shared@shop.example", None, "Nea", "Bar")


def test_an_alias_that_moved_to_another_mailbox_leaves_the_contact_where_it_is(
    connection: Connection, key_ring: KeyRing
) -> None:
    save_contacts(connection, key_ring, [ANNA, Particulars("bea", email="anna@shop.example")])

    moved = save_contact(connection, key_ring, Particulars("bea", email="bea@shop.example"))

    assert moved.other_email
    assert personal_of(connection, key_ring, moved.contact_id or 0).email == "anna@shop.example"


def test_an_address_that_was_given_up_is_free_for_another(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contacts(
        connection,
        key_ring,
        [ANNA, ANNA, Particulars("anna", email="new@shop.example"), Particulars("bea", email="anna@shop.example")],
    )

    assert outcomes(saved) == ["created", "unchanged", "changed", "created"]
    assert find_contact(connection, key_ring, "new@shop.example") == saved[0].contact_id
    assert find_contact(connection, key_ring, "anna@shop.example") == saved[3].contact_id != saved[0].contact_id


def test_what_is_said_in_passing_overwrites_nothing_and_merges_nobody_who_has_an_address(
    connection: Connection, key_ring: KeyRing
) -> None:
    anna = save_contact(connection, key_ring, ANNA)
    bea = save_contact(connection, key_ring, Particulars("bea", email="bea@shop.example"))
    said = Particulars("anna", "bea@shop.example", first_name="A.", last_name="Ash", only_fills=True)

    assert save_contact(connection, key_ring, said).outcome is Outcome.CHANGED
    assert find_contact(connection, key_ring, "bea") == bea.contact_id != anna.contact_id
    kept = Personal("anna@shop.example", first_name="Anna", last_name="Ash")
    assert personal_of(connection, key_ring, anna.contact_id or 0) == kept


@pytest.mark.parametrize("known_before", [False, True])
def test_a_guest_takes_the_name_of_the_customer_they_turn_out_to_be(
    connection: Connection, key_ring: KeyRing, known_before: bool
) -> None:
    guest = save_contact(connection, key_ring, Particulars("email-0123456789abcdef", "anna@shop.example"))
    if known_before:
        save_contact(connection, key_ring, Particulars("17", first_name="Anna"))
    save_contact(connection, key_ring, Particulars("17", "anna@shop.example", first_name="Anna"))
    save_contact(connection, key_ring, Particulars("17", "new@shop.example", first_name="Ann"))

    assert find_contact(connection, key_ring, "17") == find_contact(connection, key_ring, "email-0123456789abcdef")
    assert personal_of(connection, key_ring, guest.contact_id or 0) == Personal("new@shop.example", first_name="Ann")
    if not known_before:
        assert row(connection, guest.contact_id)["external_id"] == "17"


def test_a_shared_phone_is_one_address_and_two_contacts(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contacts(connection, key_ring, [Particulars(name, phone="+447700900123") for name in ("anna", "bea")])

    assert saved[0].contact_id != saved[1].contact_id
    assert saved[0].sms_address_id == saved[1].sms_address_id


def test_an_erased_person_does_not_come_back(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contact(connection, key_ring, ANNA)
    suppression.add(connection, saved.email_address_id or 0, "erasure", source="test")
    connection.execute(
        text(
            "UPDATE contact SET erased_at = clock_timestamp(), data_key = NULL, sealed = NULL, email_address_id = NULL"
        )
    )

    again = save_contacts(connection, key_ring, [ANNA, Particulars("other", email="anna@shop.example")])

    assert outcomes(again) == ["erased", "erased"]
    assert connection.scalar(text("SELECT count(*) FROM contact")) == 1


def test_bare_contacts_are_made_once(connection: Connection, key_ring: KeyRing) -> None:
    saved = save_contact(connection, key_ring, ANNA)

    made = ensure_contacts(connection, key_ring, ["anna", "x", "y", "x"])

    assert made["anna"] == saved.contact_id
    assert ensure_contacts(connection, key_ring, ["x", "y"]) == {name: made[name] for name in ("x", "y")}
    assert row(connection, made["x"])["data_key"] is not None  # so that they can be sent something, and erased


def test_writers_at_once_agree_who_is_who(database: Engine, key_ring: KeyRing) -> None:
    names = [f"c{number}" for number in range(40)]

    def ensure(_: int) -> None:
        with database.begin() as connection:
            ensure_contacts(connection, key_ring, names)

    def save(_: int) -> None:
        with database.begin() as connection:
            given = [Particulars(f"s{n}", email=f"{n // 2}@shop.example") for n in range(40)]
            save_contacts(connection, key_ring, given)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, n) for n in range(4) for work in (ensure, save)]:
            future.result()

    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM contact")) == 40 + 20
        assert connection.scalar(text("SELECT count(*) FROM contact_alias")) == 40 + 40
        orphans = text(
            "SELECT count(*) FROM contact c WHERE NOT EXISTS (SELECT FROM contact_alias WHERE contact_id = c.id)"
        )
        assert connection.scalar(orphans) == 0


def test_who_takes_over_the_address_of_another_has_what_was_granted_for_it(
    connection: Connection, key_ring: KeyRing
) -> None:
    anna = save_contact(connection, key_ring, ANNA).contact_id or 0
    ben = save_contact(connection, key_ring, Particulars("ben", email="ben@shop.example")).contact_id or 0
    say(connection, key_ring, anna, [("email", "offers", "granted")])
    say(connection, key_ring, ben, [("email", "offers", "granted"), ("email", "letters", "withdrawn")])

    merged = save_contact(connection, key_ring, replace(ANNA, email="ben@shop.example"))

    assert (merged.outcome, merged.contact_id) == (Outcome.MERGED, anna)
    states = {one.topic: (one.state, one.for_present_address) for one in consent.state_of(connection, anna)}
    assert states["offers"] == ("granted", True)
    assert states["letters"][0] == "withdrawn"


def test_a_grant_counts_again_when_the_contact_is_back_at_its_address(
    connection: Connection, key_ring: KeyRing
) -> None:
    anna = save_contact(connection, key_ring, ANNA).contact_id or 0
    say(connection, key_ring, anna, [("email", "offers", "granted")])
    save_contact(connection, key_ring, replace(ANNA, email="anna@elsewhere.example"))
    assert [one.for_present_address for one in consent.state_of(connection, anna)] == [False]
    say(connection, key_ring, anna, [("email", "offers", "requested")])
    assert [one.state for one in consent.state_of(connection, anna)] == ["pending"]

    save_contact(connection, key_ring, ANNA)

    assert [(one.state, one.for_present_address) for one in consent.state_of(connection, anna)] == [("granted", True)]
