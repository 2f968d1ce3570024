"""The evidence on one contact, as a lawyer reads it."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asking import WORKSPACE
from people import add_person
from small_workspace import write_workspace
from sqlalchemy import Connection, Engine, text

from dispatcher import clock, consent, evidence, opt_in, suppression, unsubscribe
from dispatcher.apply import apply
from dispatcher.consent import ConsentChange
from dispatcher.contacts import hold_contact
from dispatcher.content.plaintext import parse_html
from dispatcher.keys import KeyRing
from dispatcher.shop import load_shop
from dispatcher.tokens import WayIn, WayOut
from dispatcher.workspace import read_workspace

GOLDEN = Path(__file__).parents[1] / "golden"
#: What is of this moment alone.
_INSTANT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_HASH = re.compile(r"\b[0-9a-f]{64}\b|\bt1-[0-9a-f]{64}")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
THEN = datetime(2024, 2, 29, 9, 30, tzinfo=UTC)


@pytest.fixture
def anna(database: Engine, key_ring: KeyRing, tmp_path: Path) -> int:
    """Somebody with a history: an import, a confirmed opt-in, a purchase, an unsubscribe, a hostile form."""
    files = {**WORKSPACE, "dispatcher.toml": _with_bases(str(WORKSPACE["dispatcher.toml"]))}
    with database.begin() as connection:
        apply(connection, read_workspace(write_workspace(tmp_path / "workspace", files)), by="test")
        anna = add_person(connection, key_ring, "anna", granted=(), locale="en-GB", phone="+447700900001")
        held = hold_contact(connection, key_ring, "anna", "email")
        told = ConsentChange(
            anna, "email", "offers", "granted", "import", "checkout (file:0123456789abcdef:2)", THEN, held.address_id,
            opt_in_level="single_opt_in",
            wording={"id": "box-3", "language": "en", "text": '<b>Yes</b> & "write" me'},
        )  # fmt: skip
        bought = ConsentChange(
            anna, "sms", "offers", "granted", "shop", "order 536365", THEN,
            hold_contact(connection, key_ring, "anna", "sms").address_id, basis="implied_purchase",
        )  # fmt: skip
        consent.record(connection, key_ring, [told, bought], now=clock.read_now(connection))
        asked = opt_in.request(
            connection, key_ring, load_shop(connection), held, "letters", actor="person", source="form <script>",
            sealed={"ip": "192.0.2.7", "user_agent": "<Firefox>"},
        )  # fmt: skip
        connection.execute(text("UPDATE message SET status = 'sending', authorised_at = clock_timestamp()"))
        connection.execute(
            text("""UPDATE message SET status = 'sent', provider = 'sandbox', provider_ref = 'ref-1',
                           handed_over_at = clock_timestamp()""")
        )
        assert held.address_id is not None
        assert asked.request_id is not None
        way_in = WayIn(anna, "email", "letters", held.address_id, asked.request_id)
    with database.begin() as connection:
        opt_in.confirm(connection, key_ring, way_in, sealed={"ip": "2001:db8::7", "user_agent": "Firefox"})
    unsubscribe.withdraw(
        database, key_ring, WayOut(anna, "email", "offers", held.address_id), source="unsubscribe link"
    )
    with database.begin() as connection:
        suppression.add(connection, held.address_id, "hard_bounce", source="provider:sandbox")
    return anna


def _with_bases(toml: str) -> str:
    return toml.replace(
        'channels = ["email", "sms"]\n', 'channels = ["email", "sms"]\nbases = ["implied_purchase"]\n', 1
    )


def gather(connection: Connection, key_ring: KeyRing, contact: str = "anna") -> dict[str, Any]:
    return evidence.gather(connection, key_ring, contact, by="test")


def test_the_page_is_as_reviewed(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    page = evidence.to_html(gather(connection, key_ring))

    page = _UUID.sub("UUID", _HASH.sub("HASH", _INSTANT.sub("INSTANT", page)))
    golden = GOLDEN / "consent-evidence.html"
    if os.environ.get("DISPATCHER_WRITE_GOLDEN"):
        golden.write_text(page, encoding="utf-8")
    assert page == golden.read_text(encoding="utf-8")


def test_the_page_needs_nothing_and_runs_nothing(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    page = evidence.to_html(gather(connection, key_ring))
    tree = parse_html(page)

    assert tree is not None
    assert not re.search(r"<script|<link|<img|@import|url\(|\son\w+=", page)
    assert "form &lt;script&gt;" in page
    assert "&lt;b&gt;Yes&lt;/b&gt; &amp; &#34;write&#34; me" in page


def test_every_piece_is_there_in_order_with_what_proves_it(
    connection: Connection, key_ring: KeyRing, anna: int
) -> None:
    found = json.loads(json.dumps(gather(connection, key_ring)))

    assert found["chain"]["verified"]
    assert found["chain"]["newest"]["hash"] == found["events"][-1]["hash"]
    assert [(e["topic"], e["channel"], e["action"], e["actor"]) for e in found["events"]] == [
        ("offers", "email", "granted", "import"), ("offers", "sms", "granted", "shop"),
        ("letters", "email", "requested", "person"), ("letters", "email", "granted", "person"),
        ("offers", "email", "withdrawn", "person"),
    ]  # fmt: skip
    told, bought, asked, confirmed, _ = found["events"]
    assert told["wording"]["text"] == '<b>Yes</b> & "write" me'
    assert told["address"] == "anna@people.example"
    assert asked["seen"] == {"ip": "192.0.2.7", "user_agent": "<Firefox>"}
    assert asked["confirmation"]["message"] == confirmed["confirmation"]["message"]
    assert confirmed["confirmation"]["provider_ref"] == "ref-1"
    assert confirmed["confirmation"]["sent_at"] is not None
    assert confirmed["wording"]["text"].startswith("Confirm {{ topic.title }}")
    assert bought["basis"] == "implied_purchase"
    assert asked["hash"] == confirmed["previous_hash"]
    states = {(s["channel"], s["topic"]): s for s in found["states"]}
    assert states["sms", "offers"]["expires_at"] == "2026-02-28T09:30:00.000000Z"
    assert not states["sms", "offers"]["in_force"]
    assert states["email", "letters"]["in_force"]
    assert [one["answer"] for one in found["unsubscribes"]] == [200]
    assert [one["reason"] for one in found["suppressions"]] == ["hard_bounce"]


def test_a_forged_chain_is_said_on_the_page(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    connection.execute(text("UPDATE consent_event SET action = 'granted' WHERE action = 'withdrawn'"))

    page = evidence.to_html(gather(connection, key_ring))

    assert "The chain of evidence is broken" in page
    assert "was changed after it was written" in page


def test_whoever_looks_is_in_the_audit(connection: Connection, key_ring: KeyRing, anna: int) -> None:
    gather(connection, key_ring)

    assert connection.execute(
        text("SELECT actor, subject FROM audit WHERE action = 'consent.export'")
    ).one() == ("test", str(anna))  # fmt: skip


def test_a_former_address_is_a_hash_and_a_stranger_is_refused(
    connection: Connection, key_ring: KeyRing, anna: int
) -> None:
    connection.execute(text("UPDATE contact SET email_address_id = NULL WHERE id = :id"), {"id": anna})

    event = gather(connection, key_ring)["events"][0]

    assert (event["address"], len(event["address_hash"])) == (None, 64)
    with pytest.raises(Exception, match="there is no contact"):
        gather(connection, key_ring, "nobody")
