"""People on the command line: shown, exported, corrected, erased, and what is noted about it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from ledger_rows import add_message
from running import Run, audited
from sqlalchemy import Engine, text


def test_personal_data_is_masked_unless_it_is_revealed_and_that_is_audited(shop: Run, database: Engine) -> None:
    masked = shop("contact", "show", "agreed", "--json").json
    assert masked["email"] == "a•••@p•••.example"
    assert "contact.reveal" not in dict(audited(database))

    revealed = shop("contact", "show", "agreed", "--reveal", "--json").json
    assert revealed["email"] == "agreed@people.example"
    assert audited(database)[-1][0] == "contact.reveal"
    assert "agreed@people.example" not in shop("contact", "show", "agreed").out


def test_a_person_gets_everything_there_is_about_them_and_that_is_audited(shop: Run, database: Engine) -> None:
    told = shop("contact", "export", "agreed").out
    assert json.loads(told)["contact"]["email"] == "agreed@people.example"

    written = shop("contact", "export", "agreed", "--format", "html", "-o", "agreed.html")

    assert written.out == ""
    assert written.err == "agreed.html: 0 messages, 0 events, 1 consent evidence\n"
    page = Path("agreed.html")
    assert page.stat().st_mode & 0o777 == 0o600
    assert "agreed@people.example" in page.read_text(encoding="utf-8")
    assert [action for action, _ in audited(database)][-2:] == ["contact.export"] * 2
    assert "agreed@" not in str(audited(database))


def test_a_contact_is_corrected_and_the_audit_names_the_fields_only(shop: Run, database: Engine) -> None:
    done = shop("contact", "correct", "agreed", "--set", "email=New@People.example", "--set", "locale=pt-BR")
    assert (done.code, done.err) == (0, "changed: email, locale\n")

    told = shop("contact", "show", "agreed", "--reveal", "--json").json
    assert (told["email"], told["locale"]) == ("new@people.example", "pt-BR")
    assert shop("consent", "show", "agreed", "--json").json[0]["for_present_address"] is False
    [entry] = shop("audit", "list", "--action", "contact.correct", "--json").json
    assert entry["details"] == {"fields": ["email", "locale"]}
    assert shop("contact", "correct", "agreed", "--set", "locale=pt-BR").err == "unchanged: locale\n"
    assert shop("contact", "correct", "agreed", "--set", "locale=").err == "changed: locale\n"
    assert shop("contact", "show", "agreed", "--json").json["locale"] is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("shoe=44", "a contact has no field shoe; there are email, phone, first_name, last_name"),
        ("email=nobody", "email: is not an e-mail address"),
        ("zone=Nowhere", "timezone: is not a time zone"),
        (f"last_name={'B' * 201}", "last_name: is longer than 200 characters"),
    ],
)
def test_what_is_no_correction_is_refused(shop: Run, value: str, said: str) -> None:
    refused = shop("contact", "correct", "agreed", "--set", value)

    assert refused.code == 1
    assert refused.err.startswith(said)
    assert "nobody" not in refused.err


def test_a_person_is_erased_for_good_and_the_audit_has_the_proof(shop: Run) -> None:
    assert shop("contact", "erase", "agreed").err.endswith("Nobody is at a terminal to answer; say --yes\n")
    assert shop("contact", "show", "agreed", "--json").json["erasure"] is None

    assert shop("contact", "erase", "agreed", "--yes").err.startswith("erased at ")
    assert shop("contact", "erase", "agreed").err.startswith("erased at ")
    assert shop("contact", "erase", "agreed", "--json").json["state"] == "done"
    Path("proofs.json").write_text(shop("audit", "list", "--action", "erasure.done", "--json").out)
    again = shop("contact", "erase-again", "proofs.json", "--json").json
    assert again == {"proofs": 1, "erased": 0, "suppressed": 0, "in_progress": 0}

    told = shop("contact", "show", "agreed", "--json").json
    assert (told["erasure"]["state"], told["email"]) == ("done", None)
    actions = [entry["action"] for entry in shop("audit", "list", "--action", "erasure", "--json").json]
    assert actions == ["erasure.requested", "erasure.done"]
    assert "erasure.done" in shop("audit", "list", "--contact", "agreed").out


def test_an_erasure_waits_for_what_is_in_flight(shop: Run, database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.rights.finishing.LONGEST_WAIT", timedelta(0))
    with database.begin() as connection:
        row = connection.execute(
            text("SELECT id, email_address_id FROM contact WHERE external_id = 'agreed'")
        ).one()  # fmt: skip
        add_message(connection, row.id, row.email_address_id, status="sending")

    assert shop("contact", "erase", "agreed", "--yes").err.startswith("in progress")
    assert shop("contact", "show", "agreed", "--json").json["erasure"]["state"] == "in progress"
    with database.begin() as connection:
        connection.execute(text("UPDATE erasure SET requested_at = requested_at - interval '11 minutes'"))
        connection.execute(text("UPDATE campaign SET active = false WHERE definition = '{}'"))
    [erasures] = [check for check in shop("doctor", "--offline", "--json").json if check["name"] == "erasures"]
    assert (erasures["verdict"], erasures["detail"]) == ("look", "1 in progress, one of them for over 10 minutes")


def test_what_is_kept_too_long_is_shown_and_taken(shop: Run) -> None:
    told = shop("retention", "--dry-run", "--json").json
    assert told["dry_run"] is True
    assert {rule["name"]: rule["kept_days"] for rule in told["rules"]}["events"] == 1100
    assert shop("audit", "list", "--action", "retention", "--json").json == []

    assert "events of providers as they came" in shop("retention").out
    assert len(shop("audit", "list", "--action", "retention", "--json").json) == 1


def test_who_touches_the_audit_is_found(shop: Run, database: Engine) -> None:
    whole = shop("audit", "verify")
    assert whole.code == 0
    assert "each as it was written; the newest link is " in whole.out
    told = shop("audit", "verify", "--json").json
    assert (told["ok"], told["not_linked"], told["findings"]) == (True, 0, [])

    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE audit SET actor = 'somebody else' WHERE id = 1"))

    assert shop("audit", "verify").out == "audit entry 1 was changed after it was linked\n"
    assert shop("audit", "verify").code == 1
    assert shop("verify").code == 1


def test_a_contacts_pause_and_quiet_hours_are_shown(shop: Run, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(
            text("""UPDATE contact SET paused_until = '2100-01-01Z', quiet_hours =
                    '[{"hours": "22:00-08:00", "days": ["mon", "tue"]}, {"hours": "00:00-24:00", "days": ["sun"]}]'
                    WHERE external_id = 'agreed'""")
        )

    assert shop("contact", "show", "agreed", "--json").json["quiet_hours"] == ["22:00-08:00 mon tue", "00:00-24:00 sun"]
    assert "2100-01-01" in shop("contact", "show", "agreed").out
    assert "22:00-08:00 mon tue; 00:00-24:00 sun" in shop("contact", "show", "agreed").out
    assert shop("contact", "show", "silent", "--json").json["quiet_hours"] == []
