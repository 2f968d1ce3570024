"""What several of the definitions are made of: names, channels, places, events, links and how long a message waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from dispatcher.addresses import BadAddress, normal_email
from dispatcher.places import zones_of_countries

Channel = Literal["email", "sms"]
NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]

#: No message waits longer than this, whatever a campaign says.
LONGEST_EXPIRY = timedelta(days=7)


#: How long a message of each class is worth sending, where nothing else is said.
EXPIRES_AFTER = {
    "marketing": timedelta(hours=24),
    "transactional": timedelta(hours=72),
    "security": timedelta(minutes=10),
}


class Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:  # OSError: a path such as "Europe/"
        raise ValueError(f"{value!r} is not a time zone; use an IANA name like Europe/London") from error
    return value


Zone = Annotated[str, BeforeValidator(_zone)]


def _country(value: str) -> str:
    if value not in zones_of_countries():
        raise ValueError(f"{value!r} is no country we know the time of; use ISO 3166-1 codes like GB, FR, US")
    return value


def _email(value: str) -> str:
    try:
        normal_email(value)
    except BadAddress as error:
        raise ValueError(f"{value!r} is not an e-mail address: {error}") from error
    return value


Country = Annotated[str, AfterValidator(_country)]
Email = Annotated[str, AfterValidator(_email)]


def _event_name(value: Any) -> Any:
    if isinstance(value, str) and not (value.strip() == value and value.isprintable()):
        raise ValueError("is the name of an event, like checkout.started")
    return value


EventName = Annotated[str, BeforeValidator(_event_name), Field(min_length=1, max_length=100)]


UtmWord = Annotated[str, Field(min_length=1, max_length=100)]


class Utm(Definition):
    """What is added to the query of links, so that the shop's own statistics know where a visit came from."""

    source: UtmWord
    medium: UtmWord | None = None  # default: the channel
    campaign: UtmWord | None = None  # default: the name of the campaign or trigger


class Linked(Definition):
    """What campaigns and triggers say of the links in their messages."""

    track_clicks: StrictBool = False
    utm: Utm | None = None
