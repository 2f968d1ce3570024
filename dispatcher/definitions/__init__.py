"""What a shop writes down: dispatcher.toml, campaigns/*.yaml, triggers/*.yaml and meta.yaml, as frozen models.

Segments are in `segments.definition`.
"""

from __future__ import annotations

from dispatcher.definitions.campaign import Campaign, Schedule
from dispatcher.definitions.common import (
    EXPIRES_AFTER,
    LONGEST_EXPIRY,
    NAME,
    Channel,
    Country,
    Definition,
    Email,
    EventName,
    Linked,
    Name,
    Utm,
    UtmWord,
    Zone,
)
from dispatcher.definitions.shop import (
    DEFAULT_CONFIRMATION,
    Cap,
    InterestRules,
    LinkRules,
    Retention,
    Shop,
    ShopIdentity,
    Storefront,
    Term,
    Topic,
)
from dispatcher.definitions.silences import Acknowledgement, QuietHours, Silence, WindowChange
from dispatcher.definitions.template import TemplateMeta
from dispatcher.definitions.trigger import STALE_BETWEEN, Exit, Trigger

__all__ = [
    "DEFAULT_CONFIRMATION",
    "EXPIRES_AFTER",
    "LONGEST_EXPIRY",
    "NAME",
    "STALE_BETWEEN",
    "Acknowledgement",
    "Campaign",
    "Cap",
    "Channel",
    "Country",
    "Definition",
    "Email",
    "EventName",
    "Exit",
    "InterestRules",
    "LinkRules",
    "Linked",
    "Name",
    "QuietHours",
    "Retention",
    "Schedule",
    "Shop",
    "ShopIdentity",
    "Silence",
    "Storefront",
    "TemplateMeta",
    "Term",
    "Topic",
    "Trigger",
    "Utm",
    "UtmWord",
    "WindowChange",
    "Zone",
]
