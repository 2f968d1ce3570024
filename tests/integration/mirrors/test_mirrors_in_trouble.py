"""Lost replies, refusals, deaths and two at once cost no list anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from mirroring import ANA, BEN, EVE, GROUP_LIST, House
from sqlalchemy import text
from standin_lists import Say
from standins import StandIn

from dispatcher import mirrors
from dispatcher.errors import Refused
from dispatcher.mirrors import mirror_when_due
from dispatcher.providers.http import Http
from dispatcher.providers.protocol import TheirList
from dispatcher.providers.sendgrid import SendGrid


def faults(*said: Say) -> Callable[[str, str], Say | None]:
    """Answer each path like this in turn, then truly."""
    left: dict[str, list[Say]] = {}

    def answer(method: str, target: str) -> Say | None:
        rest = left.setdefault(f"{method} {target.partition('?')[0]}", list(said))
        return rest.pop(0) if rest else None

    return answer


def test_lost_replies_500s_and_429s_are_waited_out(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "operator")
    house.lists.put("spam_reports", EVE)
    house.lists.answers = faults(
        Say(0, lose=True, accept=True), Say(502, b"<html>bad gateway</html>"), Say(429, headers={"Retry-After": "7"})
    )

    house.compare()

    assert house.lists.on("unsubscribes") == house.lists.on(GROUP_LIST) == {ANA}
    assert house.reasons(EVE) == {"complaint"}
    assert 7.0 in house.waited
    assert house.waiting() == 0


def test_a_provider_that_stays_away_keeps_nothing_from_being_pushed_later(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "operator")
    house.lists.answers = lambda _method, _target: Say(503)

    house.push()
    assert house.waiting() == 1
    with house.database.connect() as connection:
        waits = connection.scalar(text("SELECT wait_until > clock_timestamp() FROM mirror"))
    assert waits, "it is not asked again and again"

    house.lists.answers = lambda _method, _target: None
    house.push()
    assert house.lists.on("unsubscribes") == {ANA}


def test_a_key_without_the_permission_is_said_and_the_report_tells_it(house: House) -> None:
    house.lists.answers = lambda _method, _target: Say(403, b'{"errors": [{"message": "access forbidden"}]}')

    with pytest.raises(Refused, match="permission Suppressions"):
        house.compare()
    with house.database.connect() as connection:
        report = mirrors.last_report(connection)
    assert report is not None
    assert not report.complete
    assert "403" in str(report.flaw)


def test_an_address_that_is_not_taken_holds_up_nobody_else(house: House) -> None:
    for name in ("ana", "ben", "cyd"):
        house.person(name)
        house.suppress(f"{name}@people.example", "operator")
    real = house.lists._truth

    def picky(method: str, target: str, body: bytes) -> Say:
        if method == "POST" and BEN.encode() in body:
            return Say(400, b'{"errors": [{"message": "invalid email"}]}')
        return real(method, target, body)

    house.lists._truth = picky  # type: ignore[method-assign]

    house.push()

    assert house.lists.on("unsubscribes") == {"ana@people.example", "cyd@people.example"}
    with house.database.connect() as connection:
        rows = connection.execute(text("SELECT failures, retry_at > clock_timestamp() FROM mirror_change")).all()
    assert [tuple(row) for row in rows] == [(1, True)]


def test_a_change_while_the_request_is_under_way_is_not_lost(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "operator")

    def lifted_meanwhile(method: str, _target: str) -> Say | None:
        if method == "POST" and house.reasons(ANA):
            house.lift(ANA, "operator")
        return None

    house.lists.answers = lifted_meanwhile
    house.push()

    assert house.lists.on("unsubscribes") == house.lists.on(GROUP_LIST) == set()
    assert house.waiting() == 0


def test_a_worker_that_dies_after_the_request_leaves_it_to_the_next(house: House, api: StandIn) -> None:
    house.person("ana")
    house.suppress(ANA, "operator")

    class DeathError(BaseException):
        """Not to be caught by anybody."""

    class DiesAfterwards(SendGrid):
        def put_on(self, list_: TheirList, addresses: Sequence[str]) -> list[str]:
            super().put_on(list_, addresses)
            raise DeathError

    dying = DiesAfterwards(Http(), api_key="SG.secret", url=api.url)
    with pytest.raises(DeathError):
        mirrors.push_changes(house.database, house.key_ring, dying)
    dying.close()
    assert house.lists.on("unsubscribes") == {ANA}

    house.lift(ANA, "operator")
    house.push()

    assert house.lists.on("unsubscribes") == set(), "what may be ours there was noted before it was put there"


def test_of_two_at_once_one_works_and_the_other_says_so(house: House) -> None:
    house.person("ana")
    house.suppress(ANA, "operator")
    began, go_on = threading.Event(), threading.Event()

    def slowly(_method: str, _target: str) -> Say | None:
        began.set()
        assert go_on.wait(10)
        return None

    house.lists.answers = slowly
    first = threading.Thread(target=house.compare)
    first.start()
    try:
        assert began.wait(10)
        with pytest.raises(Refused, match="just now"):
            house.compare()
        assert mirror_when_due(house.database, house.key_ring, house.provider) is None
    finally:
        go_on.set()
        first.join()

    assert house.lists.on("unsubscribes") == {ANA}
    assert len([target for method, target in house.lists.asked if method == "POST"]) == 2
