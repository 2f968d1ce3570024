"""Double opt-in: asked once, confirmed by the person, and never against a later no."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ledger import SmallShop, until_noon
from people import add_address, add_person, say
from small_workspace import FILES, write_workspace
from sqlalchemy import Connection, Engine, text
from unsubscribing import everything
from web_server import Web, serving

from dispatcher import api_keys, consent, identity, opt_in, suppression, unsubscribe
from dispatcher.apply import apply
from dispatcher.contacts import hold_contact
from dispatcher.errors import Refused
from dispatcher.keys import KeyRing
from dispatcher.shop import load_shop
from dispatcher.tokens import BadToken, OptInTokens, UnsubscribeTokens, WayIn, WayOut
from dispatcher.verify import verify
from dispatcher.workspace import read_workspace

TOPIC = "letters"
WORKSPACE: dict[str, str | None] = {
    "dispatcher.toml": FILES["dispatcher.toml"].replace(
        'title = {en = "Letters"}\nchannels = ["email"]',
        'title = {en = "Letters", de = "Briefe"}\nchannels = ["email", "sms"]\ndouble_opt_in = true',
    ).replace('sms = ["20:00-09:00"]', "sms = []"),
    "campaigns/letter.yaml": "name: letter\nchannel: email\ntopic: letters\nsegment: everybody\ntemplate: christmas\n",
    "templates/email/opt-in-confirmation/meta.yaml": "class: transactional\n",
    "templates/email/opt-in-confirmation/subject.txt": "Confirm {{ topic.title }}\n",
    "templates/email/opt-in-confirmation/body.html":
        '<html lang="en"><body><p><a href="{{ confirm_url }}">Yes, {{ topic.title }}</a></p></body></html>\n',
    "templates/sms/opt-in-confirmation/meta.yaml": "class: transactional\nurgent: true\n",
    "templates/sms/opt-in-confirmation/body.txt": "Confirm {{ topic.title }}: {{ confirm_url }}\n",
}  # fmt: skip


@dataclass(frozen=True)
class House:
    """A shop whose topic `letters` needs a confirmed opt-in, and what can be done in it."""

    shop: SmallShop
    anna: int

    @property
    def database(self) -> Engine:
        return self.shop.database

    @property
    def key_ring(self) -> KeyRing:
        return self.shop.key_ring

    def one(self, query: str, **values: Any) -> Any:
        with self.database.connect() as connection:
            return connection.execute(text(query), values).scalar()

    def request(self, contact: str = "anna", channel: str = "email", topic: str = TOPIC) -> opt_in.Asked:
        with self.database.begin() as connection:
            held = hold_contact(connection, self.key_ring, contact, channel)
            return opt_in.request(
                connection, self.key_ring, load_shop(connection), held, topic, actor="person", source="form"
            )

    def way_in(self, asked: opt_in.Asked, contact_id: int | None = None, channel: str = "email") -> WayIn:
        contact_id = contact_id or self.anna
        address = self.address(contact_id, channel)
        assert asked.request_id is not None
        return WayIn(contact_id, channel, TOPIC, address, asked.request_id)

    def confirm(self, way_in: WayIn) -> opt_in.Offer:
        with self.database.begin() as connection:
            return opt_in.confirm(
                connection, self.key_ring, way_in, sealed={"ip": "192.0.2.9", "user_agent": "Firefox"}
            )

    def withdraw(self, topic: str = TOPIC, channel: str = "email") -> None:
        way_out = WayOut(self.anna, channel, topic, self.address(self.anna, channel))
        assert unsubscribe.withdraw(self.database, self.key_ring, way_out, source="link").status == unsubscribe.DONE

    def address(self, contact_id: int, channel: str = "email") -> int:
        return int(self.one(f"SELECT {channel}_address_id FROM contact WHERE id = :id", id=contact_id))

    def state(self, channel: str = "email", topic: str = TOPIC) -> tuple[str, bool]:
        with self.database.connect() as connection:
            held = {(one.channel, one.topic): one for one in consent.state_of(connection, self.anna)}
        one = held.get((channel, topic))
        return (one.state, one.confirmed) if one else ("none", False)

    def mails(self) -> list[dict[str, Any]]:
        log = self.shop.home / "sandbox" / "outbox.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def house(database: Engine, key_ring: KeyRing, tmp_path: Path) -> House:
    home = tmp_path / "home"
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(home / "workspace", WORKSPACE)), by="test")
        anna = add_person(connection, key_ring, "anna", phone="+447700900001", granted=(("email", "offers"),))
    shop = SmallShop(database, key_ring, home)
    shop.wait(until_noon())
    return House(shop, anna)


# --- asking


def test_a_request_waits_and_one_mail_asks(house: House) -> None:
    asked = house.request()
    house.shop.send()

    assert (asked.state, house.state()) == ("pending", ("pending", False))
    [mail] = house.mails()
    assert mail["subject"] == "Confirm Letters"
    assert mail["message_id"] == str(asked.message_id)
    assert f"/d/{OptInTokens(house.key_ring).make(house.way_in(asked))}" in mail["text"]
    assert "List-Unsubscribe" not in dict(mail["headers"])
    assert house.one("SELECT class || ' ' || status FROM message") == "transactional sent"


def test_a_ledger_with_a_confirmation_in_it_holds(house: House) -> None:
    house.request()
    house.shop.send()

    with house.database.connect() as connection:
        report = verify(connection, house.key_ring, house.shop.home / "sandbox" / "outbox.jsonl")

    assert len(house.mails()) == 1
    assert [result for result in report.results if result.status == "broken"] == []


def test_a_second_request_within_a_day_sends_nothing_and_says_when(house: House) -> None:
    first, again = house.request(), house.request()

    assert first.message_id is not None
    assert again.message_id is None
    assert again.because is not None
    assert again.because.startswith("a confirmation was asked for less than 24 hours ago")
    house.shop.wait(timedelta(hours=24, seconds=-5))
    assert house.request().message_id is None
    house.shop.wait(timedelta(seconds=10))
    assert house.request().message_id is not None


def test_a_storm_of_requests_is_one_mail(house: House) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: house.request(), range(40)))

    assert sum(one.message_id is not None for one in asked) == 1
    assert house.one("SELECT count(*) FROM message") == 1
    assert house.one("SELECT count(*) FROM consent_event WHERE action = 'requested'") == 40


def test_two_contacts_with_one_phone_get_one_text_a_day(house: House) -> None:
    with house.database.begin() as connection:
        add_person(connection, house.key_ring, "ben", phone="+447700900001", granted=())

    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda number: house.request(("anna", "ben")[number % 2], "sms"), range(16)))

    assert sum(one.message_id is not None for one in asked) == 1


def test_who_has_confirmed_is_not_asked_again(house: House) -> None:
    house.confirm(house.way_in(house.request()))
    house.shop.wait(timedelta(days=2))

    asked = house.request()

    assert (asked.message_id, asked.because) == (None, "they have confirmed it already")
    assert house.state() == ("granted", True)


def test_without_an_address_or_a_template_there_is_nothing_to_ask_with(house: House) -> None:
    with house.database.begin() as connection:
        add_person(connection, house.key_ring, "nobody", email=None, granted=())
        connection.execute(text("UPDATE template SET current = false WHERE channel = 'sms'"))

    with pytest.raises(Refused, match="has no address for email"):
        house.request("nobody")
    with pytest.raises(Refused, match="add it to templates/"):
        house.request(channel="sms")
    assert house.one("SELECT count(*) FROM consent_event WHERE action = 'requested'") == 0


@pytest.mark.parametrize(("reason", "goes"), [("unsubscribe", True), ("complaint", True), ("hard_bounce", False),
                                              ("invalid", False), ("operator", False)])  # fmt: skip
def test_the_mail_passes_the_persons_own_opt_out_and_no_other(
    house: House, reason: suppression.Reason, goes: bool
) -> None:
    house.withdraw()
    with house.database.begin() as connection:
        suppression.add(connection, house.address(house.anna), reason, source="test")

    house.request()
    house.shop.send()

    assert len(house.mails()) == goes
    assert house.state() == ("withdrawn", False)


def test_a_withdrawal_stops_a_confirmation_that_has_not_left(house: House) -> None:
    house.request()
    house.withdraw()
    house.shop.send()

    assert house.mails() == []
    assert house.one("SELECT status || ' ' || reason FROM message") == "skipped NO_CONSENT"


def test_a_new_address_does_not_get_the_mail_of_the_former(house: House) -> None:
    house.request()
    with house.database.begin() as connection:
        _move(connection, house, "new@people.example")
    house.shop.send()

    assert house.mails() == []
    assert house.one("SELECT reason FROM message") == "RENDER_FAILED"


def _move(connection: Connection, house: House, email: str) -> None:
    address_id = add_address(connection, house.key_ring, "email", email)
    connection.execute(
        text("UPDATE contact SET email_address_id = :address, version = version + 1 WHERE id = :id"),
        {"address": address_id, "id": house.anna},
    )


# --- confirming


def test_a_click_grants_and_its_evidence_proves_the_mail(house: House) -> None:
    asked = house.request()
    house.shop.send()
    house.confirm(house.way_in(asked))

    assert house.state() == ("granted", True)
    with house.database.connect() as connection:
        event = connection.execute(text("SELECT * FROM consent_event ORDER BY id DESC LIMIT 1")).one()
        message = connection.execute(text("SELECT * FROM message")).one()
        data_key = connection.scalar(text("SELECT data_key FROM contact WHERE id = :id"), {"id": house.anna})
        assert consent.verify_chain(connection) == []
    assert (event.actor, event.opt_in_level, event.source) == ("person", "confirmed_opt_in", "confirmation link")
    proof = event.confirmation
    assert (proof["message"], proof["request"]) == (str(asked.message_id), asked.request_id)
    assert (proof["provider"], proof["provider_ref"]) == ("sandbox", message.provider_ref)
    assert proof["sent_at"] is not None
    assert proof["template_hash"] == event.wording["hash"]
    assert b"192.0.2.9" not in bytes(event.sealed)
    assert house.key_ring.open_data_key(data_key).open(event.sealed) == {"ip": "192.0.2.9", "user_agent": "Firefox"}


def test_a_second_click_changes_nothing(house: House) -> None:
    way_in = house.way_in(house.request())
    house.confirm(way_in)
    before = everything(house.database)

    assert house.confirm(way_in).used
    assert everything(house.database) == before


def test_two_clicks_at_once_are_one_grant(house: House) -> None:
    way_in = house.way_in(house.request())
    start = threading.Barrier(8)

    def click(_: int) -> bool:
        start.wait()
        return house.confirm(way_in).used

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(click, range(8))) == [False] + [True] * 7
    assert house.one("SELECT count(*) FROM consent_event WHERE action = 'granted' AND topic = 'letters'") == 1


def refused(house: House, way_in: WayIn) -> None:
    before = everything(house.database)
    with pytest.raises(BadToken):
        house.confirm(way_in)
    with house.database.connect() as connection, pytest.raises(BadToken):
        opt_in.look(connection, way_in)
    assert everything(house.database) == before


def test_a_link_is_good_for_seven_days(house: House) -> None:
    way_in = house.way_in(house.request())
    house.shop.wait(timedelta(days=7, seconds=-5))
    with house.database.connect() as connection:
        assert not opt_in.look(connection, way_in).used
    house.shop.wait(timedelta(seconds=10))

    refused(house, way_in)


def test_a_changed_address_voids_the_link(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        _move(connection, house, "new@people.example")

    refused(house, way_in)


def test_a_link_of_nobody_or_of_another_request_opens_nothing(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        ben = add_person(connection, house.key_ring, "ben", granted=())

    for wrong in (
        replace(way_in, contact_id=99_999), replace(way_in, request_id=99_999), replace(way_in, topic="offers"),
        replace(way_in, contact_id=ben), replace(way_in, contact_id=ben, address_id=house.address(ben)),
        replace(way_in, request_id=1),  # a grant
    ):  # fmt: skip
        refused(house, wrong)


def test_a_withdrawal_after_the_request_beats_its_link(house: House) -> None:
    way_in = house.way_in(house.request())
    house.withdraw()

    refused(house, way_in)


def test_a_no_said_twice_takes_back_the_request_between(house: House) -> None:
    """The second click finds the topic withdrawn already, and must count all the same."""
    house.withdraw()
    way_in = house.way_in(house.request())
    house.withdraw()

    refused(house, way_in)
    assert house.state() == ("withdrawn", False)


def test_an_earlier_withdrawal_that_arrives_late_does_not_take_the_request_back(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        held = hold_contact(connection, house.key_ring, "anna", "email")
        late = consent.ConsentChange(
            house.anna, "email", TOPIC, "withdrawn", "import", "file", held.now - timedelta(days=30), held.address_id
        )
        consent.record(connection, house.key_ring, [late], now=held.now)
    assert house.state()[0] == "withdrawn"

    house.confirm(way_in)

    assert house.state() == ("granted", True)


def test_a_person_comes_back_after_a_withdrawal_by_asking_and_confirming(house: House) -> None:
    house.withdraw()
    house.confirm(house.way_in(house.request()))

    assert house.state() == ("granted", True)


def test_confirming_opens_a_closed_address_for_this_topic_only(house: House) -> None:
    with house.database.begin() as connection:
        suppression.add(connection, house.address(house.anna), "unsubscribe", source="an old link")

    house.confirm(house.way_in(house.request()))

    assert house.one("SELECT count(*) FROM suppression") == 0
    assert house.state() == ("granted", True)
    assert house.state(topic="offers") == ("withdrawn", False)


def test_who_had_confirmed_and_then_complained_can_come_back(house: House) -> None:
    house.confirm(house.way_in(house.request()))
    with house.database.begin() as connection:
        suppression.add(connection, house.address(house.anna), "complaint", source="feedback")
    house.shop.wait(timedelta(days=2))

    asked = house.request()

    assert asked.message_id is not None
    house.confirm(house.way_in(asked))
    assert house.one("SELECT count(*) FROM suppression") == 0
    assert house.state() == ("granted", True)


def test_an_opt_out_of_the_address_after_the_request_beats_its_link(house: House) -> None:
    way_in = house.way_in(house.request())
    with house.database.begin() as connection:
        suppression.add(connection, way_in.address_id, "complaint", source="feedback")

    refused(house, way_in)


def test_a_mail_confirms_no_texts(house: House) -> None:
    by_mail, by_text = house.request(), house.request(channel="sms")
    house.shop.send()
    assert sorted(mail["channel"] for mail in house.mails()) == ["email", "sms"]
    house.confirm(house.way_in(by_mail))

    assert house.state("sms") == ("pending", False)
    house.confirm(house.way_in(by_text, channel="sms"))
    assert house.state("sms") == ("granted", True)


def test_the_link_follows_a_merge(house: House) -> None:
    with house.database.begin() as connection:
        ben = add_person(connection, house.key_ring, "ben", granted=())
    way_in = house.way_in(house.request("ben"), ben)
    with house.database.begin() as connection:  # anna loses her address, so ben's becomes the survivor's
        connection.execute(text("UPDATE contact SET email_address_id = NULL WHERE id = :id"), {"id": house.anna})
        identity.merge(connection, house.key_ring, house.anna, ben)

    assert house.confirm(way_in).contact_id == house.anna
    assert house.state() == ("granted", True)
    assert house.confirm(way_in).used


@pytest.mark.parametrize("first", ["confirm", "withdraw"])
def test_of_a_click_and_an_unsubscribe_the_no_holds_in_either_order(house: House, first: str) -> None:
    """Both wait for the same lock; whoever gets it first, the end is the same."""
    way_in = house.way_in(house.request())
    if first == "confirm":
        house.confirm(way_in)
        house.withdraw()
    else:
        house.withdraw()
        refused(house, way_in)
    assert house.state() == ("withdrawn", False)


def test_a_click_racing_an_unsubscribe_never_outlives_it(house: House) -> None:
    way_in = house.way_in(house.request())
    start = threading.Barrier(2)

    def click() -> None:
        start.wait()
        with suppress(BadToken):
            house.confirm(way_in)

    def leave() -> None:
        start.wait()
        house.withdraw()

    threads = [threading.Thread(target=work) for work in (click, leave)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert house.state() == ("withdrawn", False)


# --- over HTTP


@pytest.fixture
def web(house: House) -> Iterator[Web]:
    with serving(house.database, house.key_ring, house.shop.home) as web:
        yield web


@pytest.fixture
def key(house: House) -> dict[str, str]:
    with house.database.begin() as connection:
        secret = api_keys.create(connection, "shop", ["consents:write"])
    return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}


def link_of(mail: dict[str, Any]) -> str:
    return "/d/" + str(mail["text"]).partition("/d/")[2].split(">")[0].split()[0]


def test_from_the_form_to_the_next_campaign(house: House, web: Web, key: dict[str, str]) -> None:
    asked = web.ask(
        "POST", "/v1/contacts/anna/consents",
        json.dumps({
            "channel": "email", "topic": TOPIC, "action": "request", "source": "newsletter form", "by": "person",
            "wording": {"id": "form-7", "language": "en", "text": "Yes, write me letters."}, "ip": "192.0.2.7",
        }), key,
    )  # fmt: skip
    assert (asked.status, asked.json["state"]) == (202, "pending")
    assert asked.json["confirmation"]["message"]
    house.shop.send()
    [mail] = house.mails()
    path = link_of(mail)
    before = everything(house.database)
    pages = [web.ask("HEAD" if number % 4 == 0 else "GET", path) for number in range(100)]
    assert {page.status for page in pages} == {200}
    assert pages[1].text.count("<button") == pages[1].text.count("<form") == 1
    assert "Letters" in pages[1].text
    assert everything(house.database) == before

    house.shop.campaign("letter")  # before the click
    assert (
        house.one(
            """SELECT m.reason || ' ' || (m.facts->>'because') FROM message m JOIN run r ON r.id = m.run_id
           WHERE r.name = 'letter'"""
        )
        == "NO_CONSENT not confirmed yet"
    )

    clicked = web.ask("POST", path, headers={"Accept": "text/html", "User-Agent": "Firefox", "Accept-Language": "de"})
    assert clicked.status == 200
    assert "Danke, das ist bestätigt" in clicked.text
    assert "Briefe" in clicked.text
    assert "a•••@p•••.example" in clicked.text
    assert "Thank you, it is confirmed" in web.ask("GET", path, headers={"Accept-Language": "en"}).text

    house.shop.campaign("letter")
    assert [each["subject"] for each in house.mails()] == ["Confirm Letters", "For you"]


def test_every_bad_link_gets_the_same_answer(house: House, web: Web) -> None:
    way_in = house.way_in(house.request())
    tokens = OptInTokens(house.key_ring)
    true, foreign = tokens.make(way_in), UnsubscribeTokens(house.key_ring).make(house.anna, "email", TOPIC, 1)
    house.withdraw()  # voids the true one
    bad = [true, foreign, true[:-1], "x", "a" * 400, tokens.make(replace(way_in, request_id=9_999))]

    for method in ("GET", "POST"):
        answers = [web.ask(method, f"/d/{token}", headers={"Accept": "text/html"}) for token in bad]
        assert {answer.status for answer in answers} == {404}
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].text == web.ask(method, "/u/x", headers={"Accept": "text/html"}).text
    assert web.ask("GET", f"/u/{true}").status == 404  # each kind opens its own door only


def test_looking_cannot_write_even_if_it_wanted_to(house: House, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    token = OptInTokens(house.key_ring).make(house.way_in(house.request()))
    look = opt_in.look

    def write(connection: Connection, way_in: WayIn) -> opt_in.Offer:
        connection.execute(text("UPDATE contact SET locale = 'xx'"))
        return look(connection, way_in)

    monkeypatch.setattr(opt_in, "look", write)

    assert web.ask("GET", f"/d/{token}").status == 500


def test_an_unsubscribe_click_is_kept_with_where_it_came_from(house: House, web: Web) -> None:
    token = UnsubscribeTokens(house.key_ring).make(house.anna, "email", "offers", house.address(house.anna))

    assert web.ask("POST", f"/u/{token}", headers={"User-Agent": "Thunderbird"}).status == 200

    with house.database.connect() as connection:
        event = connection.execute(text("SELECT * FROM consent_event WHERE action = 'withdrawn'")).one()
        data_key = connection.scalar(text("SELECT data_key FROM contact WHERE id = :id"), {"id": house.anna})
    assert house.key_ring.open_data_key(data_key).open(event.sealed) == {"ip": "127.0.0.1", "user_agent": "Thunderbird"}


def test_the_person_said_before_is_not_undone_by_saying_it_for_them(house: House) -> None:
    """A grant of an operator or an import after the withdrawal does not revive a link either."""
    way_in = house.way_in(house.request())
    house.withdraw()
    with house.database.begin() as connection:
        say(connection, house.key_ring, house.anna, [("email", TOPIC, "requested")])

    refused(house, way_in)


def test_no_confirmation_token_is_ever_logged(house: House, web: Web, capfd: pytest.CaptureFixture[str]) -> None:
    token = OptInTokens(house.key_ring).make(house.way_in(house.request()))
    for method in ("GET", "POST", "GET"):
        web.ask(method, f"/d/{token}", headers={"User-Agent": "zqx-browser"})
    logged = "".join(capfd.readouterr())

    assert "/d/{token:path}" in logged
    assert token not in logged
    assert "zqx-browser" not in logged
