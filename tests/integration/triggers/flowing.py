"""What the tests of triggers ask of a flow."""

from __future__ import annotations

from datetime import timedelta

from flows import Flows

from dispatcher.triggers.arrivals import Outcome, Starting

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def outcomes(flows: Flows, *events: object, starting: Starting = Starting.UNTIL_EXPIRY) -> list[Outcome]:
    return [step.outcome for step in flows.arrive(*events, starting=starting).steps]  # type: ignore[arg-type]
