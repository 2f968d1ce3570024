"""Templates, files that come in, and keys on the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from running import Run, audited
from sqlalchemy import Engine

from dispatcher import replies
from dispatcher.feedback.inbox import Mail
from dispatcher.keys import KeyRing


def test_templates_are_checked_and_previewed(shop: Run, database: Engine) -> None:
    checked = shop("template", "check", "--json")
    assert (checked.code, checked.json) == (0, {"errors": [], "warnings": []})
    previewed = shop("template", "preview", "christmas", "agreed", "--json").json
    assert previewed["subject"] == "For you"
    assert "Hello Firstagreed" in previewed["text"]
    assert ["List-Unsubscribe-Post", "List-Unsubscribe=One-Click"] in previewed["headers"]
    assert shop("template", "preview", "christmas", "agreed", "--html").out.startswith("<html")
    assert audited(database)[-1] == ("template.preview", "email/christmas")

    Path("templates/email/christmas/body.html").write_text("<html lang='en'><p>{{ contact.frist }}</p></html>")
    broken = shop("template", "check", "christmas")
    assert broken.code == 1
    assert broken.out.startswith("templates/email/christmas/body.html:1: contact.frist is not known")
    assert shop("template", "check", "order").code == 0
    assert shop("template", "check", "nothing").code == 1


def test_a_preview_takes_the_data_a_shop_would_send(shop: Run) -> None:
    Path("templates/email/order/body.html").write_text("<html lang='en'><p>Order {{ data.number }}</p></html>")
    Path("data.json").write_text('{"number": "A-1"}')
    shop("apply")

    assert "Order A-1" in shop("template", "preview", "order", "agreed", "--data", "data.json").out
    assert shop("template", "preview", "order", "agreed", "--data", "campaigns/hello.yaml").code == 1


def test_a_test_message_goes_through_the_provider(shop: Run, database: Engine, tmp_path: Path) -> None:
    assert shop("template", "send", "christmas", "--to", "me@people.example").code == 0

    (line,) = (tmp_path / "home" / "sandbox" / "outbox.jsonl").read_text().splitlines()
    sent = json.loads(line)
    assert (sent["to"], sent["subject"], sent["run"]) == ("me@people.example", "For you", None)
    assert audited(database)[-1] == ("template.send", "email/christmas")
    assert shop("template", "send", "christmas", "--to", "nonsense").code == 1


def test_files_come_in_with_a_report_and_what_is_set_aside(shop: Run, database: Engine) -> None:
    Path("people.csv").write_text(
        "Kunde,E-Mail,email_consent,email_consent_at\nk1,k1@people.example,subscribed,2026-01-02T03:04:05Z\nk2,nonsense,,\n"
    )
    Path("events.jsonl").write_text(
        '{"source_key": "1", "contact": "k1", "name": "order.placed", "occurred_at": "2026-01-03T00:00:00Z",'
        ' "items": [{"interest": "christmas"}]}\nnonsense\n'
    )

    came = shop("import", "contacts", "people.csv", "--map", "Kunde=contact_id", "--map", "E-Mail=email", "--json")
    assert came.code == 0
    assert came.json["created"] >= 1
    assert came.json["read"] == 2
    events = shop("import", "events", "events.jsonl", "--json")
    assert (events.code, events.json["new"], events.json["rejected"]) == (0, 1, 1)
    assert "set aside, with line and reason: events.rejected.csv" in events.err
    assert "not JSON" in Path("events.rejected.csv").read_text()
    assert shop("segment", "count", "fans").out == "1\n"
    assert [action for action, _ in audited(database)][-2:] == ["contacts.import", "events.import"]


def test_contacts_need_the_shop_s_topics_first(run: Run) -> None:
    Path("people.csv").write_text("contact_id\nk1\n")

    assert "dispatcher apply" in run("import", "contacts", "people.csv").err


def test_a_key_is_shown_once(shop: Run) -> None:
    made = shop("key", "create", "backend", "--scope", "messages:write")
    assert made.out.startswith("dsp_")
    (listed,) = shop("key", "list", "--json").json
    assert (listed["name"], listed["scopes"], listed["revoked_at"]) == ("backend", ["messages:write"], None)
    assert shop("key", "revoke", "backend").code == 0
    assert shop("key", "list", "--json").json[0]["revoked_at"].endswith("Z")
    assert made.out.strip() not in shop("key", "list").out


def test_a_key_gets_a_new_secret_a_limit_and_an_end(shop: Run) -> None:
    made = shop("key", "create", "backend", "--rate", "600", "--expires-after", "90d")
    rotated = shop("key", "rotate", "backend", "--grace", "2h")
    (listed,) = shop("key", "list", "--json").json

    assert rotated.out.startswith("dsp_")
    assert rotated.out != made.out
    assert "the old secret opens for 2h more" in rotated.err
    assert listed["requests_per_minute"] == 600
    assert listed["expires_at"] > listed["previous_until"] > listed["created_at"]
    assert shop("key", "rotate", "backend", "--grace", "soon").code == 2
    assert shop("key", "create", "other", "--expires-after", "0s").code == 1


def test_bounces_come_in_and_texts_are_reviewed(run: Run, database: Engine, key_ring: KeyRing, tmp_path: Path) -> None:
    (tmp_path / "bounces.json").write_text('[{"email": "a@b.example", "status": "550", "reason": "550 5.1.1 no"}]')
    assert run("import", "bounces", str(tmp_path / "bounces.json"), "--json").json["reports"] == {"bounced (hard)": 1}
    assert run("import", "bounces", str(tmp_path / "nothing")).code == 1

    form = b"MessageSid=SM1&From=%2B447700900123&Body=please+stop+texting+me"
    replies.take(database, key_ring, Mail("twilio.inbound", form, "", "", datetime.now(UTC)))
    [waiting] = run("review", "list", "--json").json
    assert waiting["text"] == "please stop texting me"
    assert "please stop" in run("review", "list").out

    assert run("review", "settle", str(waiting["id"])).code == 2
    assert run("review", "settle", str(waiting["id"]), "--not-stop").code == 0
    again = run("review", "settle", str(waiting["id"]), "--stop")
    assert (again.code, again.err.strip()) == (1, f"reply {waiting['id']} was reviewed already: not_stop")
    assert run("suppression", "list", "--json").json[0]["reason"] == "hard_bounce"
