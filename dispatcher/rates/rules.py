"""What a shop writes down about speed: `[rates]` and `[warm_up]` of dispatcher.toml, as frozen models."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from dispatcher.addresses import BadAddress, normal_email

LaneName = Literal["email.marketing", "email.transactional", "sms.marketing", "sms.transactional"]
AccountName = Literal["sandbox", "sendgrid", "smtp", "twilio"]

#: Of an account's rate, what no marketing message takes, unless the shop says otherwise.
RESERVE = 0.2

_SECONDS_OF = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Rule):
    """So many units a second: what a provider, and the reputation of a sender, bear.

    Written `"20/s"` (also `/min`, `/h`, `/d`) or `{per_second = 20, burst = 40}`.
    """

    per_second: Annotated[float, Field(gt=0, le=100_000)]
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None  # None: what a second allows, at least one

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if not isinstance(value, str | int | float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*(s|min|h|d)", str(value).strip())
        if found is None:
            raise ValueError(f"{value!r} is not a rate; write it like 20/s, 600/min, 5000/h or 20000/d")
        return {"per_second": float(found[1]) / _SECONDS_OF[found[2]]}

    @property
    def at_once(self) -> int:
        """How many units may leave in one go after a pause."""
        return self.burst if self.burst is not None else max(1, int(self.per_second))


def _share(value: Any) -> float:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())):
        return float(found[1]) / 100
    if value == 0:
        return 0.0
    raise ValueError(f"{value!r} is not a share; write it like 20%")


class AccountRate(Rate):
    """The rate of an account at a provider, in the provider's unit, and what of it marketing never takes."""

    reserve: Annotated[
        float,
        BeforeValidator(_share),
        Field(ge=0, lt=1),
        PlainSerializer(lambda share: f"{share * 100:.10g}%", when_used="json"),
    ] = RESERVE


def _domain(value: str) -> str:
    try:
        return normal_email(f"postmaster@{value}").rpartition("@")[2]
    except BadAddress as error:
        raise ValueError(f"{value!r} is no domain of mail addresses: {error}") from error


Domain = Annotated[str, AfterValidator(_domain)]


class Rates(_Rule):
    """`[rates]`: by lane, by account, and of SMTP by the domain that is written to.  Left out: as fast as it goes."""

    email_marketing: Annotated[Rate | None, Field(alias="email.marketing")] = None
    email_transactional: Annotated[Rate | None, Field(alias="email.transactional")] = None
    sms_marketing: Annotated[Rate | None, Field(alias="sms.marketing")] = None
    sms_transactional: Annotated[Rate | None, Field(alias="sms.transactional")] = None
    accounts: dict[AccountName, AccountRate] = {}
    domains: dict[Domain, Rate] = {}

    @property
    def lanes(self) -> dict[str, Rate]:
        """The lanes that have a rate of their own."""
        found = {
            field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items() if field.alias
        }
        return {name: rate for name, rate in found.items() if rate is not None}


class WarmUp(_Rule):
    """How many mails a sender that nobody knows yet may send on each day, from `start` on, until it is warm.

    Either `days`, one figure for each, or `first`, which grows by `growth` every day until it would pass `until`.
    """

    start: date
    days: tuple[Annotated[int, Field(ge=1)], ...] = ()
    first: Annotated[int, Field(ge=1)] | None = None
    growth: Annotated[float, Field(gt=1, le=10)] = 1.5
    until: Annotated[int, Field(ge=1)] | None = None
    transactional: bool = False  # whether transactional mails are counted and held back, too

    @model_validator(mode="after")
    def _one_schedule(self) -> WarmUp:
        if bool(self.days) == (self.first is not None):
            raise ValueError("a warm-up has either days (like [50, 100, 500]) or first with growth and until")
        if self.first is not None and (self.until is None or self.until < self.first):
            raise ValueError("first grows until it reaches until: write until, and not below first")
        return self

    def counts(self, lane: str) -> bool:
        """Return whether the mails of a lane are counted and held back."""
        return lane == "email.marketing" or (lane == "email.transactional" and self.transactional)

    def allowance(self, on: date) -> int | None:
        """Return how many may go on a day, the sender's own; 0 before the start, None once it is warm."""
        passed = (on - self.start).days
        if passed < 0:
            return 0
        if self.first is None:
            return self.days[passed] if passed < len(self.days) else None
        assert self.until is not None
        allowed = float(self.first)
        for _ in range(passed):
            allowed *= self.growth
            if allowed > self.until:
                return None
        return int(allowed)

    def ends_on(self) -> date:
        """Return the first day without a limit."""
        day = self.start
        while self.allowance(day) is not None:
            day += timedelta(days=1)
        return day


def day_of(now: datetime, zone: str) -> date:
    """Return the date it is for a sender in `zone`."""
    return now.astimezone(ZoneInfo(zone)).date()


def next_day(now: datetime, zone: str) -> datetime:
    """Return when the next day begins in `zone`, UTC."""
    tomorrow = day_of(now, zone) + timedelta(days=1)
    midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=ZoneInfo(zone))
    return midnight.astimezone(ZoneInfo("UTC"))
