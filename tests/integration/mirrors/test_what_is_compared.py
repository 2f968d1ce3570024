"""Their lists compared with ours: what is taken in, taken back, pushed again and reported."""

from __future__ import annotations

import json

from ledger_rows import add_message
from mirroring import ANA, EVE, GROUP_LIST, House
from sqlalchemy import text
from standin_lists import Say

from dispatcher import mirrors
from dispatcher.mirrors.comparing import What


def test_their_lists_are_taken_in_by_reason_and_stop_what_is_pending(house: House) -> None:
    people = {name: house.person(name) for name in ("ana", "ben", "cyd", "dan")}
    lists = ("unsubscribes", "spam_reports", "bounces", "invalid_emails")
    with house.database.begin() as connection:
        waiting = {
            name: add_message(connection, contact, house.address(f"{name}@people.example"))
            for name, contact in people.items()
        }
    for name, list_ in zip(people, lists, strict=True):
        house.lists.put(list_, f"{name}@people.example")
    house.lists.put("blocks", "ana@people.example")

    figures = house.compare()

    assert figures == {list_: {"taken_in": 1} for list_ in lists}
    assert [house.reasons(f"{name}@people.example") for name in people] == [
        {"unsubscribe"}, {"complaint"}, {"hard_bounce"}, {"invalid"}
    ]  # fmt: skip
    with house.database.connect() as connection:
        rows = connection.execute(text("SELECT status, reason FROM message WHERE id = ANY(:ids)"),
                                  {"ids": list(waiting.values())})  # fmt: skip
        assert {tuple(row) for row in rows} == {("skipped", "SUPPRESSED")}
    assert not any("blocks" in target for _, target in house.lists.asked)
    assert house.compare() == {list_: {"agreed": 1} for list_ in lists}


def test_a_strangers_address_is_kept_as_a_hash_only_and_closed_before_it_comes(house: House) -> None:
    house.lists.put("unsubscribes", EVE)

    assert house.compare() == {"unsubscribes": {"stranger": 1}}

    assert house.reasons(EVE) == {"unsubscribe"}
    with house.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM contact")) == 0
        wrapped, sealed = connection.execute(text("SELECT data_key, sealed FROM feedback")).one()
    assert EVE not in str(house.key_ring.open_data_key(wrapped).open(sealed))


def test_a_later_yes_is_not_undone_by_an_older_entry_and_takes_it_off_there(house: House) -> None:
    ana = house.person("ana")
    house.lists.put("unsubscribes", ANA, ago=3600)
    house.lists.put(GROUP_LIST, ANA, ago=3600)
    house.says(ana, "granted")

    figures = house.compare()

    assert figures == {"unsubscribes": {"taken_back": 1}, "group": {"taken_back": 1}}
    assert house.reasons(ANA) == set()
    assert house.lists.on("unsubscribes") == house.lists.on(GROUP_LIST) == set()


def test_a_no_at_the_provider_after_the_yes_here_counts(house: House) -> None:
    house.person("ana")  # long ago
    house.lists.put("unsubscribes", ANA, ago=0)

    house.compare()

    assert house.reasons(ANA) == {"unsubscribe"}


def test_what_an_operator_lifted_does_not_come_back_from_an_older_entry(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "hard_bounce", source="feedback: sendgrid bounced 5.1.1")
    house.lists.put("bounces", ANA)
    house.lift(ANA, "hard_bounce")

    house.compare()

    assert house.reasons(ANA) == set()
    assert house.lists.on("bounces") == set()


def test_a_bounce_that_does_not_speak_of_the_address_stays_theirs(house: House) -> None:
    house.person("ana")
    house.lists.put("bounces", ANA)
    house.lists.words[ANA] = ("5.2.2", "552 5.2.2 mailbox full")

    assert house.compare() == {"bounces": {"not_hard": 1}}
    assert house.reasons(ANA) == set()


def test_what_somebody_took_off_there_by_hand_is_pushed_again_and_reported(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "operator")
    house.push()
    house.lists.entries.clear()
    with house.database.begin() as connection:
        connection.execute(text("UPDATE mirrored SET put_at = put_at - interval '1 hour'"))

    figures = house.compare()

    assert figures == {"unsubscribes": {"missing_there": 1}, "group": {"missing_there": 1}}
    assert house.lists.on("unsubscribes") == {ANA}
    with house.database.connect() as connection:
        report = mirrors.last_report(connection)
        assert report is not None
        assert report.complete
        assert report.figures == figures
        found = mirrors.differences_of(connection, report.id)
    assert [(one.list, one.what, one.contact) for one in found] == [
        ("group", "missing_there", "ana"), ("unsubscribes", "missing_there", "ana")
    ]  # fmt: skip


def test_an_address_that_nobody_has_in_clear_is_said_to_be_unpushable(house: House) -> None:
    house.suppress(EVE, "operator")

    assert house.compare() == {
        "unsubscribes": {"cannot_be_named": 1}, "group": {"cannot_be_named": 1}
    }  # fmt: skip


def test_a_dry_run_counts_the_same_and_changes_nothing_on_either_side(house: House) -> None:
    house.person("ana")
    house.person("ben", said="withdrawn")
    house.lists.put("unsubscribes", ANA)

    first = house.compare(dry_run=True)

    assert first == {"unsubscribes": {"taken_in": 1}, "group": {"missing_there": 1}}
    assert house.reasons(ANA) == set()
    assert house.lists.on(GROUP_LIST) == set()
    assert {method for method, _ in house.lists.asked} == {"GET"}
    with house.database.connect() as connection:
        assert mirrors.last_report(connection) is None


def test_lists_of_many_pages_are_read_whole_and_an_entry_that_comes_twice_counts_once(house: House) -> None:
    for number in range(1_203):
        house.lists.put("unsubscribes", f"p{number}@people.example", ago=100_000 - number)
    moved: list[str] = []

    def one_more(_method: str, target: str) -> Say | None:
        if "offset=500" in target and not moved:  # what was the 500th is the 501st by now
            moved.append(target)
            house.lists.put("unsubscribes", "late@people.example", ago=30)
        return None

    house.lists.answers = one_more

    assert house.compare() == {"unsubscribes": {"stranger": 1_203}}, "the next day has whoever came to the front"
    assert moved
    with house.database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM suppression")) == 1_203


def test_every_what_is_told_in_json_by_its_own_word(house: House) -> None:
    house.lists.put("spam_reports", "no address")
    assert json.loads(json.dumps(house.compare())) == {"spam_reports": {str(What.UNREADABLE): 1}}
