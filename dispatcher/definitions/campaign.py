"""campaigns/*.yaml: what is sent to which segment, and when."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from cronsim import CronSim, CronSimError
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from dispatcher.definitions.common import EXPIRES_AFTER, LONGEST_EXPIRY, Channel, Definition, Linked, Name, Zone
from segments.durations import Duration


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


class Campaign(Linked):
    name: Name
    channel: Channel
    topic: Name | None = None  # default: the template's
    segment: Name
    template: Name
    schedule: Schedule | None = None
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    expires_after: Annotated[Duration, Field(gt=timedelta(0), le=LONGEST_EXPIRY)] = EXPIRES_AFTER["marketing"]
    on_cap: Literal["skip", "defer"] = "skip"
    holdout: Annotated[
        float, BeforeValidator(_percent), Field(ge=0, lt=1), PlainSerializer(_show_percent, when_used="json")
    ] = 0.0
    recheck_segment: bool = False  # ask again right before sending whether the contact is still in the segment
