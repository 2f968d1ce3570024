"""triggers/*.yaml: the messages that an event in the shop starts."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from dispatcher.definitions.common import EXPIRES_AFTER, LONGEST_EXPIRY, Channel, Definition, EventName, Linked, Name
from segments.durations import Duration

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
