"""explain: the sentence first, then every gate."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Annotated, Any

import typer

from dispatcher.cli import door

_MOST_SHOWN = 6


def add_to(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    contact: door.ContactArgument,
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="A campaign of the applied workspace.")],
    as_of: door.AsOf = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="What was decided in this run (an id, the beginning of one, or latest)."),
    ] = None,
    as_json: door.AsJson = False,
) -> None:
    """Say why a contact gets a campaign or does not: in its last run, and now.

    With --run it is what was decided then, from the ledger, with today's answer beside it.

    Example: dispatcher explain 12348 christmas

    Of a past run: dispatcher explain 12348 christmas --run latest
    """
    from dispatcher import db, reports
    from dispatcher.explain import explain as explain_contact

    with door.open_engine() as runtime, db.reading(runtime.database) as connection:
        run_id = reports.find_run(connection, run) if run else None
        found = explain_contact(connection, runtime.key_ring, contact, campaign, as_of=as_of, run=run_id, suggest=True)
    if as_json:
        door.print_json(found)
    else:
        print_explanation(found)


def print_explanation(found: dict[str, Any]) -> None:
    """Print what became of them, what would now, and every gate with the facts it looked at."""
    of_a_run = "today" in found
    today = found["today"] if of_a_run else found
    if found["run"] is not None:
        print(found["ledger_sentence"])
        print(f"Now: {today['sentence']}" if today else f"{found['campaign']} is no campaign any more.")
    else:
        print(today["sentence"])
        print(found["ledger_sentence"])
    if today and (coming := today["next_occurrence"]):
        print(f"At its next occurrence, {coming['occurrence']}: {coming['sentence']}")
    if found["merged_from"]:
        print(f"{found['merged_from']} is the same person: it was merged into {found['contact']}.")
    if of_a_run:
        _print_gates(f"decided then, in run {found['run']['run']}", found["gates"])
    if found["ledger"]:
        _print_ledger(found["run"], found["ledger"])
    if today:
        label = "today, if it ran again" if of_a_run else "today"
        _print_gates(f"{label}, judged at {door.shown(today['as_of'])}", today["gates"])
        _print_unmet(today)


def _print_gates(title: str, gates: list[dict[str, Any]]) -> None:
    if gates:
        print(f"\n{title}:")
        rows = [(gate["gate"], gate["verdict"], _facts(gate["facts"])) for gate in gates]
        door.print_table(("gate", "verdict", "facts"), rows)


def _print_ledger(run: dict[str, Any], ledger: dict[str, Any]) -> None:
    """Print what the ledger has of them in the run, and what the run froze."""
    names = ("message", "status", "reason", "deferred_reason", "due_at", "expires_at", "authorised_at",
             "handed_over_at", "settled_at", "provider", "provider_ref")  # fmt: skip
    told = {"run": run["run"], "occurrence": run["occurrence"], "run state": run["state"], "tzdata": run["tzdata"]}
    told |= {name: ledger[name] for name in names if ledger[name] is not None}
    print("\nin the ledger:")
    for name, value in told.items():
        print(f"  {_words(name):<16} {door.shown(value)}")
    for attempt in ledger["earlier_attempts"]:
        print(f"  {'earlier attempt':<16} {_facts(attempt)}")


def _print_unmet(today: dict[str, Any]) -> None:
    if today["not_in_segment_because"]:
        print("not in the segment, since this does not hold:")
        for line in today["not_in_segment_because"]:
            print(f"  {line}")


def _facts(facts: Mapping[str, Any]) -> str:
    """Return the facts of a gate: the plain ones on a line, then each list with an item a line."""
    known = {name: value for name, value in facts.items() if value is not None} or facts
    plain = [f"{_words(name)} {_shown(value)}" for name, value in known.items() if not _is_list(value)]
    lines = [", ".join(plain)] if plain else []
    for name, items in known.items():
        if _is_list(items):
            lines += [f"{_words(name)}:", *(f"  {_shown(item)}" for item in items[:_MOST_SHOWN])]
            if len(items) > _MOST_SHOWN:
                lines.append(f"  and {len(items) - _MOST_SHOWN} more (--json has them)")
    return "\n".join(lines)


def _words(name: str) -> str:
    """Return the name of a fact as words; zones and ids, which are names too, stay as they are."""
    return name.replace("_", " ") if name.islower() else name


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _shown(value: Any) -> str:
    """Return a value as a human reads it; what is empty inside of another is left out."""
    if isinstance(value, Mapping):
        parts = [f"{_words(name)} {_shown(part)}" for name, part in value.items() if part not in (None, (), [], "")]
        return ", ".join(parts) or "none"
    if isinstance(value, list | tuple | Set):
        parts = [_shown(part) for part in value]
        more = [f"{len(parts) - _MOST_SHOWN} more"] if len(parts) > _MOST_SHOWN else []
        return "; ".join(parts[:_MOST_SHOWN] + more) or "none"
    return door.shown(value)
