"""The reasons in plain words: what a person at the support desk reads out, and a lawyer may read.

Each reason has a clause made of the facts its gate gave, whether they were read a moment ago or stored with a message
years ago: every fact may be missing, and an instant may be text.  Nothing here decides, or looks anything up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from dispatcher.gates import Reason
from segments.explain import Answer

Found = Mapping[str, Any]

_RULES = {"shop": "the shop's own", "person": "their own wish"}

_BY = {"email": "e-mail", "sms": "text message"}

_SUPPRESSED = {
    "hard_bounce": "an earlier message to the address bounced for good",
    "invalid": "the address does not exist",
    "complaint": "they reported an earlier message as spam",
    "unsubscribe": "they unsubscribed at this address",
    "stop": "they answered STOP",
    "operator": "an operator suppressed the address",
    "erasure": "they asked to be erased",
}


def because(reason: Reason | str, found: Found) -> str:
    """Return why, as half a sentence without a full stop."""
    return _CLAUSES[Reason(reason)](found)


def blame(answer: Answer) -> list[str]:
    """Return the conditions that keep a contact out of a segment, each with what was found; none if they are in it."""
    if answer.holds:
        return []
    if answer.condition == "not":
        return [f"not {_told(part)}" for part in answer.parts]
    if answer.parts:
        return [line for part in answer.parts for line in blame(part)]
    return [_told(answer)]


def _told(answer: Answer) -> str:
    found = ", ".join(f"{name} {value}" for name, value in answer.to_json().get("found", {}).items())
    return f"{answer.condition} (found {found})" if found else answer.condition


def day(value: Any) -> str:
    """Return an instant, or what JSON made of one, as people write it; like 3 March 2026 at 10:12 UTC."""
    at = value if isinstance(value, datetime) else _parsed(value)
    if at is None:
        return "a time that was not kept"
    at = at.astimezone(UTC)
    return f"{at.day} {at:%B %Y} at {at:%H:%M} UTC"


def by(channel: Any) -> str:
    return _BY.get(channel, "this channel")


def _parsed(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _on(value: Any) -> str:
    return f" on {day(value)}" if value else ""


def _operator(found: Found) -> str:
    if found.get("engine") == "stopped" or found.get("engine_stopped"):
        return "an operator has stopped everything, until somebody runs dispatcher go-on"
    if found.get("run") == "paused":
        return "an operator has paused the run, until somebody runs dispatcher campaign resume"
    return "an operator cancelled it before it left"


def _expired(found: Found) -> str:
    if "blocked_by" not in found:
        return f"it would have come too late: it was good until {day(found.get('expires_at'))}"
    waited = because(found["blocked_by"], found)
    return (
        f"it would have come too late: {waited}; it could have left on {day(found.get('until'))}, "
        f"and was good until {day(found.get('expires_at'))}"
    )


def _no_address(found: Found) -> str:
    return {"email": "we have no e-mail address of theirs", "sms": "we have no phone number of theirs"}.get(
        found.get("channel", ""), "we have no address of theirs on this channel"
    )


def _bad_address(found: Found) -> str:
    return f"the address we have for {by(found.get('channel'))} cannot work"


def _suppressed(found: Found) -> str:
    because_of = found.get("because") or ([found["suppression"]] if "suppression" in found else [])
    why = " and ".join(_SUPPRESSED.get(one, str(one)) for one in because_of)
    return f"the address must not be written to{_on(found.get('suppressed_at'))}" + (f": {why}" if why else "")


def _no_consent(found: Found) -> str:
    topic, why = found.get("topic") or "this topic", found.get("because")
    since = found.get("withdrawn_at") or found.get("since")
    match why:
        case "never granted":
            return f"there is no record that they agreed to {topic}"
        case "not confirmed yet":
            return f"they asked for {topic}{_on(since)} but have not confirmed it"
        case "withdrawn":
            return f"they withdrew {topic}{_on(since)}"
        case "granted for a former address":
            return f"they agreed to {topic}{_on(since)}, but for an address that is no longer theirs"
        case "no longer in force":
            return f"their consent to {topic} ran out{_on(found.get('expires_at'))}"
        case "the topic needs a confirmed opt-in":
            return f"{topic} needs a confirmed opt-in, and theirs{_on(since)} was never confirmed"
        case "the topic does not accept this basis":
            return f"{topic} needs their own consent, and what we have rests on another basis"
        case None:
            return f"there is no consent to {topic}"
        case _:
            return f"there is no consent to {topic} ({why})"


def _paused(found: Found) -> str:
    return f"they asked for a pause until {day(found.get('paused_until'))}"


def _held_out(found: Found) -> str:
    share = f" of {found['share']:.1%}" if "share" in found else ""
    return f"they are in the holdout{share}: kept out on purpose, to measure what sending does"


def _duplicate(found: Found) -> str:
    if "merged" in found:
        return f"they were merged with contact {found['merged']}, and one message is enough"
    other = found.get("goes_to")
    return f"somebody else in the run has the same address ({other})" if other else "their address is taken in the run"


def _quiet(found: Found) -> str:
    opens = f", until {day(found['opens_at'])}" if found.get("opens_at") else ""
    zones = list(found.get("zones") or ())
    where = f" in {zones[0]}" if len(zones) == 1 else f" in at least one of {len(zones)} zones" if zones else ""
    if list(found.get("in_effect") or ()) == ["person"]:
        return f"they asked for silence at this time{opens}"
    rules = [_RULES.get(source, f"contact window {source}") for source in found.get("in_effect") or ()]
    kept = f" ({', '.join(rules)})" if rules else ""
    return f"these are quiet hours where they may be{where}{kept}{opens}"


def _place_unknown(found: Found) -> str:
    why = found.get("because")
    if why in (None, "nothing says where they are"):
        return "nobody knows where they are, and so whether it is night there"
    return f"there is no hour of which we know that it suits every place they may be in: {why}"


def _outranked(found: Found) -> str:
    winner, cap = found.get("campaign"), found.get("cap")
    first = f"campaign {winner}" if winner else "a more important message"
    return f"{first} goes first, and {f'cap {cap}' if cap else 'a cap'} leaves room for no more"


def _capped(found: Found) -> str:
    counted, cap = found.get("counted"), found.get("cap")
    had = (
        f"they had {counted} message{'' if counted == 1 else 's'} already" if counted is not None else "they had enough"
    )
    frees = f"; a place frees on {day(found['frees_at'])}" if found.get("frees_at") else ""
    return f"{had}, and {f'cap {cap}' if cap else 'a cap'} allows no more{frees}"


def _render_failed(found: Found) -> str:
    why = found.get("because")
    return "its text could not be made for them" + (f": {why}" if why else "")


def _not_in_segment(found: Found) -> str:
    unmet = list(found.get("unmet") or ())
    why = f", since this does not hold: {unmet[0]}" if unmet else ""
    more = f", and {len(unmet) - 1} more" if len(unmet) > 1 else ""
    return f"they are not in the segment {found.get('segment', '')}".rstrip() + why + more


def _rate(found: Found) -> str:
    match found.get("because"):
        case "rest":
            return "the provider has had enough for a while"
        case "circuit":
            return f"{found.get('account', 'the provider')} cannot be reached or does not take anything from us"
        case "domain":
            return f"mails to {found.get('domain')} are sent slowly, and it is not their turn yet"
        case "warm-up":
            return f"the sender is being warmed up, and its {found.get('allowance')} mails of the day are used up"
    return "the lane's rate is used up for the moment"


def _fixed(clause: str) -> Callable[[Found], str]:
    return lambda _: clause


_CLAUSES: dict[Reason, Callable[[Found], str]] = {
    Reason.OPERATOR: _operator,
    Reason.EXPIRED: _expired,
    Reason.NO_ADDRESS: _no_address,
    Reason.BAD_ADDRESS: _bad_address,
    Reason.SUPPRESSED: _suppressed,
    Reason.NO_CONSENT: _no_consent,
    Reason.PAUSED: _paused,
    Reason.NOT_IN_SEGMENT: _not_in_segment,
    Reason.FLOW_EXIT: _fixed("what it was to remind them of has happened"),
    Reason.SOURCE_STALE: _fixed("what the shop last told us is too old to act on"),
    Reason.HOLDOUT: _held_out,
    Reason.DUPLICATE_ADDRESS: _duplicate,
    Reason.LATE: _fixed("the hour it was meant for had passed where they are"),
    Reason.PLACE_UNKNOWN: _place_unknown,
    Reason.QUIET_HOURS: _quiet,
    Reason.OUTRANKED: _outranked,
    Reason.CAPPED: _capped,
    Reason.RENDER_FAILED: _render_failed,
    Reason.REJECTED: _fixed("the provider refused it for good"),
    Reason.PROVIDER_DROPPED: _fixed("the provider took it and then dropped it"),
    Reason.RATE: _rate,
}
