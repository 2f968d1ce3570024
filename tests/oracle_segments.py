"""The language of segments in plain Python over plain data: what the SQL must agree with.

A contact is `{"external_id", "country", ..., "attributes": {...}, "events": [...]}`; an event is `{"name",
"occurred_at", "value", "properties", "items": [{"interests", "quantity", "value", "properties"}]}`.  It reads the
definition's JSON, not its models, and knows nothing of the rooms it checks.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

COMPARE = {
    "eq": lambda a, b: a == b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}
FIELDS = {"external_id", "country", "subdivision", "locale", "zone"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
TOLERANCE = 1e-9


def holds(condition: dict[str, Any], contact: dict[str, Any], as_of: datetime, half_life: timedelta) -> bool:
    if "all" in condition:
        return all(holds(part, contact, as_of, half_life) for part in condition["all"])
    if "any" in condition:
        return any(holds(part, contact, as_of, half_life) for part in condition["any"])
    if "not" in condition:
        return not holds(condition["not"], contact, as_of, half_life)
    if "event" in condition:
        return event_holds(condition, contact, as_of)
    if "attribute" in condition:
        return value_holds(condition, attribute_of(contact, condition["attribute"]))
    return score_holds(condition["score"], score(condition["interest"], contact, as_of, half_life))


def length(text: str) -> timedelta:
    return timedelta(seconds=int(text[:-1]) * UNITS[text[-1]])


def attribute_of(contact: dict[str, Any], name: str) -> Any:
    name = "zone" if name == "timezone" else name
    if name in FIELDS:
        return contact.get(name)
    return contact["attributes"].get(name.removeprefix("attr."))


def event_holds(condition: dict[str, Any], contact: dict[str, Any], as_of: datetime) -> bool:
    where = condition.get("where", {})
    about_items = "interest" in where or "item" in where
    found = []  # (event, the items that match)
    for event in contact["events"]:
        if event["name"] != condition["event"] or event["occurred_at"] > as_of:
            continue
        if "within" in condition and event["occurred_at"] <= as_of - length(condition["within"]):
            continue
        if not amount_holds(where.get("value", {}), event["value"]):
            continue
        if not all(
            value_holds(test, event["properties"].get(key)) for key, test in where.get("properties", {}).items()
        ):
            continue
        items = [item for item in event["items"] if item_matches(where, item)]
        if items or not about_items:
            found.append((event, items))

    verdicts = []
    if "count" in condition:
        verdicts.append(amount_holds(condition["count"], len(found)))
    if "last" in condition:
        newest = max((event["occurred_at"] for event, _ in found), default=None)
        last = condition["last"]
        verdicts.append(newest is not None)
        if newest is not None and "within" in last:
            verdicts.append(newest > as_of - length(last["within"]))
        if newest is not None and "older_than" in last:
            verdicts.append(newest <= as_of - length(last["older_than"]))
    if "sum" in condition:
        field = condition["sum"]
        if about_items or field == "quantity":
            total = sum((Decimal(str(item[field])) for _, items in found for item in items), Decimal(0))
        else:
            total = sum((Decimal(str(event["value"])) for event, _ in found), Decimal(0))
        verdicts.append(amount_holds(condition, total))
    return all(verdicts) if verdicts else len(found) > 0


def item_matches(where: dict[str, Any], item: dict[str, Any]) -> bool:
    if "interest" in where and not set(where["interest"]) & set(item["interests"]):
        return False
    asked = where.get("item", {})
    return (
        amount_holds(asked.get("quantity", {}), item["quantity"])
        and amount_holds(asked.get("value", {}), item["value"])
        and all(value_holds(test, item["properties"].get(key)) for key, test in asked.get("properties", {}).items())
    )


def amount_holds(asked: dict[str, Any], amount: Any) -> bool:
    return all(
        COMPARE[name](Decimal(str(amount)), Decimal(str(wanted))) for name, wanted in asked.items() if name in COMPARE
    )


def value_holds(asked: dict[str, Any], stored: Any) -> bool:
    verdicts = []
    for name, wanted in asked.items():
        match name:
            case "exists":
                verdicts.append((stored is not None) == wanted)
            case "eq":
                verdicts.append(same(stored, wanted))
            case "ne":
                verdicts.append(not same(stored, wanted))
            case "in":
                verdicts.append(any(same(stored, one) for one in wanted))
            case "not_in":
                verdicts.append(not any(same(stored, one) for one in wanted))
            case "contains":
                inside = isinstance(stored, str) and isinstance(wanted, str) and wanted in stored
                verdicts.append(inside or (isinstance(stored, list) and any(same(one, wanted) for one in stored)))
            case "gt" | "gte" | "lt" | "lte":
                left = as_type_of(wanted, stored)
                verdicts.append(left is not None and COMPARE[name](left, as_type_of(wanted, wanted)))
    return all(verdicts)


def same(stored: Any, wanted: Any) -> bool:
    left = as_type_of(wanted, stored)
    return left is not None and left == as_type_of(wanted, wanted)


def as_type_of(wanted: Any, stored: Any) -> Any:
    """`stored` read as the type that is asked for, or None."""
    if isinstance(wanted, bool):
        if isinstance(stored, bool):
            return stored
        return {"true": True, "false": False}.get(stored.lower()) if isinstance(stored, str) else None
    if isinstance(wanted, str):
        return stored if isinstance(stored, str) else None
    if isinstance(stored, bool):
        return None
    if isinstance(stored, int | float):
        return Decimal(repr(stored))
    if isinstance(stored, str) and re.fullmatch(r"-?[0-9]{1,100}(\.[0-9]{1,100})?", stored):
        return Decimal(stored)
    return None


def score(interest: str, contact: dict[str, Any], as_of: datetime, half_life: timedelta) -> float:
    """One for each item of an order that has the interest, halved for every half-life since."""
    return sum(
        0.5 ** ((as_of - event["occurred_at"]) / half_life)
        for event in contact["events"]
        if event["name"] == "order.placed" and event["occurred_at"] <= as_of
        for item in event["items"]
        if interest in item["interests"]
    )


def score_holds(asked: dict[str, Any], found: float) -> bool:
    verdicts = {
        "gte": lambda wanted: found >= wanted * (1 - TOLERANCE),
        "gt": lambda wanted: found > wanted * (1 + TOLERANCE),
        "lte": lambda wanted: found <= wanted * (1 + TOLERANCE),
        "lt": lambda wanted: found < wanted * (1 - TOLERANCE),
    }
    return all(verdicts[name](wanted) for name, wanted in asked.items())
