"""What a simulation found out: the funnel, the timeline, and what to mind before the start."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from dispatcher.simulate.pace import Lane, Passage
from dispatcher.simulate.warnings import warnings_of


@dataclass(slots=True)
class Simulation:
    """The audience of one run, counted in every way that matters before it starts.

    audience = send + defer + skip, and audience = timeline + never + waiting + skip.
    """

    campaign: str
    as_of: datetime
    occurrence: str | None  #: of a scheduled `local: true` campaign: what was simulated
    shop_zone: str
    audience: int
    send: int = 0
    defer: Counter[str] = field(default_factory=Counter)
    skip: Counter[str] = field(default_factory=Counter)
    capped: Counter[str] = field(default_factory=Counter)  #: by the cap that is full
    outranked: Counter[str] = field(default_factory=Counter)  #: by the campaign that goes first
    expired: Counter[str] = field(default_factory=Counter)  #: by the gate that held them too long
    known_from: Counter[str] = field(default_factory=Counter)  #: what contacts' places are known from
    places_unknown: int = 0
    never: Counter[str] = field(default_factory=Counter)  #: put off or waiting, and in the end not sent, why
    waiting: Counter[str] = field(default_factory=Counter)  #: put off until somebody acts
    lane: Lane = field(default_factory=lambda: Lane(""))
    passage: Passage = field(default_factory=Passage)
    stopped: bool = False
    expires_after: str = ""

    @property
    def leaves(self) -> int:
        """How many would leave in the end."""
        return len(self.passage.left)

    @property
    def finishes_at(self) -> datetime | None:
        """When the last message would leave; None: none would."""
        return max((at for at, _ in self.passage.left), default=None)

    def timeline(self) -> list[dict[str, Any]]:
        """Return the hours in which anything would leave: begin (UTC and the shop's clock), how many, by zone."""
        hours: dict[datetime, Counter[str]] = {}
        for at, facts in self.passage.left:
            hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            hours.setdefault(hour, Counter())[_where(facts.places.zones, hour)] += 1
        local = ZoneInfo(self.shop_zone)
        return [
            {
                "hour": hour,
                "local": hour.astimezone(local).isoformat(timespec="minutes"),
                "send": zones.total(),
                "zones": dict(sorted(zones.items(), key=lambda item: (-item[1], item[0]))),
            }
            for hour, zones in sorted(hours.items())
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON takes it; `audience`, `send`, `defer`, `skip` are the funnel."""
        return {
            "campaign": self.campaign,
            "as_of": self.as_of,
            "occurrence": self.occurrence,
            "audience": self.audience,
            "send": self.send,
            "defer": dict(self.defer.most_common()),
            "skip": dict(self.skip.most_common()),
            "caps": {"capped": dict(self.capped.most_common()), "outranked": dict(self.outranked.most_common())},
            "expired": dict(self.expired.most_common()),
            "places": {"unknown": self.places_unknown, "known_from": dict(self.known_from.most_common())},
            "shop_zone": self.shop_zone,
            "timeline": self.timeline(),
            "leaves": self.leaves,
            "never": dict(self.never.most_common()),
            "waiting": dict(self.waiting.most_common()),
            "lane": {
                "name": self.lane.name,
                "rate_per_second": self.lane.rate_per_second,
                "burst": self.lane.burst,
                "paused_until": self.lane.paused_until,
                "also_due": self.passage.others,
                "finishes_at": self.finishes_at,
                "expire_waiting": len(self.passage.expire_waiting),
                "put_off_waiting": len(self.passage.put_off_waiting),
            },
            "warnings": warnings_of(self),
        }


@lru_cache(maxsize=4096)
def _where(zones: tuple[str, ...], hour: datetime) -> str:
    """Return the name the timeline counts zones under: those that show one time are one, else from west to east."""
    if not zones:
        return "unknown"
    by_offset = sorted(zones, key=lambda zone: hour.astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0))
    west, east = (hour.astimezone(ZoneInfo(zone)).utcoffset() for zone in (by_offset[0], by_offset[-1]))
    return zones[0] if west == east else f"{by_offset[0]} to {by_offset[-1]}"
