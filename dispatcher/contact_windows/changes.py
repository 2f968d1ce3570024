"""What a shop may make of contact windows in dispatcher.toml: stricter at will, looser only in somebody's name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from dispatcher.calendars import is_known
from dispatcher.contact_windows.rows import load_rows, loosened_fields
from dispatcher.definitions import Shop, WindowChange


def objections_to(name: str, change: WindowChange) -> Iterator[tuple[str, str]]:
    """Yield (field, reason) for what `apply` refuses in `[contact_windows.NAME]`; an empty field means the table."""
    for calendar in change.calendars:
        if not is_known(calendar):
            yield (
                "calendars",
                f"there is no calendar of holidays {calendar}; write a country like FR or a part like US-PA",
            )
    row = load_rows().get(name)
    if row is None:
        yield from _objections_to_own(name, change)
        return
    for field in ("country", "subdivision", "channels"):
        if field in change.model_fields_set:
            yield field, f"{name} is a contact window we ship, and has its {field}; one of your own needs another name"
    if row.country is None and change.holidays == "closed" and not change.calendars:
        yield "holidays", f'{name} is of no country: say whose holidays, like calendars = ["DE"]'
    loosened = loosened_fields(row, change)
    if change.loosened is None:
        for field in loosened:
            yield (
                field,
                (
                    f"lets through what {name} does not ({row.basis}); make it narrower, or say who answers for it: "
                    f'[contact_windows.{name}.loosened] with by = "name" and because = "why"'
                ),
            )
    elif not loosened:
        yield "loosened", f"nothing here loosens {name}; leave it out"


def _objections_to_own(name: str, change: WindowChange) -> Iterator[tuple[str, str]]:
    if change.country is None:
        close = difflib.get_close_matches(name, load_rows(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        yield "", f"there is no contact window {name}{hint} (a window of your own needs a country and windows)"
    elif change.windows is None:
        yield "", "a window of your own needs windows"
    if change.off or change.loosened is not None:
        yield "off" if change.off else "loosened", "only contact windows that we ship can be taken away or loosened"


def loosenings(shop: Shop | None) -> dict[str, dict[str, object]]:
    """Return, by window, what a shop has loosened, and who answers for it: what `apply` writes to the audit."""
    return {
        name: change.model_dump(mode="json", exclude_defaults=True)
        for name, change in (shop.contact_windows.items() if shop else ())
        if change.loosened is not None
    }
