"""SendGrid's own suppression lists and ours, held against each other over HTTP."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from ledger_rows import add_message
from mirroring import GROUP_LIST, House, house_of
from sqlalchemy import Engine, text
from standin_lists import GROUP, Say
from standins import StandIn, stand_in

from dispatcher import cli, mirrors
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.mirrors import mirror_when_due
from dispatcher.mirrors.comparing import What
from dispatcher.providers.http import Http
from dispatcher.providers.protocol import TheirList
from dispatcher.providers.sendgrid import SendGrid
from dispatcher.rights import export_contact

ANA, BEN, EVE = "ana@people.example", "ben@people.example", "eve@nowhere.example"


@pytest.fixture(scope="module")
def api() -> Iterator[StandIn]:
    with stand_in() as api:
        yield api


@pytest.fixture
def house(database: Engine, key_ring: KeyRing, api: StandIn) -> Iterator[House]:
    with house_of(database, key_ring, api) as house:
        yield house


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


def test_it_is_compared_once_a_day(house: House) -> None:
    assert mirror_when_due(house.database, house.key_ring, house.provider) is not None
    assert mirror_when_due(house.database, house.key_ring, house.provider) is None
    with house.database.begin() as connection:
        left = connection.scalar(text("SELECT reconcile_at - clock_timestamp() FROM mirror"))
        assert left is not None
        assert timedelta(hours=23) < left <= timedelta(hours=24)
        connection.execute(text("UPDATE mirror SET reconcile_at = clock_timestamp()"))
    assert mirror_when_due(house.database, house.key_ring, house.provider) is not None


def test_every_what_is_told_in_json_by_its_own_word(house: House) -> None:
    house.lists.put("spam_reports", "no address")
    assert json.loads(json.dumps(house.compare())) == {"spam_reports": {str(What.UNREADABLE): 1}}


@pytest.fixture
def run(house: House, api: StandIn, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:  # fmt: skip
    """Run a command of an installation that sends through SendGrid."""
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)
    settings = {"DATABASE_URL": database_url, "BROKER_URL": "redis://127.0.0.1:1", "HOME": str(tmp_path / "home"),
                "EMAIL_PROVIDER": "sendgrid", "SENDGRID_API_KEY": "SG.secret", "SENDGRID_URL": api.url,
                "SENDGRID_UNSUBSCRIBE_GROUP": str(GROUP), "PUBLIC_URL": "https://shop.example"}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (cli.run(list(arguments)), *capsys.readouterr())

    return run


def test_the_commands_compare_and_tell_what_was_different(
    house: House, run: Callable[..., tuple[int, str, str]]
) -> None:
    house.person("ana")
    house.lists.put("unsubscribes", ANA)

    code, out, err = run("suppression", "mirror", "--dry-run")
    assert (code, err) == (0, "nothing was changed\n")
    assert "taken_in" in out
    assert house.reasons(ANA) == set()

    assert run("suppression", "differences")[2] == "nothing was compared yet\n"
    code, out, _ = run("suppression", "mirror", "--json")
    assert json.loads(out) == {"sendgrid": {"unsubscribes": {"taken_in": 1}}}
    told = json.loads(run("suppression", "differences", "--json")[1])
    assert told["complete"]
    assert [(one["list"], one["what"], one["contact"]) for one in told["differences"]] == [
        ("unsubscribes", "taken_in", "ana")
    ]
    assert ANA not in run("suppression", "differences")[1]


def test_without_a_provider_that_has_lists_the_command_says_so(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_EMAIL_PROVIDER", "sandbox")

    code, _, err = run("suppression", "mirror")

    assert code == 1
    assert "no provider that is configured" in err


def test_the_export_of_a_person_shows_on_which_lists_we_put_them_and_what_was_taken_back(house: House) -> None:
    ana = house.person("ana")
    house.suppress(ANA, "operator")
    house.push()
    house.suppress(ANA, "hard_bounce")
    house.lift(ANA, "hard_bounce")

    with house.database.connect() as connection:
        told = export_contact(connection, house.key_ring, ana)

    assert {(one["list"], one["is_about_to_change"]) for one in told["provider_lists"]} == {
        ("unsubscribes", True), ("group", True)
    }  # fmt: skip
    assert [one["reason"] for one in told["suppressions_lifted"]] == ["hard_bounce"]
