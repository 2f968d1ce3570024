"""Read the facts of a page of contacts: one query, whatever the page's size.

Consent, suppression, caps and places are read live; campaign, segment and template come from the run's snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, TextClause, text

from dispatcher.caps import longest_window
from dispatcher.contact_windows import LocalRules, local_rules, longest_law_window
from dispatcher.definitions import Shop, Trigger
from dispatcher.facts import Counted, Facts, Rank, Rival, RunFacts
from dispatcher.quiet_hours import GUARD
from dispatcher.runs import ANSWERS, Run
from dispatcher.tables import MAY_HAVE_LEFT
from dispatcher.triggers import exits

# A contact that was merged is asked for as the person they are now, so that what objects is that the survivor has it.
_CONTACTS = """
WITH page AS MATERIALIZED (
    SELECT c.id, c.external_id, c.zone, c.country, c.subdivision, c.phone_region, c.paused_until, c.merged_into,
           CAST(c.quiet_hours AS text) AS quiet_hours,
           CASE WHEN c.erased_at IS NULL THEN COALESCE(c.{channel}_address_id, s.{channel}_address_id) END AS address_id
    FROM contact c LEFT JOIN contact s ON s.id = c.merged_into AND s.erased_at IS NULL
    WHERE c.id = ANY(CAST(:contact_ids AS bigint[]))
), suppressed AS (
    SELECT s.address_id, array_agg(ARRAY[s.reason, s.scope] ORDER BY s.id) AS suppressions
    FROM suppression s WHERE s.address_id IN (SELECT address_id FROM page) GROUP BY s.address_id
){more_tables}
SELECT c.id, c.external_id, c.zone, c.country, c.subdivision, c.phone_region, c.paused_until, c.quiet_hours,
       c.address_id, a.state AS address_state, s.suppressions,
       k.state AS consent, k.address_id AS consent_address_id, k.confirmed, k.effective_at, k.expires_at, k.event_id,
       k.basis AS consent_basis, c.merged_into, {more_columns}
FROM page c
LEFT JOIN address a ON a.id = c.address_id
LEFT JOIN suppressed s ON s.address_id = c.address_id
LEFT JOIN consent k ON k.contact_id = COALESCE(c.merged_into, c.id) AND k.channel = '{channel}' AND k.topic = :topic
{more_joins}
ORDER BY c.id
"""

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)

# What follows looks into `message`, the one table that grows without end.  Each part is a probe of an index for every
# contact of the page: OFFSET 0 keeps the planner from reading a whole run, or a whole day, for the sake of a page.

# Somebody else in this run whose message went, or will go, to the same address (the lowest contact id has it), or went
# to the same person before a merge.
_DUPLICATES = f"""shared AS MATERIALIZED (
    SELECT c.id, o.id AS other FROM page c JOIN contact o ON o.{{channel}}_address_id = c.address_id AND o.id < c.id
), duplicate AS (
    SELECT taken.id AS contact_id, min(w.external_id) AS taken_by FROM (
        SELECT c.id, d.contact_id AS taker FROM page c CROSS JOIN LATERAL (
            SELECT d.contact_id FROM message d
            WHERE d.run_id = :run_id AND d.channel = '{{channel}}' AND d.address_id = c.address_id AND d.client IS NULL
                AND d.status IN {MAY_HAVE_LEFT} AND d.contact_id <> c.id OFFSET 0) d
        UNION ALL
        SELECT s.id, d.contact_id FROM shared s CROSS JOIN LATERAL (
            SELECT d.contact_id FROM message d
            WHERE d.run_id = :run_id AND d.channel = '{{channel}}' AND d.contact_id = s.other AND d.client IS NULL
                AND d.status = 'pending' OFFSET 0) d
        UNION ALL
        SELECT c.id, d.contact_id FROM page c JOIN contact t ON t.merged_into = c.id CROSS JOIN LATERAL (
            SELECT d.contact_id FROM message d
            WHERE d.run_id = :run_id AND d.channel = '{{channel}}' AND d.contact_id = t.id AND d.client IS NULL
                AND d.status IN {MAY_HAVE_LEFT} OFFSET 0) d
    ) AS taken JOIN contact w ON w.id = taken.taker GROUP BY taken.id
)"""

_COUNTED = f"""jsonb_agg(jsonb_build_array(h.authorised_at, h.channel, h.topic) ORDER BY h.authorised_at) AS counted
    FROM page c CROSS JOIN LATERAL (
        SELECT h.authorised_at, h.channel, h.topic FROM message h
        WHERE h.class = 'marketing' AND h.status IN {MAY_HAVE_LEFT}
            AND h.authorised_at > :since AND h.authorised_at <= :until"""
# What a contact got before it was merged stays with its tombstone where the survivor has a message of that run, too.
_HISTORY = f"""person AS MATERIALIZED (
    SELECT id, id AS contact_id FROM page
    UNION ALL SELECT c.id, t.id FROM page c JOIN contact t ON t.merged_into = c.id
), to_contact AS (
    SELECT c.id, {_COUNTED.replace("FROM page c", "FROM person c")} AND h.contact_id = c.contact_id OFFSET 0) h
    GROUP BY c.id
), to_address AS (
    SELECT c.id, {_COUNTED} AND h.address_id = c.address_id OFFSET 0) h GROUP BY c.id
)"""

# Those of less importance are left out here already; who else goes first is for `Rival.rank` to say.
_RIVALS = """rival AS (
    SELECT c.id, jsonb_agg(jsonb_build_array(r.id, u.id, u.name, u.occurrence_key, r.channel, r.topic, u.priority,
                                             r.first_due_at, r.due_at, r.expires_at)) AS rivals
    FROM page c CROSS JOIN LATERAL (
        SELECT r.* FROM message r
        WHERE r.contact_id = c.id AND r.status = 'pending' AND r.class = 'marketing' AND r.run_id <> :run_id
            AND r.expires_at > :now OFFSET 0) r
    JOIN run u ON u.id = r.run_id
    WHERE u.state IN ('planning', 'running') AND u.priority >= :priority
    GROUP BY c.id
)"""


@dataclass(frozen=True, slots=True)
class Order:
    """A run as the facts need it: what is frozen, and what the shop says today."""

    run_id: UUID
    name: str
    occurrence_key: str
    priority: int
    nominal_at: datetime
    holdout: float
    shop: Shop
    facts: RunFacts
    trigger: Trigger | None = None

    @property
    def capped(self) -> bool:
        """Whether a cap of the shop or of any place could bind a message of this run."""
        return bool(self.facts.caps) or self.history > timedelta(0)

    @property
    def history(self) -> timedelta:
        """How far back the caps can look that could bind."""
        if not self.facts.marketing:
            return timedelta(0)
        return max(longest_window(self.facts.caps), longest_law_window(self.facts.channel))


def order_of(run: Run, shop: Shop, *, stopped: bool, urgent: bool) -> Order:
    """Return the order for a run, under the shop's present rules."""
    marketing = run.class_ == "marketing"
    topic = shop.topics.get(run.topic) if run.topic else None
    caps = tuple(c for c in shop.caps if run.channel in c.channels and (c.topics is None or run.topic in c.topics))
    campaign = run.campaign
    rules = run.campaign or run.trigger
    return Order(
        run_id=run.id,
        name=run.name,
        occurrence_key=run.occurrence_key,
        priority=run.priority,
        nominal_at=run.nominal_at,
        holdout=campaign.holdout if campaign else 0.0,
        shop=shop,
        facts=RunFacts(
            state=run.state,
            stopped=stopped,
            channel=run.channel,
            topic=run.topic,
            class_=run.class_,
            urgent=urgent,
            is_answer=run.kind == "standing" and run.occurrence_key == ANSWERS,
            double_opt_in=topic.double_opt_in if topic else False,
            bases=topic.bases if topic else (),
            guard=GUARD[run.channel],
            caps=caps if marketing else (),
            on_cap=rules.on_cap if rules else "skip",
        ),
        trigger=run.trigger,
    )


def read_facts(
    connection: Connection,
    order: Order,
    contact_ids: Sequence[int],
    *,
    now: datetime,
    expires_at: datetime | Mapping[int, datetime],
    first_due_at: Mapping[int, datetime] | None = None,
    live: bool = False,
    outside_segment: Collection[int] = (),
    held_out_by_hash: bool = True,
    messages: Collection[UUID] = (),
) -> list[tuple[str, Facts]]:
    """Return (external id, facts) for every contact of `contact_ids`, in contact order; one query.

    `first_due_at`: of each contact; without it the nominal time of the run.
    `live`: caps count what was authorised later than `now`, too, which only a clock that was set back can show.
    `messages`: those of a trigger that are asked about, at most one for each contact; their flows are read with them.
    """
    rows = connection.execute(
        _query(order),
        {
            "contact_ids": list(contact_ids),
            "topic": order.facts.topic,
            "run_id": order.run_id,
            "since": now - order.history,
            "now": now,
            "until": _END_OF_TIME if live else now,
            "priority": order.priority,
            **(exits.parameters(order.trigger, list(messages)) if order.trigger else {}),
        },
    )
    rules = local_rules(order.shop, order.facts.channel, order.facts.class_, order.facts.topic, now)
    holdout = order.holdout if held_out_by_hash else 0.0
    common = rank_of(order, order.nominal_at)
    page = []
    for row in rows:
        contact_id: int = row[0]
        expiry = expires_at if isinstance(expires_at, datetime) else expires_at[contact_id]
        rank = rank_of(order, first_due_at[contact_id]) if first_due_at else common
        inside = contact_id not in outside_segment
        facts = _facts(order, rules, row, expiry, inside, holdout, rank)
        if order.trigger is not None:
            facts = replace(facts, flow=exits.flow_of(order.trigger, row[-len(exits.COLUMNS) :], now))
        page.append((row[1], facts))
    return page


def rank_of(order: Order, first_due_at: datetime) -> Rank:
    """Return the place of the run's message that was first due then among all that a person may get."""
    return -order.priority, first_due_at, order.name, order.occurrence_key


def _facts(
    order: Order, rules: LocalRules, row: Row[Any], expires_at: datetime, inside: bool, holdout: float, rank: Rank
) -> Facts:
    """Return the facts of one row, unpacked by position: this runs once for every contact of every audience."""
    (
        contact_id, external_id, zone, country, subdivision, phone_region, paused_until, quiet_hours,
        address_id, address_state, suppressions,
        consent, consent_address_id, confirmed, effective_at, consent_expires_at, event_id,
        consent_basis, merged_into, duplicate_of, to_contact, to_address, rivals, *_,
    ) = tuple(row)  # fmt: skip
    here = rules.here(zone, country, subdivision, phone_region, quiet_hours if order.facts.marketing else None)
    return Facts(
        order.facts,
        contact_id,
        expires_at,
        address_id,
        address_state != "bad",
        tuple((reason, scope) for reason, scope in suppressions) if suppressions else (),
        consent or "none",
        consent_address_id == address_id,
        bool(confirmed),
        effective_at,
        consent_expires_at,
        event_id,
        consent_basis,
        paused_until,
        inside,
        None,
        holdout > 0 and share_of("holdout", order.name, external_id) < holdout,
        f"contact {merged_into}, which they were merged into" if merged_into is not None else duplicate_of,
        False,
        here.places,
        here.silences,
        here.caps,
        share_of(order.name, order.occurrence_key, external_id) if here.silences else 0.0,
        _counted(to_contact, to_address) if to_contact or to_address else (),
        _rivals(rivals) if rivals else (),
        rank,
    )


def _rivals(rivals: list[Any]) -> tuple[Rival, ...]:
    """Return the rivals, best first; sorted here, as a database may sort names by the rules of a language."""
    found = (Rival(*rival[:7], *(datetime.fromisoformat(at) for at in rival[7:])) for rival in rivals)
    return tuple(sorted(found, key=attrgetter("rank")))


def _counted(to_contact: list[Any] | None, to_address: list[Any] | None) -> tuple[Counted, ...]:
    """Return what caps count; a message to this contact at this address is told twice, once for each count."""
    return tuple(
        Counted(datetime.fromisoformat(at), channel, topic, to_contact=contact, to_address=not contact)
        for rows, contact in ((to_contact, True), (to_address, False))
        for at, channel, topic in rows or ()
    )


def share_of(*parts: str) -> float:
    """Return a number in [0, 1) that is the same for the same parts, on every machine and for ever."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _query(order: Order) -> TextClause:
    return _build(order.facts.channel, order.facts.marketing, order.capped, order.trigger is not None)


@cache
def _build(channel: str, marketing: bool, capped: bool, flow: bool) -> TextClause:
    """Return the query with only the parts that this kind of message needs."""
    tables, joins = "", ""
    columns = ["NULL AS duplicate_of", "NULL AS to_contact", "NULL AS to_address", "NULL AS rivals"]
    if marketing:
        tables += ", " + _DUPLICATES.format(channel=channel)
        joins += "LEFT JOIN duplicate d ON d.contact_id = c.id\n"
        columns[0] = "d.taken_by AS duplicate_of"
    if capped:
        tables += f", {_HISTORY}, {_RIVALS}"
        joins += """LEFT JOIN to_contact hc ON hc.id = c.id
LEFT JOIN to_address ha ON ha.id = c.id
LEFT JOIN rival r ON r.id = c.id"""
        columns[1:] = ["hc.counted AS to_contact", "ha.counted AS to_address", "r.rivals"]
    if flow:
        tables += f", {exits.TABLES}"
        joins += exits.JOINS
        columns += exits.COLUMNS
    return text(
        _CONTACTS.format(channel=channel, more_tables=tables, more_columns=", ".join(columns), more_joins=joins)
    )
