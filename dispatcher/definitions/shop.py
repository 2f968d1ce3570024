"""What a shop writes down once for all its messages: dispatcher.toml without its settings."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, field_validator, model_validator

from dispatcher.definitions.common import Channel, Country, Definition, Email, Name, Zone
from dispatcher.definitions.silences import QuietHours, WindowChange
from dispatcher.rates.rules import Rates, WarmUp
from segments.durations import Duration

#: The template that asks to confirm an opt-in, where a topic names no other.
DEFAULT_CONFIRMATION = "opt-in-confirmation"


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
    contact_windows: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z-]*$")], WindowChange] = Field(default_factory=dict)
    caps: tuple[Cap, ...] = ()
    rates: Rates = Rates()
    warm_up: WarmUp | None = None
    topics: dict[Name, Topic] = Field(default_factory=dict)
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
