"""PUT and GET /v1/contacts/{external_id}: the rules of an import, one at a time and all or nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from small_workspace import write_workspace
from sqlalchemy import Engine, text
from web_server import Answer, Web, serving

from dispatcher import api_keys
from dispatcher.apply import apply
from dispatcher.contacts import Particulars, save_contact
from dispatcher.contacts.telling import tell
from dispatcher.keys import KeyRing
from dispatcher.web.v1.contact_told import Contact
from dispatcher.workspace import read_workspace

ANA = {"email": "Ana@Shop.Example", "first_name": "Ana", "country": "GB", "timezone": "Europe/London"}


@pytest.fixture
def web(database: Engine, key_ring: KeyRing, tmp_path: Path) -> Iterator[Web]:
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace")), by="test")
    with serving(database, key_ring, tmp_path / "home") as web:
        yield web


@pytest.fixture
def key(database: Engine) -> str:
    with database.begin() as connection:
        return api_keys.create(connection, "shop", ["contacts:read", "contacts:write"])


@pytest.fixture
def seer(database: Engine) -> str:
    with database.begin() as connection:
        return api_keys.create(connection, "seer", ["contacts:read", "personal:read"])


def put(web: Web, key: str, external_id: str, body: Any, **headers: str) -> Answer:
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.ask("PUT", f"/v1/contacts/{external_id}", json.dumps(body), sent | more)


def get(web: Web, key: str, external_id: str) -> Answer:
    return web.ask("GET", f"/v1/contacts/{external_id}", headers={"Authorization": f"Bearer {key}"})


def count(database: Engine, table: str) -> int:
    with database.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def test_a_contact_is_made_then_changed_then_left_alone(web: Web, key: str) -> None:
    made = put(web, key, "c1", ANA)
    changed = put(web, key, "c1", {"contact_id": "c1", "last_name": "Silva", "zone": "Europe/London"})
    again = put(web, key, "c1", {"last_name": "Silva"})

    assert [(a.status, a.json["outcome"]) for a in (made, changed, again)] == [
        (201, "created"), (200, "changed"), (200, "unchanged"),
    ]  # fmt: skip
    assert made.header("ETag") != changed.header("ETag") == again.header("ETag")
    assert changed.json["timezone"] == "Europe/London"  # what is left out stays


def test_personal_fields_are_masked_unless_the_key_may_read_them(
    database: Engine, web: Web, key: str, seer: str
) -> None:
    assert put(web, key, "c1", ANA).json["email"] == "a•••@s•••.example"
    assert (get(web, key, "c1").json["email"], get(web, key, "c1").json["masked"]) == ("a•••@s•••.example", True)

    seen = get(web, seer, "c1").json
    assert (seen["email"], seen["first_name"], seen["masked"]) == ("ana@shop.example", "Ana", False)
    with database.connect() as connection:
        audited = connection.execute(text("SELECT actor, action FROM audit WHERE action LIKE 'contact%' ORDER BY id"))
        assert [tuple(row) for row in audited] == [("key:shop", "contact.created"), ("key:seer", "contact.reveal")]


def test_a_field_that_cannot_be_taken_is_named_and_nothing_is_saved(database: Engine, web: Web, key: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"email": "nobody"}, "body.email"),
        ({"phone": "12"}, "body.phone"),
        ({"country": "Narnia"}, "body.country"),
        ({"timezone": "Mars/Base"}, "body.timezone"),
        ({"locale": "??"}, "body.locale"),
        ({"subdivision": "???"}, "body.subdivision"),
        ({"first_name": 7}, "body.first_name"),
        ({"first_name": "x" * 1001}, "body.first_name"),
        ({"attributes": {"a.b": "x"}}, "body.attributes.a.b"),
        ({"attributes": {"n": 1e300}}, "body.attributes.n"),
        ({"attributes": {"n": []}}, "body.attributes.n"),
        ({"email_consent": "perhaps"}, "body.email_consent"),
        ({"email_consent": "subscribed", "topic": "nothing"}, "body.email_consent"),
        ({"sms_consent": "subscribed"}, "body.sms_consent"),
        ({"email_consent": "subscribed", "email_consent_at": "soon"}, "body.email_consent_at"),
        ({"contact_id": "c2"}, "body.contact_id"),
        ({"surprise": 1}, "body.surprise"),
    ]
    for change, field in wrong:
        answer = put(web, key, "c1", ANA | change)

        assert (answer.status, answer.header("Content-Type")) == (422, "application/problem+json"), change
        assert any(one["field"].startswith(field) for one in answer.json["errors"]), (field, answer.json)
        assert "Narnia" not in answer.text
    assert (count(database, "contact"), count(database, "consent_event")) == (0, 0)


def test_null_blanks_a_field_and_an_address_that_is_gone_takes_its_consent_along(
    database: Engine, web: Web, key: str, seer: str
) -> None:
    put(web, key, "c1", ANA | {"email_consent": "subscribed", "attributes": {"tier": "gold", "size": 42}})
    put(web, key, "c1", {"email": None, "timezone": None, "attributes": {"tier": None}})

    seen = get(web, seer, "c1").json
    assert (seen["email"], seen["timezone"], seen["attributes"]) == (None, None, {"size": 42})
    assert [held["for_present_address"] for held in seen["consent"]] == [False, False]
    with database.connect() as connection:
        assert connection.scalar(text("SELECT email_address_id FROM contact")) is None
    assert put(web, key, "c2", ANA).json["outcome"] == "created"  # nobody holds the address any more


def test_one_address_is_one_contact_and_the_answer_says_so(database: Engine, web: Web, key: str) -> None:
    put(web, key, "c1", ANA)
    alias = put(web, key, "c2", ANA | {"first_name": "Anna", "last_name": "Silva"})
    put(web, key, "c3", {"first_name": "Annie"})
    merged = put(web, key, "c3", {"email": "ana@shop.example"})

    assert (alias.status, alias.json["outcome"], alias.json["contact"]) == (200, "merged", "c1")
    assert (merged.json["outcome"], merged.json["also_known_as"]) == ("merged", ["c2", "c3"])
    assert get(web, key, "c3").json["contact"] == "c1"
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM contact WHERE merged_into IS NULL")) == 1


def test_consent_said_here_is_the_shops_record_and_undoes_no_withdrawal(database: Engine, web: Web, key: str) -> None:
    body = ANA | {"email_consent": "subscribed", "topic": "offers", "email_consent_source": "checkout",
                  "email_consent_at": "2026-01-02T03:04:05Z"}  # fmt: skip
    held = put(web, key, "c1", body).json["consent"]
    again = put(web, key, "c1", body)
    withdrawn = put(web, key, "c1", {"email_consent": "unsubscribed", "topic": "offers"}).json["consent"]
    after = put(web, key, "c1", body).json["consent"]

    assert [(one["topic"], one["state"], one["source"]) for one in held] == [
        ("offers", "granted", "checkout (api:shop)")
    ]
    assert (again.status, count(database, "consent_event")) == (200, 2)
    assert [one["state"] for one in withdrawn + after] == ["withdrawn", "withdrawn"]
    with database.connect() as connection:
        assert set(connection.scalars(text("SELECT DISTINCT actor FROM consent_event"))) == {"shop"}


def test_what_was_read_is_what_is_changed(web: Web, key: str) -> None:
    made = put(web, key, "c1", ANA, If_None_Match="*")
    seen = made.header("ETag") or ""
    other = put(web, key, "c1", {"timezone": "Europe/Paris"}, If_Match=seen)  # rendering would see no difference
    late = put(web, key, "c1", {"country": "FR"}, If_Match=seen)

    assert (made.status, other.status) == (201, 200)
    assert (late.status, late.header("Content-Type")) == (412, "application/problem+json")
    assert put(web, key, "c1", ANA, If_None_Match="*").status == 412
    assert put(web, key, "c2", ANA, If_Match="*").status == 412
    assert put(web, key, "c1", {"country": "FR"}, If_Match=other.header("ETag") or "").status == 200
    assert put(web, key, "c1", {"country": "GB"}, If_Match="3").status == 422
    assert get(web, key, "c1").json["country"] == "FR"


def test_racing_writes_of_one_person_make_one_contact(database: Engine, web: Web, key: str) -> None:
    at_once = threading.Barrier(4)

    def write(number: int) -> int:
        at_once.wait()
        return put(web, key, f"c{number % 2}", ANA, If_None_Match="*").status

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(write, range(4)))
    assert statuses == [200, 201, 412, 412]  # made; the other id is merged; each id's second is late
    assert count(database, "contact") == 1


def test_who_was_erased_is_not_taken_in_again(database: Engine, web: Web, key: str) -> None:
    put(web, key, "c1", ANA)
    with database.begin() as connection:
        connection.execute(
            text("""INSERT INTO suppression (address_id, reason, scope, source, order_seq, created_at)
                    SELECT email_address_id, 'erasure', 'marketing', 'test', 1, clock_timestamp() FROM contact""")
        )

    answer = put(web, key, "c9", ANA)
    assert answer.status == 409
    assert answer.json["detail"] == "the e-mail address belongs to somebody who was erased, and stays erased"
    assert count(database, "contact") == 1


def test_an_unknown_contact_is_404(web: Web, key: str) -> None:
    assert get(web, key, "nobody").status == 404


def test_what_is_told_of_a_contact_is_what_the_description_says(database: Engine, key_ring: KeyRing) -> None:
    with database.begin() as connection:
        saved = save_contact(connection, key_ring, Particulars("c1", "ana@shop.example"))
        told = tell(connection, key_ring, saved.contact_id or 0, reveal=False)

    assert told.keys() == Contact.model_fields.keys() - {"outcome"}  # which is of a PUT
