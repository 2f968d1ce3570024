"""A simulation as a human reads it: the funnel, the hours, and what to mind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.cli import door

if TYPE_CHECKING:
    from dispatcher.simulate import Simulation

_BAR_WIDTH = 24
_MOST_ZONES = 3


def print_simulation(told: Simulation) -> None:
    """Print what `campaign simulate` found; the lines of the funnel after the first add up to the first."""
    found = told.as_json()
    what = f"its occurrence {told.occurrence}" if told.occurrence else "a start by hand"
    print(f"{told.campaign}: {what}, judged at {door.shown(told.as_of)}; nothing is written")
    _print_funnel(found)
    _print_caps(found["caps"])
    _print_timeline(found)
    print(_end(told, found))
    for line in found["warnings"]:
        print(f"! {line}")


def _print_funnel(found: dict[str, Any]) -> None:
    rows: list[tuple[str, str, int]] = [("audience", "", found["audience"])]
    for verdict in ("skip", "defer"):
        by_count = sorted(found[verdict].items(), key=lambda item: (-item[1], item[0]))
        rows += [(reason, verdict, number) for reason, number in by_count]
    door.print_table(("", "verdict", "contacts"), [*rows, ("send", "", found["send"])], numbers=("contacts",))


def _print_caps(caps: dict[str, dict[str, int]]) -> None:
    rows = [(f"cap {cap}", "CAPPED", number) for cap, number in caps["capped"].items()]
    rows += [(f"campaign {winner}", "OUTRANKED", number) for winner, number in caps["outranked"].items()]
    if rows:
        door.print_table(("who stands in the way", "reason", "contacts"), rows, numbers=("contacts",))


def _print_timeline(found: dict[str, Any]) -> None:
    hours = found["timeline"]
    if not hours:
        return
    most = max(hour["send"] for hour in hours)
    zone = found["shop_zone"]
    rows = [
        (f"{hour['hour']:%a %Y-%m-%d %H:%M}", _clock(hour), _bar(hour["send"], most), hour["send"], _zones(hour))
        for hour in hours
    ]
    door.print_table(("hour (UTC)", zone, "", "leave", "where they are"), rows, numbers=("leave",))


def _clock(hour: dict[str, Any]) -> str:
    """Return what the shop's clock shows when the hour begins; with the day where it is another one."""
    day, time = hour["local"][:16].split("T")
    return str(time) if day == f"{hour['hour']:%Y-%m-%d}" else f"{day[5:]} {time}"


def _bar(number: int, most: int) -> str:
    """Return a bar in eighths of a character, at least a sliver."""
    eighths = max(1, round(number / most * _BAR_WIDTH * 8))
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _zones(hour: dict[str, Any]) -> str:
    shown = [f"{zone} {number:,}" for zone, number in list(hour["zones"].items())[:_MOST_ZONES]]
    rest = len(hour["zones"]) - len(shown)
    return ", ".join(shown) + (f", {rest} more" if rest else "")


def _end(told: Simulation, found: dict[str, Any]) -> str:
    """Return when it would be through, and at what rate."""
    lane = told.lane
    rate = lane.pace if lane.rate_per_second else f"no rate: {lane.pace}"
    if told.finishes_at is None:
        return f"nothing would leave (lane {lane.name}, {rate})"
    also = f", {told.passage.others:,} other messages on it" if told.passage.others else ""
    assumed = found["places"]["known_from"].get("shop countries", 0)
    guess = f"\nwithout a country, and so taken to be anywhere in the shop's: {assumed:,}" if assumed else ""
    return (
        f"{told.leaves:,} would leave, the last at {door.shown(told.finishes_at)} (lane {lane.name}, {rate}{also})"
        f"{guess}"
    )
