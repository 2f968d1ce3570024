"""The ledger: one row per candidate, and how it is handed over."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Date,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dispatcher import lifecycle
from dispatcher.tables.base import CHANNELS, CLASSES, instant, metadata, one_of

OPEN = text("status IN ('pending', 'sending')")
AUTHORISED = text("authorised_at IS NOT NULL")
TROUBLE = text("status IN ('bounced', 'unknown', 'failed')")
MAY_HAVE_LEFT = str(tuple(status.value for status in lifecycle.MAY_HAVE_LEFT))  # as SQL writes it

# The one table that grows without end.  `run_id` and `address_id` are no foreign keys: their checks would cost the plan
# as much as writing the rows, and would lock the run's row for each of them.  Runs and addresses are never deleted.
message = Table(
    "message",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("run_id", Uuid, nullable=False),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text),
    Column("class", Text, nullable=False, key="class_"),
    Column("address_id", BigInteger),
    Column("status", Text, nullable=False),
    Column("reason", Text),  # why skipped, failed or cancelled
    instant("due_at", required=True),
    instant("first_due_at", required=True),
    Column("deferred_reason", Text),
    instant("expires_at", required=True),
    Column("facts", JSONB),  # of the gate that objected
    Column("batch_id", BigInteger),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    instant("authorised_at"),
    Column("authorise_seq", BigInteger),
    instant("send_deadline"),
    Column("worker_id", Uuid),
    instant("handed_over_at"),
    instant("settled_at"),
    Column("provider", Text),
    Column("provider_ref", Text),
    Column("client", Text),  # who asked for it singly: an API key's name, or `trigger`; NULL: one of an audience
    Column("idempotency_key", Text),
    Column("body_hash", LargeBinary),
    Column("sealed", LargeBinary),  # what the shop sent along (data, event), under the contact's data key
    Column("trigger_id", BigInteger),
    Column("trigger_key", LargeBinary),  # keyed hash of what the trigger's `key` rendered to: it may be personal
    Column("event_id", BigInteger),  # the newest event of that key
    Column("units", SmallInteger),  # what it took of its provider's rate: the parts of an SMS; NULL: one
    Index(
        "message_once_per_contact",
        "run_id",
        "contact_id",
        "channel",
        unique=True,
        postgresql_where=text("client IS NULL"),
    ),
    Index(
        "message_once_per_address",
        "run_id",
        "channel",
        "address_id",
        unique=True,
        postgresql_where=text(f"client IS NULL AND status IN {MAY_HAVE_LEFT}"),
    ),
    UniqueConstraint("client", "idempotency_key"),
    Index("message_asked_for_idx", "run_id", "id", postgresql_where=text("client IS NOT NULL")),  # lists of them
    Index(
        "message_once_per_trigger_key",
        "trigger_id",
        "trigger_key",
        "channel",
        unique=True,
        postgresql_where=text("trigger_id IS NOT NULL"),
    ),
    Index("message_due_idx", "due_at", postgresql_where=text("status = 'pending' AND batch_id IS NULL")),
    Index("message_open_by_run_idx", "run_id", "batch_id", postgresql_where=OPEN),
    Index("message_open_by_contact_idx", "contact_id", postgresql_where=OPEN),
    Index(  # who waits behind whom
        "message_outranked_by_idx",
        text("(facts->>'run')"),
        postgresql_where=text("status = 'pending' AND deferred_reason = 'OUTRANKED'"),
    ),
    Index("message_contact_history_idx", "contact_id", "authorised_at", postgresql_where=AUTHORISED),
    Index("message_address_history_idx", "address_id", "authorised_at", postgresql_where=AUTHORISED),
    Index("message_trouble_idx", "run_id", "status", postgresql_where=TROUBLE),
    Index("message_unknown_idx", "settled_at", postgresql_where=text("status = 'unknown'")),
    Index("message_single_by_contact_idx", "contact_id", postgresql_where=text("client IS NOT NULL")),
    Index("message_sealed_idx", "settled_at", postgresql_where=text("sealed IS NOT NULL")),
    one_of("channel", CHANNELS),
    one_of("class", CLASSES),
    one_of("status", tuple(status.value for status in lifecycle.Status)),
)

attempt = Table(  # earlier tries of a message; the latest is in the message itself
    "attempt",
    metadata,
    Column("message_id", Uuid, ForeignKey("message.id"), primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    instant("authorised_at", required=True),
    Column("authorise_seq", BigInteger),
    instant("send_deadline"),
    instant("handed_over_at"),
    instant("settled_at"),
    Column("worker_id", Uuid),
    Column("provider", Text),
    Column("provider_ref", Text),
    Column("outcome", Text, nullable=False),
    Column("detail", Text),
    Column("units", SmallInteger),  # what it took of the rate; NULL: one
    one_of("outcome", ("not_sent", "retry", "unknown")),
)

batch = Table(
    "batch",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", Uuid, ForeignKey("run.id"), nullable=False),
    Column("lane", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default=text("50")),
    Column("state", Text, nullable=False, server_default=text("'ready'")),
    Column("claim_token", Integer, nullable=False, server_default=text("0")),
    Column("worker_id", Uuid),
    instant("lease_until"),
    instant("ticketed_at"),
    instant("created_at", stamped=True),
    Index("batch_ready_idx", "lane", "id", postgresql_where=text("state = 'ready'")),
    Index("batch_claimed_idx", "worker_id", postgresql_where=text("state = 'claimed'")),
    one_of("state", ("ready", "claimed", "done")),
)

lane = Table(
    "lane",
    metadata,
    Column("name", Text, primary_key=True),
    Column("rate_per_second", Double),  # NULL: as fast as the provider takes it
    Column("burst", Integer, nullable=False, server_default=text("1")),
    instant("theoretical_arrival_at"),  # GCRA
    instant("paused_until"),
    instant("turn_until"),  # whoever asks now has a turn behind the hands that wait: a hint, no promise
    instant("line_until"),  # and whoever is put off comes back behind the messages that were
    Column("accounts", ARRAY(Text)),  # whose provider carries it, and who comes in for it: as the hands were started
)

account = Table(  # at a provider: the rate in its unit, how much it bears today, and whether it is worth asking
    "account",
    metadata,
    Column("name", Text, primary_key=True),
    Column("rate_per_second", Double),  # as configured; NULL: as fast as the provider takes it
    Column("burst", Integer, nullable=False, server_default=text("1")),
    Column("reserve", Double, nullable=False, server_default=text("0")),  # the share that no marketing takes
    instant("theoretical_arrival_at"),  # GCRA, of everybody
    instant("marketing_arrival_at"),  # GCRA, of marketing alone, at the rate less the reserve
    Column("whole_rate", Double),  # what it climbs up to; NULL: never lowered
    Column("lowered_to", Double),
    instant("lowered_at"),
    Column("circuit", Text, nullable=False, server_default=text("'closed'")),
    Column("failures", Integer, nullable=False, server_default=text("0")),  # in a row
    Column("openings", Integer, nullable=False, server_default=text("0")),  # in a row
    instant("open_until"),
    instant("probe_until"),
    Column("because", Text),  # nothing personal
    one_of("circuit", ("closed", "open", "half_open")),
)

domain_rate = Table(  # of mail over SMTP, by the domain it goes to; only those the shop names
    "domain_rate",
    metadata,
    Column("name", Text, primary_key=True),
    Column("rate_per_second", Double, nullable=False),
    Column("burst", Integer, nullable=False),
    instant("theoretical_arrival_at"),
    instant("line_until"),
)

warm_up_day = Table(  # what a sender whose warm-up is under way has authorised on one of its days
    "warm_up_day",
    metadata,
    Column("sender", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("authorised", Integer, nullable=False, server_default=text("0")),
)
