"""Settings are refused in one clear line, and never show a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dispatcher.doctor.installation import check_settings
from dispatcher.errors import InvalidDefinition
from dispatcher.providers import failovers_for, providers_for
from dispatcher.rooms import environment_of
from dispatcher.settings import load_settings

SECRET = "a-secret-of-ours"
HTTPS = "https://shop.example"
SENDGRID = {"email_provider": "sendgrid", "sendgrid_api_key": SECRET, "public_url": HTTPS}
TWILIO = {
    "sms_provider": "twilio", "twilio_account_sid": "AC" + "0" * 32, "twilio_auth_token": SECRET,
    "twilio_messaging_service_sid": "MG" + "0" * 32, "public_url": HTTPS,
}  # fmt: skip
SMTP = {"email_provider": "smtp", "smtp_url": f"smtps://shop:{SECRET}@mail.example", "public_url": HTTPS}


def refusals(settings: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidDefinition) as error:
        load_settings(**settings)
    assert SECRET not in str(error.value)
    return error.value.findings


@pytest.mark.parametrize("settings", [SENDGRID, TWILIO, SMTP, SENDGRID | TWILIO])
def test_a_provider_with_all_it_needs_is_made(settings: dict[str, Any], tmp_path: Path) -> None:
    loaded = load_settings(**settings, home=tmp_path)
    providers = providers_for(loaded)

    assert not loaded.sandbox_only
    assert {p.name for p in providers.values()} == {loaded.email_provider, loaded.sms_provider}
    assert SECRET not in repr(loaded)
    assert SECRET not in repr({name: vars(provider) for name, provider in providers.items() if name == "smtp"})


@pytest.mark.parametrize(
    ("settings", "missing"),
    [(SENDGRID, "sendgrid_api_key"), (SMTP, "smtp_url"), *((TWILIO, name) for name in TWILIO if "twilio_" in name)],
)
def test_a_credential_that_is_missing_is_one_clear_line(settings: dict[str, Any], missing: str) -> None:
    for nothing in (None, ""):
        [line] = refusals(settings | {missing: nothing})

        assert line.startswith(f"DISPATCHER_{missing.upper()}: ")
        assert "must be set for" in line


@pytest.mark.parametrize("settings", [SENDGRID, TWILIO, SMTP])
@pytest.mark.parametrize("url", ["", "http://shop.example"])
def test_links_are_https_with_anything_but_the_sandbox(settings: dict[str, Any], url: str) -> None:
    [line] = refusals(settings | {"public_url": url})

    assert line.startswith("DISPATCHER_PUBLIC_URL: ")
    assert "https://" in line


@pytest.mark.parametrize(
    "wrong",
    [
        TWILIO | {"twilio_account_sid": "AC1"},
        TWILIO | {"twilio_messaging_service_sid": "AC" + "0" * 32},
        TWILIO | {"twilio_url": "api.twilio.com"},
        TWILIO | {"twilio_url": "https://api.twilio.com/2010-04-01"},
        TWILIO | {"public_url": "https://my_shop.example"},
        SENDGRID | {"sendgrid_url": "ftp://api.sendgrid.com"},
        SENDGRID | {"sendgrid_url": f"https://user:{SECRET}@api.sendgrid.com"},
        SENDGRID | {"sendgrid_slice": 1_001},
        SENDGRID | {"sendgrid_api_key": f"{SECRET}\n"},
        SMTP | {"smtp_url": f"http://{SECRET}@mail.example"},
        SMTP | {"smtp_url": f"smtp://shop:{SECRET}@mail.example"},
        SMTP | {"smtp_url": "smtps://mail.example:many"},
        SMTP | {"smtp_url": "smtps://"},
        {"email_provider": "twilio"},
        {"trusted_proxies": "*"},
        {"trusted_proxies": "10.0.0.7, proxy.example"},
        {"trusted_proxies": "10.0.0.7/8"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    assert len(refusals(wrong)) == 1


def test_a_server_on_this_machine_may_hear_a_password_in_clear() -> None:
    assert load_settings(**SMTP | {"smtp_url": f"smtp://shop:{SECRET}@127.0.0.1:2525"}).smtp_url


def test_a_provider_s_url_stands_for_scheme_host_and_port() -> None:
    loaded = load_settings(**SENDGRID | {"sendgrid_url": "http://127.0.0.1:4010/"})

    assert loaded.sendgrid_url == "http://127.0.0.1:4010"


def test_rooms_get_exactly_these_settings() -> None:
    loaded = load_settings(**SENDGRID | TWILIO | {"email_provider": "smtp", "smtp_url": SMTP["smtp_url"]})
    environment = environment_of(loaded)
    again = load_settings(
        **{
            name.removeprefix("DISPATCHER_").lower(): value
            for name, value in environment.items()
            if "DISPATCHER_" in name
        }
    )

    assert again == loaded


def test_the_doctor_looks_at_a_key_that_would_travel_in_clear() -> None:
    def looked_at(url: str) -> list[str]:
        checks = check_settings(load_settings(**SENDGRID | {"sendgrid_url": url}))
        return [check.detail for check in checks if check.verdict == "look" and "in clear" in check.detail]

    assert len(looked_at("http://proxy.internal:8080")) == 1
    assert looked_at("http://127.0.0.1:8080") == looked_at("https://proxy.internal") == []


def test_a_second_provider_is_made_with_all_it_needs(tmp_path: Path) -> None:
    both = SENDGRID | {"email_failover": "smtp", "smtp_url": SMTP["smtp_url"]}
    loaded = load_settings(**both, home=tmp_path)

    assert {channel: p.name for channel, p in failovers_for(loaded).items()} == {"email": "smtp"}
    assert failovers_for(load_settings(**SENDGRID, home=tmp_path)) == {}


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        (SENDGRID | {"email_failover": "smtp"}, "DISPATCHER_SMTP_URL: must be set for smtp"),
        (SENDGRID | {"email_failover": "sendgrid"}, "which is the first choice already"),
        ({"email_failover": "smtp", "smtp_url": SMTP["smtp_url"]}, "has nobody to come in for"),
    ],
)
def test_a_second_provider_that_cannot_come_in_is_refused(settings: dict[str, Any], finding: str) -> None:
    assert any(finding in each for each in refusals(settings))
