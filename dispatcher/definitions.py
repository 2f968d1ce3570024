"""What a shop writes down: dispatcher.toml, campaigns/*.yaml and triggers/*.yaml, as frozen models.

Segments are in `segments.definition`.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    field_validator,
    model_validator,
)

from dispatcher.addresses import BadAddress, normal_email
from dispatcher.hours import WEEKDAYS, Week, Weekday
from dispatcher.places import zones_of_countries
from dispatcher.rates.rules import Rates, WarmUp
from segments.durations import Duration

Channel = Literal["email", "sms"]
NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME)]

#: The template that asks to confirm an opt-in, where a topic names no other.
DEFAULT_CONFIRMATION = "opt-in-confirmation"

#: No message waits longer than this, whatever a campaign says.
LONGEST_EXPIRY = timedelta(days=7)


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


class Silence(Definition):
    """A daily time of silence in local wall clock, `[start, end)`, on the days it starts.

    An end of 24:00, or one not after the start, belongs to the next day.
    """

    start: time
    end: time
    days: tuple[Weekday, ...] = WEEKDAYS

    @property
    def ends_next_day(self) -> bool:
        return self.end <= self.start

    def __str__(self) -> str:
        end = "24:00" if self.end == time(0) else f"{self.end:%H:%M}"
        return f"{self.start:%H:%M}-{end} {' '.join(self.days) if len(self.days) < 7 else 'daily'}"

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        """Take `"20:00-09:00"` or `{days = ["sun"], hours = "00:00-24:00"}`."""
        days: Any = WEEKDAYS
        if isinstance(value, dict) and "hours" in value:
            if set(value) - {"days", "hours"}:
                raise ValueError(f"unknown {', '.join(sorted(set(value) - {'days', 'hours'}))}; write days and hours")
            value, days = value["hours"], value.get("days", WEEKDAYS)
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d\d):(\d\d)\s*-\s*(\d\d):(\d\d)", value.strip())
        if found is None:
            raise ValueError(f"{value!r} is not a time of silence; write it like 20:00-09:00")
        hours = [int(part) for part in found.groups()]
        if hours[2:] == [24, 0]:
            hours[2:] = [0, 0]
        try:
            start, end = time(hours[0], hours[1]), time(hours[2], hours[3])
        except ValueError as error:
            raise ValueError(f"{value!r} is not a time of silence; hours run from 00:00 to 24:00") from error
        if start == end and not (start == time(0) and found[3] == "24"):
            raise ValueError(f"{value!r} begins where it ends; write 00:00-24:00 for a whole day")
        return {"start": start, "end": end, "days": days}


class QuietHours(Definition):
    """The shop's own silence, on top of the law."""

    email: tuple[Silence, ...] = ()
    sms: tuple[Silence, ...] = ()


class Acknowledgement(Definition):
    """Who answers for letting through what a contact window does not."""

    by: Annotated[str, Field(min_length=3)]
    because: Annotated[str, Field(min_length=10)]


class WindowChange(Definition):
    """What a shop makes of a contact window, by its id; or, with a country, a window of its own on top."""

    windows: Week | None = None
    holidays: Literal["closed", "open"] | None = None
    calendars: tuple[str, ...] = ()
    off: StrictBool = False
    loosened: Acknowledgement | None = None
    country: Country | None = None
    subdivision: str | None = None
    channels: tuple[Channel, ...] = ("sms",)


class Cap(Definition):
    """At most `max` marketing messages per contact in a window, or a least time between two."""

    name: Name
    max: Annotated[int, Field(ge=1)] | None = None
    window: Duration | None = None  # rolling: exactly this long ago no longer counts
    calendar: Literal["day", "week", "month"] | None = None  # in the person's zone; weeks begin on Monday
    min_gap: Duration | None = None
    channels: tuple[Channel, ...] = ("email", "sms")
    topics: tuple[Name, ...] | None = None  # None: all

    @model_validator(mode="after")
    def _one_kind(self) -> Cap:
        if self.min_gap is not None:
            if self.max is not None or self.window is not None or self.calendar is not None:
                raise ValueError("a cap has either min_gap, or max with window or calendar")
        elif self.max is None or (self.window is None) == (self.calendar is None):
            raise ValueError("a cap needs max with either window (like 24h) or calendar (day, week, month), or min_gap")
        return self


class Topic(Definition):
    title: dict[str, str]  # by locale
    channels: tuple[Channel, ...] = ("email",)
    double_opt_in: StrictBool = False
    bases: tuple[Literal["soft_opt_in", "implied_purchase", "implied_inquiry"], ...] = ()  # accepted beside consent
    confirmation: Name | None = None  # the template that asks to confirm; default: opt-in-confirmation

    @model_validator(mode="after")
    def _confirmed_or_implied(self) -> Topic:
        if self.double_opt_in and self.bases:
            raise ValueError("a topic with double_opt_in accepts a confirmed opt-in only; leave bases out")
        return self

    @field_validator("title")
    @classmethod
    def _has_a_title(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError('a topic needs a title in at least one language, like title = {en = "Offers"}')
        return value

    def title_for(self, locale: str | None) -> str:
        """Return the title in the closest language, else in English, else in the first one by name."""
        wanted = locale or ""
        candidates = (wanted, wanted.split("-")[0], "en", min(self.title))
        return next(self.title[language] for language in candidates if language in self.title)


class ShopIdentity(Definition):
    name: str
    from_email: Email
    postal_address: Annotated[str, Field(min_length=1)]
    zone: Zone = "UTC"
    countries: tuple[Country, ...] = ()


class InterestRules(Definition):
    half_life: Annotated[Duration, Field(ge=timedelta(hours=1))] = timedelta(days=90)


def _host(value: Any) -> str:
    if (
        not isinstance(value, str)
        or re.fullmatch(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?", value) is None
    ):
        raise ValueError(f"{value!r} is not a host; write it like www.shop.example, or *.shop.example for all below it")
    return value


class LinkRules(Definition):
    """Where links may lead; without a list: the domain of from_email and all below it, where clicks are counted."""

    allowed_hosts: tuple[Annotated[str, BeforeValidator(_host)], ...] | None = None


def _for_good(value: Any) -> Any:
    return None if value == "for good" else value


#: How long something is kept; "for good", None here: until its person is erased.
Term = Annotated[
    Annotated[Duration, Field(ge=timedelta(days=14))] | None,
    BeforeValidator(_for_good),
]


class Retention(Definition):
    """How long what is personal is kept, though nobody asked for its erasure; counted from when it settled or came.

    Evidence of consent, suppressions, the audit and the rows of the ledger are kept for good: they are what a shop has
    to prove, and what caps and `verify` count.
    """

    message_data: Term = timedelta(days=400)  # what the shop sent along with a message
    feedback: Term = timedelta(days=400)  # events of providers, as they came
    inbox: Term = timedelta(days=30)  # what providers sent and could never be sorted
    replies: Term = timedelta(days=400)  # the words of texts
    events: Term = timedelta(days=1100)  # items and properties of what the shop said happened


class Storefront(Definition):
    """What of a system the shop sells with is taken how: Shopify, WooCommerce."""

    topics: tuple[Name, ...] | None = None  # that its customers' consent speaks for; None: every topic of the channel
    #: The fields of an order's line that name interests; one it does not have is looked for among its properties.
    interests: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = (
        "product_type", "category", "tags", "vendor",
    )  # fmt: skip


class Shop(Definition):
    """dispatcher.toml without its settings: what every process reads from the database after `apply`."""

    shop: ShopIdentity
    quiet_hours: QuietHours = QuietHours()
    contact_windows: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z-]*$")], WindowChange] = {}
    caps: tuple[Cap, ...] = ()
    rates: Rates = Rates()
    warm_up: WarmUp | None = None
    topics: dict[Name, Topic] = {}
    interests: InterestRules = InterestRules()
    links: LinkRules = LinkRules()
    retention: Retention = Retention()
    shopify: Storefront = Storefront()
    woocommerce: Storefront = Storefront()

    @model_validator(mode="after")
    def _caps_are_told_apart(self) -> Shop:
        names = [cap.name for cap in self.caps]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"two caps are called {sorted(twice)[0]}; their names are shown as reasons, so each needs its own"
            )
        for cap in self.caps:
            if unknown := set(cap.topics or ()) - set(self.topics):
                raise ValueError(f"cap {cap.name} names topic {sorted(unknown)[0]}, which [topics] does not have")
        return self

    @model_validator(mode="after")
    def _storefronts_speak_of_topics_there_are(self) -> Shop:
        for name, storefront in (("shopify", self.shopify), ("woocommerce", self.woocommerce)):
            if unknown := set(storefront.topics or ()) - set(self.topics):
                raise ValueError(f"{name} names topic {sorted(unknown)[0]}, which [topics] does not have")
        return self


class Schedule(Definition):
    """When a campaign fires: once (`at`) or by cron, in a named zone; `local`: at that wall time in each place."""

    cron: str | None = None
    at: datetime | None = None  # wall time in `zone`
    zone: Zone
    local: bool = False
    late: Literal["now", "next_day", "skip"] | None = None
    max_lateness: Duration = timedelta(hours=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> Schedule:
        if (self.cron is None) == (self.at is None):
            raise ValueError('a schedule has either cron (like "0 10 * * mon") or at (like 2026-12-01T10:00)')
        if self.at is not None and self.at.tzinfo is not None:
            raise ValueError("at is a wall time in the schedule's zone: leave the offset out")
        if self.cron is not None:
            _check_cron(self.cron)
        if self.local and self.late is None:
            raise ValueError(
                "with local: true say what happens to those for whom it is already past: late: now, next_day or skip"
            )
        return self


def _check_cron(expression: str) -> None:
    fields = expression.split()
    if len(fields) != 5:
        raise ValueError(f"cron {expression!r} needs five fields: minute hour day month weekday")
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError(
            f"cron {expression!r} restricts both day and weekday, which is ambiguous; restrict one of them"
        )
    try:
        CronSim(expression, datetime(2026, 1, 1))  # noqa: DTZ001 - only parsed
    except CronSimError as error:
        raise ValueError(f"cron {expression!r} is not one: {error}") from error


def _percent(value: Any) -> float:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())):
        return float(found[1]) / 100
    if value == 0:
        return 0.0
    raise ValueError(f"{value!r} is not a share; write it like 5%")


def _show_percent(value: float) -> str:
    return f"{value * 100:.10g}%"


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


class Campaign(Linked):
    name: Name
    channel: Channel
    topic: Name | None = None  # default: the template's
    segment: Name
    template: Name
    schedule: Schedule | None = None
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    expires_after: Annotated[Duration, Field(gt=timedelta(0), le=LONGEST_EXPIRY)] = timedelta(hours=24)
    on_cap: Literal["skip", "defer"] = "skip"
    holdout: Annotated[
        float, BeforeValidator(_percent), Field(ge=0, lt=1), PlainSerializer(_show_percent, when_used="json")
    ] = 0.0
    recheck_segment: bool = False  # ask again right before sending whether the contact is still in the segment


def _event_name(value: Any) -> Any:
    if isinstance(value, str) and not (value.strip() == value and value.isprintable()):
        raise ValueError("is the name of an event, like checkout.started")
    return value


EventName = Annotated[str, BeforeValidator(_event_name), Field(min_length=1, max_length=100)]

#: How long a message that was asked for singly is worth sending, by its template's class.
EXPIRES_AFTER = {
    "marketing": timedelta(hours=24),
    "transactional": timedelta(hours=72),
    "security": timedelta(minutes=10),
}
#: A feed that is silent for this long says nothing any more, if the trigger names no time of its own.
STALE_BETWEEN = (timedelta(hours=6), timedelta(hours=24))


class Exit(Definition):
    """An event that ends a flow if it happened at the trigger's event or later."""

    event: EventName
    since: Literal["trigger"] = "trigger"


def _exits(value: Any) -> Any:
    """Take one condition or a list of them."""
    return [value] if isinstance(value, dict) else value


class Trigger(Linked):
    """One message for each `key` of an event, `after` it happened, unless something happens meanwhile."""

    name: Name
    on: EventName
    key: Annotated[str, Field(min_length=1, max_length=500)]  # a template over `event`
    after: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=365))] = timedelta(0)
    unless: Annotated[tuple[Exit, ...], BeforeValidator(_exits)] = ()  # same key, contact, address or phone
    cancel: EventName | None = None  # same key only
    channel: Channel
    template: Name
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    expires_after: Annotated[Duration, Field(gt=timedelta(0), le=LONGEST_EXPIRY)] | None = None  # default: by class
    on_cap: Literal["skip", "defer"] = "skip"
    stale_after: Annotated[Duration, Field(gt=timedelta(0))] | None = None

    @property
    def exits(self) -> frozenset[str]:
        """The events that end the flow."""
        return frozenset(exit_.event for exit_ in self.unless)

    @property
    def feed_may_be_silent_for(self) -> timedelta | None:
        """How old the source's newest event may be when the message is due; None: nothing is waited for."""
        if not self.unless:
            return None
        least, most = STALE_BETWEEN
        return self.stale_after or min(max(2 * self.after, least), most)

    def expires_after_as(self, class_: str) -> timedelta:
        """Return how long its messages are worth sending, counted from when they are due."""
        return self.expires_after or EXPIRES_AFTER[class_]

    @field_validator("key")
    @classmethod
    def _key_is_a_template(cls, value: str) -> str:
        from dispatcher.triggers.keys import check_key

        check_key(value)
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Trigger:
        if self.cancel is not None and self.cancel == self.on:
            raise ValueError(f"cancel is {self.on}, which is what starts it")
        if self.stale_after is not None and not self.unless:
            raise ValueError("stale_after is how old news may be to trust `unless`; without `unless` it means nothing")
        return self


class TemplateMeta(Definition):
    """templates/<channel>/<name>/meta.yaml: the only place that says which rules a message is under."""

    class_: Annotated[Literal["marketing", "transactional", "security"], Field(alias="class")]
    topic: Name | None = None
    urgent: bool = False  # a transactional SMS that may break quiet hours

    @model_validator(mode="after")
    def _marketing_has_a_topic(self) -> TemplateMeta:
        if self.class_ == "marketing" and self.topic is None:
            raise ValueError("a marketing template needs a topic: it is what the unsubscribe link withdraws")
        return self
