"""Consent: what people allowed, and how we know.  The only writer of `consent_event` and `consent`.

Every claim about consent is kept as evidence, in a hash chain, whether or not it changes anything.  The state of a
contact, channel and topic follows from all of its evidence: see `rules.state_after`.
"""

from dispatcher.consent.evidence import Action, Actor, ConsentChange, verify_chain
from dispatcher.consent.rules import CONFIRMED, CONSENT, MONTHS_IN_FORCE, Basis, Evidence, State, state_after
from dispatcher.consent.states import Held, Outcome, record, settle_merge, settle_move, state_of, withdraw

__all__ = [
    "CONFIRMED",
    "CONSENT",
    "MONTHS_IN_FORCE",
    "Action",
    "Actor",
    "Basis",
    "ConsentChange",
    "Evidence",
    "Held",
    "Outcome",
    "State",
    "record",
    "settle_merge",
    "settle_move",
    "state_after",
    "state_of",
    "verify_chain",
    "withdraw",
]
