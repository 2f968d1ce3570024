"""What a shop may write, and how it is read."""

from __future__ import annotations

from datetime import time

import pytest
from pydantic import ValidationError

from dispatcher.definitions import Campaign, Cap, Schedule, ShopIdentity, Silence, Topic

TITLES = Topic(title={"de": "Angebote", "en": "Offers", "pt-BR": "Ofertas"})


@pytest.mark.parametrize(
    ("locale", "title"),
    [("pt-BR", "Ofertas"), ("de-AT", "Angebote"), ("fi-FI", "Offers"), (None, "Offers"), ("en-GB", "Offers")],
)
def test_a_title_in_no_known_language_is_english(locale: str | None, title: str) -> None:
    assert TITLES.title_for(locale) == title


def test_without_english_the_first_title_by_name_is_taken() -> None:
    assert Topic(title={"ro": "Oferte", "de": "Angebote"}).title_for("fi-FI") == "Angebote"


def test_a_silence_is_read_from_its_hours() -> None:
    night = Silence.model_validate("20:00-09:00")

    assert (night.start, night.end, night.ends_next_day) == (time(20), time(9), True)
    assert Silence.model_validate({"days": ["sun"], "hours": "00:00-24:00"}).ends_next_day
    assert not Silence.model_validate("12:00-13:30").ends_next_day


@pytest.mark.parametrize("hours", ["20-09", "20:00", "25:00-09:00", "09:00-09:00", "20:00-09:60", ""])
def test_what_is_no_silence_is_refused_with_an_example(hours: str) -> None:
    with pytest.raises(ValidationError, match=r"silence|00:00"):
        Silence.model_validate(hours)


@pytest.mark.parametrize(
    "cap",
    [
        {"name": "c"},
        {"name": "c", "max": 1},
        {"name": "c", "max": 1, "window": "24h", "calendar": "day"},
        {"name": "c", "max": 1, "window": "24h", "min_gap": "2h"},
        {"name": "c", "max": 0, "window": "24h"},
    ],
)
def test_a_cap_is_one_of_three_kinds(cap: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Cap.model_validate(cap)


def test_a_cron_that_restricts_day_and_weekday_is_ambiguous() -> None:
    with pytest.raises(ValidationError, match="ambiguous"):
        Schedule.model_validate({"cron": "0 10 1 * mon", "zone": "Europe/London"})


def test_a_local_schedule_must_say_what_happens_to_those_it_is_late_for() -> None:
    with pytest.raises(ValidationError, match="late"):
        Schedule.model_validate({"cron": "0 10 * * mon", "zone": "Europe/London", "local": True})


def test_a_campaign_waits_seven_days_at_most() -> None:
    campaign = {"name": "c", "channel": "email", "segment": "s", "template": "t"}

    assert Campaign.model_validate(campaign | {"expires_after": "7d", "holdout": "5%"}).holdout == 0.05
    with pytest.raises(ValidationError):
        Campaign.model_validate(campaign | {"expires_after": "8d"})


SHOP = {"name": "Shop", "from_email": "hello@shop.example", "postal_address": "1 High Street"}


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [({"countries": ["UK"]}, "GB"), ({"from_email": "nobody"}, "e-mail"), ({"postal_address": ""}, "at least 1")],
)
def test_who_the_shop_is_must_be_true(wrong: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        ShopIdentity.model_validate(SHOP | wrong)


def test_double_opt_in_is_true_or_false_and_not_a_word() -> None:
    with pytest.raises(ValidationError, match="boolean"):
        Topic.model_validate({"title": {"en": "Offers"}, "double_opt_in": "yes"})
