"""The brake, `verify`, `doctor` and `migrate` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from name_server import name_server
from running import Run
from sqlalchemy import Engine, text


def test_the_brake_holds_until_it_is_lifted(shop: Run) -> None:
    shop("stop-all")
    assert shop("explain", "agreed", "hello", "--json").json["reason"] == "OPERATOR"
    assert "nothing leaves until dispatcher go-on" in shop("doctor").out.replace("\n", " ")

    shop("go-on")
    assert shop("explain", "agreed", "hello", "--json").json["verdict"] == "send"


def test_verify_ends_with_one_if_a_promise_is_broken(shop: Run, database: Engine) -> None:
    sound = shop("verify", "--json")
    assert (sound.code, sound.json["ok"]) == (0, True)

    shop("campaign", "start", "hello", "--yes")
    with database.begin() as connection:
        connection.execute(text("UPDATE run SET audience = audience + 1"))
    broken = shop("verify")
    assert broken.code == 1
    assert "INV-2" in broken.out


def test_the_doctor_finds_what_is_wrong(run: Run) -> None:
    found = {check["name"]: check["verdict"] for check in run("doctor", "--json").json}

    assert (found["database"], found["keys"], found["workspace"], found["broker"]) == ("ok", "ok", "look", "wrong")
    assert run("doctor").code == 1  # the broker does not answer


def test_the_doctor_says_what_to_do_about_what_it_finds(shop: Run, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE campaign SET fire_error = 'no segment fans' WHERE name = 'hello'"))
    found = {check["name"]: check for check in shop("doctor", "--offline", "--json").json}

    assert found["schedules"]["verdict"] == "wrong"
    assert "hello cannot be fired: no segment fans" in found["schedules"]["detail"]
    assert found["postal address"]["verdict"] == "ok"
    assert found["secret keys"]["verdict"] == "ok"
    assert all(check["to_do"] for check in found.values() if check["verdict"] == "wrong")
    assert "tried again by itself" in " ".join(shop("doctor", "--offline").out.split())


def test_offline_the_doctor_asks_nobody(shop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr("dispatcher.doctor.look_side_by_side", refuse)
    found = {check["name"]: check["verdict"] for check in shop("doctor", "--offline", "--json").json}

    assert found["network"] == "ok"
    assert "SPF" not in found


def test_the_doctor_asks_the_name_server_it_is_told_about_the_senders_domain(
    shop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"name": "sender", "verdict": "look"}.items() <= next(
        check for check in shop("doctor", "--json").json if check["name"] == "sender"
    ).items()  # small.example is nobody's, and is not asked for

    monkeypatch.setenv("DISPATCHER_FROM_EMAIL", "hello@shop-of-ours.eu")
    texts = {"shop-of-ours.eu": "v=spf1 ip4:192.0.2.1 -all", "_dmarc.shop-of-ours.eu": "v=DMARC1; p=none"}
    with name_server(texts) as dns:
        found = {check["name"]: check for check in shop("doctor", "--nameserver", dns.address, "--json").json}

    assert (found["SPF"]["verdict"], found["DMARC"]["verdict"], found["MX"]["verdict"]) == ("ok", "look", "look")
    assert found["email provider"]["detail"] == "the sandbox reaches nobody"


def test_the_doctor_looks_at_a_mail_that_was_received(run: Run, tmp_path: Path) -> None:
    (tmp_path / "received.eml").write_text("From: hello@shop.test\nSubject: Hi\n\nHello")
    looked = run("doctor", "--mail", str(tmp_path / "received.eml"), "--offline")

    assert looked.code == 1
    assert "the mail is not signed" in looked.out
    assert run("doctor", "--mail", str(tmp_path / "nothing.eml")).err.count("\n") == 1


def test_migrating_twice_does_nothing(run: Run) -> None:
    first = run("migrate")

    assert first.code == 0
    assert run("migrate").err == first.err
