"""Read the facts of a page of contacts: one query, whatever the page's size.

Consent, suppression, caps and places are read live; campaign, segment and template come from the run's snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from dispatcher.caps import longest_window
from dispatcher.definitions import Shop
from dispatcher.facts import Counted, Facts, Rival, RunFacts
from dispatcher.places import places_of
from dispatcher.quiet_hours import DEFAULT_SMS_SILENCE, GUARD
from dispatcher.runs import Run
from dispatcher.tables import MAY_HAVE_LEFT

_CONTACTS = """
SELECT c.id, c.external_id, c.zone, c.country, c.paused_until,
       a.id AS address_id, a.state AS address_state,
       (SELECT array_agg(ARRAY[s.reason, s.scope] ORDER BY s.id) FROM suppression s WHERE s.address_id = a.id)
           AS suppressions,
       k.state AS consent, k.address_id AS consent_address_id, k.confirmed, k.effective_at, k.expires_at, k.event_id,
       c.merged_into,
       {duplicate} AS duplicate_of,
       {history} AS history,
       {rivals} AS rivals
FROM contact c
LEFT JOIN address a ON a.id = c.{channel}_address_id AND c.merged_into IS NULL AND c.erased_at IS NULL
LEFT JOIN consent k ON k.contact_id = c.id AND k.channel = '{channel}' AND k.topic = :topic
WHERE c.id = ANY(:contact_ids)
ORDER BY c.id
"""

# Somebody else in this run whose message went, or will go, to the same address.  The lowest contact id has it.
_DUPLICATE = f"""COALESCE(
    (SELECT d.id FROM message d WHERE d.run_id = :run_id AND d.channel = '{{channel}}' AND d.address_id = a.id
        AND d.client IS NULL AND d.status IN {MAY_HAVE_LEFT} AND d.contact_id <> c.id LIMIT 1),
    (SELECT d.id FROM contact o JOIN message d ON d.run_id = :run_id AND d.contact_id = o.id AND d.channel = '{{channel}}'
        WHERE o.{{channel}}_address_id = a.id AND o.id < c.id AND d.client IS NULL AND d.status = 'pending' LIMIT 1))"""

_HISTORY = f"""(
    SELECT jsonb_agg(jsonb_build_array(h.authorised_at, h.channel, h.topic, h.contact_id = c.id, h.address_id = a.id)
                     ORDER BY h.authorised_at)
    FROM message h
    WHERE (h.contact_id = c.id OR h.address_id = a.id) AND h.class = 'marketing'
        AND h.authorised_at > :since AND h.authorised_at <= :now
        AND h.status IN {MAY_HAVE_LEFT})"""

# What goes first: more important, then due earlier, then by name, so that the order is total and the same every time.
_RIVALS = """(
    SELECT jsonb_agg(jsonb_build_array(r.id, u.name, r.channel, r.topic, r.due_at, r.expires_at)
                     ORDER BY u.priority DESC, r.first_due_at, u.name, u.occurrence_key)
    FROM message r JOIN run u ON u.id = r.run_id
    WHERE r.contact_id = c.id AND r.status = 'pending' AND r.class = 'marketing' AND r.run_id <> :run_id
        AND u.state IN ('planning', 'running') AND r.expires_at > :now
        AND (-u.priority, r.first_due_at, u.name, u.occurrence_key)
            < (-:priority, CAST(:first_due_at AS timestamptz), CAST(:run_name AS text), CAST(:occurrence_key AS text)))"""


@dataclass(frozen=True, slots=True)
class Order:
    """A run as the facts need it: what is frozen, and what the shop says today."""

    run_id: UUID
    name: str
    occurrence_key: str
    priority: int
    nominal_at: datetime
    holdout: float
    shop_countries: tuple[str, ...]
    facts: RunFacts


def order_of(run: Run, shop: Shop, *, stopped: bool, urgent: bool) -> Order:
    """Return the order for a run, under the shop's present rules."""
    marketing = run.class_ == "marketing"
    topic = shop.topics.get(run.topic) if run.topic else None
    caps = tuple(c for c in shop.caps if run.channel in c.channels and (c.topics is None or run.topic in c.topics))
    own = shop.quiet_hours.sms + (DEFAULT_SMS_SILENCE,) if run.channel == "sms" else shop.quiet_hours.email
    campaign = run.campaign
    return Order(
        run_id=run.id,
        name=run.name,
        occurrence_key=run.occurrence_key,
        priority=run.priority,
        nominal_at=run.nominal_at,
        holdout=campaign.holdout if campaign else 0.0,
        shop_countries=shop.shop.countries,
        facts=RunFacts(
            state=run.state,
            stopped=stopped,
            channel=run.channel,
            topic=run.topic,
            class_=run.class_,
            urgent=urgent,
            double_opt_in=topic.double_opt_in if topic else False,
            silences=own,
            guard=GUARD[run.channel],
            caps=caps if marketing else (),
            on_cap=campaign.on_cap if campaign else "skip",
        ),
    )


def read_facts(
    connection: Connection,
    order: Order,
    contact_ids: Sequence[int],
    *,
    now: datetime,
    expires_at: datetime | Mapping[int, datetime],
    first_due_at: datetime | None = None,
    outside_segment: Collection[int] = (),
    held_out_by_hash: bool = True,
) -> list[tuple[str, Facts]]:
    """Return (external id, facts) for every contact of `contact_ids`, in contact order; one query."""
    rows = connection.execute(
        _query(order),
        {
            "contact_ids": list(contact_ids),
            "topic": order.facts.topic,
            "run_id": order.run_id,
            "since": now - longest_window(order.facts.caps),
            "now": now,
            "priority": order.priority,
            "first_due_at": first_due_at or order.nominal_at,
            "run_name": order.name,
            "occurrence_key": order.occurrence_key,
        },
    )
    spread_matters = bool(order.facts.silences)
    holdout = order.holdout if held_out_by_hash else 0.0
    page = []
    for (
        contact_id, external_id, zone, country, paused_until, address_id, address_state, suppressions,
        consent, consent_address_id, confirmed, effective_at, consent_expires_at, event_id,
        merged_into, duplicate_of, history, rivals,
    ) in rows:  # fmt: skip
        if merged_into is not None:
            duplicate_of = f"contact merged into {merged_into}"
        facts = Facts(
            order.facts,
            contact_id,
            expires_at if isinstance(expires_at, datetime) else expires_at[contact_id],
            address_id,
            address_state != "bad",
            tuple((reason, scope) for reason, scope in suppressions) if suppressions else (),
            consent or "none",
            consent_address_id == address_id,
            bool(confirmed),
            effective_at,
            consent_expires_at,
            event_id,
            paused_until,
            contact_id not in outside_segment,
            False,
            False,
            holdout > 0 and share_of("holdout", order.name, external_id) < holdout,
            str(duplicate_of) if duplicate_of is not None else None,
            False,
            places_of(zone, country, order.shop_countries),
            share_of(order.name, order.occurrence_key, external_id) if spread_matters else 0.0,
            tuple(Counted(datetime.fromisoformat(at), *rest) for at, *rest in history) if history else (),
            tuple(
                Rival(i, name, channel, topic, datetime.fromisoformat(due), datetime.fromisoformat(expires))
                for i, name, channel, topic, due, expires in rivals
            ) if rivals else (),
        )  # fmt: skip
        page.append((external_id, facts))
    return page


def share_of(*parts: str) -> float:
    """Return a number in [0, 1) that is the same for the same parts, on every machine and for ever."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _query(order: Order) -> TextClause:
    capped = bool(order.facts.caps)
    campaign = order.facts.marketing
    return _build(order.facts.channel, campaign, capped)


def _build(channel: str, campaign: bool, capped: bool) -> TextClause:
    key = (channel, campaign, capped)
    if key not in _BUILT:
        _BUILT[key] = text(
            _CONTACTS.format(
                channel=channel,
                duplicate=_DUPLICATE.format(channel=channel) if campaign else "NULL::uuid",
                history=_HISTORY if capped else "NULL",
                rivals=_RIVALS if capped else "NULL",
            )
        )
    return _BUILT[key]


_BUILT: dict[tuple[str, bool, bool], TextClause] = {}
