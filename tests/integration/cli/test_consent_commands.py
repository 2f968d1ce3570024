"""Consent and suppression on the command line."""

from __future__ import annotations

from pathlib import Path

from running import Run, audited
from sqlalchemy import Engine, text


def test_consent_is_shown_granted_and_withdrawn_for_good(shop: Run, database: Engine) -> None:
    def states(contact: str) -> dict[str, str]:
        return {held["topic"]: held["state"] for held in shop("consent", "show", contact, "--json").json}

    assert shop("consent", "grant", "silent", "--topic", "offers", "--source", "paper form").code == 0
    assert states("silent") == {"offers": "granted"}
    assert shop("explain", "silent", "hello", "--json").json["verdict"] == "send"

    assert shop("consent", "withdraw", "silent", "--source", "phone call").code == 0
    assert states("silent") == {"offers": "withdrawn", "letters": "withdrawn"}
    refused = shop("consent", "grant", "silent", "--topic", "offers")
    assert refused.code == 1
    assert "only their own later act can grant it again" in refused.err
    assert states("silent")["offers"] == "withdrawn"
    assert [action for action, _ in audited(database)][-2:] == ["consent.grant", "consent.withdraw"]


def test_a_purchase_is_granted_until_it_expires_where_the_topic_accepts_it(shop: Run) -> None:
    bought = ("consent", "grant", "silent", "--topic", "offers", "--basis", "implied_purchase", "--source", "order 7")
    refused = shop(*bought, "--since", "2026-01-31")
    assert (refused.code, "does not accept implied_purchase" in refused.err) == (1, True)

    toml = Path("dispatcher.toml")
    toml.write_text(toml.read_text().replace("[topics.offers]", '[topics.offers]\nbases = ["implied_purchase"]'))
    assert shop("apply").code == 0
    assert "until 2028-01-31" in shop(*bought, "--since", "2026-01-31").err
    assert shop("explain", "silent", "hello", "--json").json["verdict"] == "send"
    [gate] = [
        gate
        for gate in shop("explain", "silent", "hello", "--as-of", "2028-01-31", "--json").json["gates"]
        if gate["gate"] == "NO_CONSENT"
    ]
    assert (gate["verdict"], gate["facts"]["because"]) == ("skip", "no longer in force")
    assert (gate["facts"]["basis"], gate["facts"]["expires_at"]) == ("implied_purchase", "2028-01-31T00:00:00.000000Z")


def test_a_request_needs_something_to_ask_with_and_then_waits(shop: Run, database: Engine) -> None:
    assert "add it to templates/" in shop("consent", "request", "silent", "--topic", "letters").err

    folder = Path("templates/email/opt-in-confirmation")
    folder.mkdir()
    for name, content in {
        "meta.yaml": "class: transactional\n", "subject.txt": "Sure?\n", "body.txt": "Yes: {{ confirm_url }}\n"
    }.items():  # fmt: skip
        (folder / name).write_text(content)
    assert shop("apply").code == 0
    asked = shop("consent", "request", "silent", "--topic", "letters", "--source", "phone")
    assert (asked.code, asked.out) == (0, "pending: letters on email\n")
    again = shop("consent", "request", "silent", "--topic", "letters")
    assert again.code == 0
    assert "nothing is sent: a confirmation was asked for less than 24 hours ago" in again.err
    assert "/d/preview" in shop("template", "preview", "opt-in-confirmation", "silent").out
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM message")) == 1


def test_the_evidence_is_exported_as_a_private_page_and_as_json(shop: Run, tmp_path: Path) -> None:
    page = tmp_path / "evidence.html"
    page.write_text("an older one")
    page.chmod(0o644)

    assert shop("consent", "export", "agreed", "--html", str(page)).code == 0
    assert page.stat().st_mode & 0o777 == 0o600
    assert "agreed@people.example" in page.read_text()
    assert shop("consent", "export", "agreed").out.startswith("<!doctype html>")
    exported = shop("consent", "export", "agreed", "--json").json
    assert exported["chain"]["verified"] is True
    assert [event["action"] for event in exported["events"]] == ["granted"]
    assert shop("consent", "export", "nobody").code == 1
    assert "cannot be written" in shop("consent", "export", "agreed", "--html", str(tmp_path)).err


def test_who_has_no_address_can_still_withdraw(shop: Run) -> None:
    assert shop("consent", "withdraw", "mailless", "--topic", "offers").code == 0
    assert [held["state"] for held in shop("consent", "show", "mailless", "--json").json] == ["withdrawn"]
    assert "has no address for email" in shop("consent", "grant", "mailless", "--topic", "letters").err


def test_an_address_is_suppressed_and_let_go(shop: Run) -> None:
    assert shop("suppression", "add", "Agreed@People.Example").code == 0
    (listed,) = shop("suppression", "list", "--json").json
    assert (listed["channel"], listed["reason"], listed["scope"]) == ("email", "operator", "all")
    assert "people.example" not in shop("suppression", "list").out
    assert shop("explain", "agreed", "hello", "--json").json["reason"] == "SUPPRESSED"

    assert shop("suppression", "remove", "agreed@people.example").code == 0
    assert shop("suppression", "list", "--json").json == []
    assert shop("suppression", "remove", "agreed@people.example").code == 1
