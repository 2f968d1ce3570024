"""What is suppressed here goes on their lists, and what is lifted leaves them."""

from __future__ import annotations

from mirroring import ANA, GROUP_LIST, House
from standin_lists import Say


def test_what_stops_everything_goes_on_the_list_that_does_and_what_stops_marketing_on_the_group(house: House) -> None:
    for name in ("ana", "ben", "cyd"):
        house.person(name)
    house.suppress("ana@people.example", "operator")
    house.suppress("ben@people.example", "unsubscribe")

    house.push()

    assert house.lists.on("unsubscribes") == {"ana@people.example"}
    assert house.lists.on(GROUP_LIST) == {"ana@people.example", "ben@people.example"}
    assert house.waiting() == 0


def test_a_no_to_all_marketing_goes_into_the_group_and_a_later_yes_takes_it_out(house: House) -> None:
    ana = house.person("ana")
    house.push()
    assert house.lists.on(GROUP_LIST) == set()

    house.says(ana, "withdrawn")
    house.push()
    assert house.lists.on(GROUP_LIST) == {ANA}
    assert house.lists.on("unsubscribes") == set(), "order confirmations still go"

    house.says(ana, "granted")
    house.push()
    assert house.lists.on(GROUP_LIST) == set()


def test_what_the_provider_told_us_is_not_told_back(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "hard_bounce", source="feedback: sendgrid bounced 5.1.1")

    house.push()

    assert [method for method, _ in house.lists.asked if method == "POST"] == []


def test_a_suppression_that_is_lifted_leaves_every_list_it_was_on(house: House) -> None:
    house.person("ana")
    house.lists.put("spam_reports", ANA)
    house.lists.put("unsubscribes", ANA)
    house.compare()
    assert house.reasons(ANA) == {"complaint", "unsubscribe"}

    house.lift(ANA, "complaint")
    house.lift(ANA, "unsubscribe")
    house.push()

    assert house.lists.on("spam_reports") == house.lists.on("unsubscribes") == set()


def test_who_left_at_the_provider_too_stays_on_its_list_when_what_we_put_them_there_for_is_lifted(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "complaint", source="operator")
    house.push()
    house.suppress(ANA, "unsubscribe", source="feedback: sendgrid group_unsubscribe")
    house.push()
    assert house.lists.on(GROUP_LIST) == {ANA}

    house.lift(ANA, "complaint")
    house.push()

    assert house.reasons(ANA) == {"unsubscribe"}
    assert house.lists.on(GROUP_LIST) == {ANA}
    house.lift(ANA, "unsubscribe")
    house.push()
    assert house.lists.on(GROUP_LIST) == set()


def test_who_left_here_leaves_the_list_that_stops_everything_when_their_bounce_is_lifted(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "hard_bounce")
    house.suppress(ANA, "unsubscribe")
    house.push()
    assert house.lists.on("unsubscribes") == house.lists.on(GROUP_LIST) == {ANA}

    house.lift(ANA, "hard_bounce")
    house.push()

    assert (house.lists.on("unsubscribes"), house.lists.on(GROUP_LIST)) == (set(), {ANA}), (
        "order confirmations still go"
    )


def test_who_stood_there_before_we_put_them_stays_when_their_bounce_is_lifted(house: House) -> None:
    house.person("ana")
    house.lists.put("unsubscribes", ANA, ago=3_600)
    house.suppress(ANA, "hard_bounce")
    house.push()
    house.lift(ANA, "hard_bounce")
    house.push()
    assert house.lists.on("unsubscribes") == {ANA}

    assert house.compare() == {"unsubscribes": {"taken_in": 1}}
    assert house.reasons(ANA) == {"unsubscribe"}


def test_a_list_that_cannot_be_asked_when_a_bounce_is_lifted_is_asked_later(house: House) -> None:
    house.person("ana")
    house.lists.put("unsubscribes", f"{ANA}.uk", ago=3_600)
    house.suppress(ANA, "hard_bounce")
    house.push()
    house.lift(ANA, "hard_bounce")
    house.lists.answers = lambda _method, _target: Say(503)
    house.push()
    house.lists.answers = lambda _method, _target: None
    house.push()

    assert house.lists.on("unsubscribes") == {f"{ANA}.uk"}  # another's, whose address begins so
    assert house.waiting() == 0
