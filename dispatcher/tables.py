"""Every record we keep, as SQLAlchemy tables.

The schema itself is made by `migrations/`; a test proves that both agree.  Three rules hold everywhere:

* Lock order: run, contacts by id, addresses by id, messages, lane, and last the consent chain.
* `*_at` of the ledger is in engine time (`clock.read_now`); leases, heartbeats, tickets use the database's own clock.
* Personal data (e-mail, phone, names, free data of transactional messages) is only in `sealed` columns, encrypted under
  the contact's own data key; look-ups go through the keyed hash in `address.hash`.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

CHANNELS = ("email", "sms")
CLASSES = ("marketing", "transactional", "security")
BASES = ("consent", "soft_opt_in", "implied_purchase", "implied_inquiry")


def _instant(name: str, *, required: bool = False, stamped: bool = False) -> Column[object]:
    """A UTC instant; `stamped` fills it with the database's own clock."""
    default = text("clock_timestamp()") if stamped else None
    return Column(name, DateTime(timezone=True), nullable=not (required or stamped), server_default=default)


def _one_of(name: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{name} IN ({', '.join(repr(v) for v in values)})", name=name)


#: One line of order for everything that must be compared across tables: an authorisation and a withdrawal draw from it
#: while they hold the same row locks, so the smaller number really came first.
order_seq = Sequence("order_seq", metadata=metadata)

engine = Table(
    "engine",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("clock_offset", Interval, nullable=False, server_default=text("'0'")),
    _instant("stopped_at"),
    Column("stopped_by", Text),
    Column("key_fingerprints", JSONB, nullable=False, server_default=text("'[]'")),
    Column("hash_key", LargeBinary),  # wrapped by the newest of SECRET_KEYS; kept while an address row needs it
    Column("tzdata", Text),  # the zone rules that the last process started with
    Column("shop", JSONB),  # what `apply` read from dispatcher.toml: definitions.Shop
    CheckConstraint("id = 1", name="single"),
)

contact = Table(
    "contact",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("external_id", Text, nullable=False, unique=True),  # the first of its aliases
    Column("locale", Text),
    Column("country", Text),  # ISO 3166-1 alpha-2
    Column("subdivision", Text),  # ISO 3166-2 without the country
    Column("zone", Text),  # IANA zone stated by or for the contact
    Column("phone_region", Text),  # what the number says of a place: places.tables.phone_region
    Column("attributes", JSONB, nullable=False, server_default=text("'{}'")),
    Column("data_key", LargeBinary),  # wrapped; NULL once erased
    Column("sealed", LargeBinary),  # personal fields: keys.Personal
    Column("email_address_id", BigInteger, ForeignKey("address.id")),
    Column("sms_address_id", BigInteger, ForeignKey("address.id")),
    Column("version", Integer, nullable=False, server_default=text("1")),  # rises with every change that rendering sees
    Column("merged_into", BigInteger, ForeignKey("contact.id")),
    _instant("paused_until"),
    _instant("erased_at"),
    _instant("created_at", stamped=True),
    Index(None, "email_address_id"),
    Index(None, "sms_address_id"),
    Index(None, "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
)

contact_alias = Table(
    "contact_alias",
    metadata,
    Column("external_id", Text, primary_key=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, index=True),
    _instant("created_at", stamped=True),
)

address = Table(
    "address",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("channel", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # keys.KeyRing.address_hash
    Column("state", Text, nullable=False, server_default=text("'ok'")),
    _instant("created_at", stamped=True),
    UniqueConstraint("channel", "hash"),
    _one_of("channel", CHANNELS),
    _one_of("state", ("ok", "bad")),
)

suppression = Table(
    "suppression",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("address_id", BigInteger, ForeignKey("address.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("order_seq", BigInteger, nullable=False),
    _instant("created_at", required=True),
    UniqueConstraint("address_id", "reason"),
    _one_of("reason", ("hard_bounce", "invalid", "complaint", "unsubscribe", "stop", "operator", "erasure")),
    _one_of("scope", ("all", "marketing")),
)

consent_event = Table(
    "consent_event",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without a gap: arrival order
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, index=True),
    Column("channel", Text, nullable=False),
    Column("address_id", BigInteger, ForeignKey("address.id")),
    Column("address_hash", LargeBinary),
    Column("topic", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _instant("occurred_at", required=True),
    _instant("received_at", required=True),
    Column("source", Text, nullable=False),  # form, page, file hash and line ...: how we know
    Column("wording", JSONB),  # {"id", "hash", "language"}
    Column("opt_in_level", Text),  # single_opt_in, confirmed_opt_in
    Column("basis", Text),  # of a grant: what it rests on
    Column("confirmation", JSONB),  # the confirmation message whose link was used, and that the provider accepted it
    Column("sealed", LargeBinary),  # IP, user agent: under the contact's data key
    Column("order_seq", BigInteger, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Index("consent_event_requests_idx", "address_id", postgresql_where=text("action = 'requested'")),
    _one_of("channel", CHANNELS),
    _one_of("action", ("requested", "granted", "withdrawn")),
    _one_of("actor", ("person", "import", "shop", "operator")),
    _one_of("basis", BASES),
)

consent_head = Table(  # the newest piece of evidence, noted beside the chain: an end that was cut off is missed
    "consent_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("event_id", BigInteger, nullable=False),  # 0: there is none yet
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

consent = Table(
    "consent",
    metadata,
    Column("contact_id", BigInteger, ForeignKey("contact.id"), primary_key=True, autoincrement=False),
    Column("channel", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("address_id", BigInteger, ForeignKey("address.id")),  # consent holds for this address only
    Column("state", Text, nullable=False),
    Column("confirmed", Boolean, nullable=False, server_default=text("false")),  # satisfies a double opt-in topic
    Column("basis", Text),  # of a grant
    _instant("effective_at", required=True),
    _instant("expires_at"),  # of a grant that does not rest on consent; read at decide time
    Column("event_id", BigInteger, ForeignKey("consent_event.id"), nullable=False),
    _one_of("channel", CHANNELS),
    _one_of("state", ("pending", "granted", "withdrawn")),  # no row: none
    _one_of("basis", BASES),
)

event = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False, server_default=text("'shop'")),
    Column("source_key", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False),
    Column("name", Text, nullable=False),
    _instant("occurred_at", required=True),
    _instant("received_at", stamped=True),
    Column("value", Numeric, nullable=False, server_default=text("0")),
    Column("properties", JSONB, nullable=False, server_default=text("'{}'")),
    UniqueConstraint("source", "source_key"),
    Index(None, "contact_id", "name", "occurred_at"),
    Index(None, "source", "received_at"),
)

event_item = Table(
    "event_item",
    metadata,
    Column("event_id", BigInteger, ForeignKey("event.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("interests", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("quantity", Numeric, nullable=False, server_default=text("1")),
    Column("value", Numeric, nullable=False, server_default=text("0")),
    Column("properties", JSONB, nullable=False, server_default=text("'{}'")),
)

interest = Table(
    "interest",
    metadata,
    Column("contact_id", BigInteger, ForeignKey("contact.id"), primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    # log2 of the sum of 2^((t - LANDMARK) / half-life) over the items: grows by new items only, never with time.
    Column("log2_mass", Double, nullable=False),
    Column("half_life_days", Double, nullable=False),
    Index(None, "name", "contact_id"),
)

segment = Table(
    "segment",
    metadata,
    Column("name", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    Column("version", Integer, nullable=False, server_default=text("1")),
)

template = Table(  # content by hash: what a run froze can be read for ever
    "template",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("channel", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("files", JSONB, nullable=False),  # file name -> text, meta.yaml included
    Column("current", Boolean, nullable=False, server_default=text("true")),  # the one `apply` read last
    Index("template_current_key", "channel", "name", unique=True, postgresql_where=text("current")),
)

campaign = Table(
    "campaign",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("definition", JSONB, nullable=False),  # definitions.Campaign
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    _instant("fires_after"),  # only occurrences later than this count: the last edit or the last fire
    _instant("next_fire_at"),
    Index(None, "next_fire_at", postgresql_where=text("next_fire_at IS NOT NULL")),
)

trigger = Table(  # triggers/*.yaml: what starts a message of its own for each event
    "trigger",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("definition", JSONB, nullable=False),  # definitions.Trigger
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    Column("paused", Boolean, nullable=False, server_default=text("false")),  # by a human: new versions are born paused
)

flow_exit = Table(  # events that end a flow by its key, whoever's they are; those by contact are found in `event`
    "flow_exit",
    metadata,
    Column("trigger_id", BigInteger, ForeignKey("trigger.id"), primary_key=True, autoincrement=False),
    Column("key", LargeBinary, primary_key=True),  # as message.trigger_key
    Column("event_id", BigInteger, ForeignKey("event.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Index(None, "event_id"),
)

run = Table(
    "run",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False, server_default=text("'campaign'")),
    Column("campaign_id", BigInteger, ForeignKey("campaign.id")),
    Column("trigger_id", BigInteger, ForeignKey("trigger.id")),  # of a standing run: whose version it carries
    Column("name", Text, nullable=False),  # the campaign's name, or for a standing run the trigger's or template's
    Column("occurrence_key", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text),
    Column("class", Text, nullable=False, key="class_"),
    Column("lane", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False, server_default=text("50")),
    Column("definition", JSONB, nullable=False),
    Column("segment", JSONB),
    Column("template_hash", Text, ForeignKey("template.hash"), nullable=False),
    Column("tzdata", Text, nullable=False),
    _instant("nominal_at", required=True),
    _instant("as_of", required=True),
    Column("audience", Integer, nullable=False, server_default=text("0")),
    Column("pages", Integer, nullable=False, server_default=text("0")),
    Column("state", Text, nullable=False),
    Column("started_by", Text),
    _instant("created_at", required=True),
    _instant("planned_at"),
    _instant("finished_at"),
    _instant("watched_from"),  # the brake looks at what was authorised later: the last resume by a human
    Column("brake", JSONB),  # why the brake paused it, until somebody resumes it
    UniqueConstraint("campaign_id", "occurrence_key"),
    UniqueConstraint("trigger_id", "occurrence_key"),
    Index(
        "run_standing_key",
        "template_hash",
        unique=True,
        postgresql_where=text("kind = 'standing' AND trigger_id IS NULL"),
    ),
    Index(None, "state", postgresql_where=text("finished_at IS NULL")),
    _one_of("kind", ("campaign", "standing")),
    _one_of("channel", CHANNELS),
    _one_of("class", CLASSES),
    _one_of("state", ("planning", "running", "paused", "cancelled", "finished", "missed")),
)

audience_page = Table(  # who the segment selected at `as_of`, frozen: a page is planned whole or not at all
    "audience_page",
    metadata,
    Column("run_id", Uuid, ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("page", Integer, primary_key=True, autoincrement=False),
    Column("contact_ids", ARRAY(BigInteger), nullable=False),
    _instant("planned_at"),
)

OPEN = text("status IN ('pending', 'sending')")
AUTHORISED = text("authorised_at IS NOT NULL")
TROUBLE = text("status IN ('bounced', 'unknown', 'failed')")
MAY_HAVE_LEFT = "('sending', 'sent', 'delivered', 'bounced', 'unknown')"

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
    _instant("due_at", required=True),
    _instant("first_due_at", required=True),
    Column("deferred_reason", Text),
    _instant("expires_at", required=True),
    Column("facts", JSONB),  # of the gate that objected
    Column("batch_id", BigInteger),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    _instant("authorised_at"),
    Column("authorise_seq", BigInteger),
    _instant("send_deadline"),
    Column("worker_id", Uuid),
    _instant("handed_over_at"),
    _instant("settled_at"),
    Column("provider", Text),
    Column("provider_ref", Text),
    Column("client", Text),  # who asked for it singly: an API key's name, or `trigger`; NULL: one of an audience
    Column("idempotency_key", Text),
    Column("body_hash", LargeBinary),
    Column("sealed", LargeBinary),  # what the shop sent along (data, event), under the contact's data key
    Column("trigger_id", BigInteger),
    Column("trigger_key", LargeBinary),  # keyed hash of what the trigger's `key` rendered to: it may be personal
    Column("event_id", BigInteger),  # the newest event of that key
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
    _one_of("channel", CHANNELS),
    _one_of("class", CLASSES),
    _one_of(
        "status",
        ("pending", "sending", "sent", "delivered", "bounced", "skipped", "failed", "cancelled", "unknown"),
    ),
)

attempt = Table(  # earlier tries of a message; the latest is in the message itself
    "attempt",
    metadata,
    Column("message_id", Uuid, ForeignKey("message.id"), primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    _instant("authorised_at", required=True),
    Column("authorise_seq", BigInteger),
    _instant("send_deadline"),
    _instant("handed_over_at"),
    _instant("settled_at"),
    Column("worker_id", Uuid),
    Column("provider", Text),
    Column("provider_ref", Text),
    Column("outcome", Text, nullable=False),
    Column("detail", Text),
    _one_of("outcome", ("not_sent", "retry", "unknown")),
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
    _instant("lease_until"),
    _instant("ticketed_at"),
    _instant("created_at", stamped=True),
    Index("batch_ready_idx", "lane", "id", postgresql_where=text("state = 'ready'")),
    Index("batch_claimed_idx", "worker_id", postgresql_where=text("state = 'claimed'")),
    _one_of("state", ("ready", "claimed", "done")),
)

lane = Table(
    "lane",
    metadata,
    Column("name", Text, primary_key=True),
    Column("rate_per_second", Double),  # NULL: as fast as the provider takes it
    Column("burst", Integer, nullable=False, server_default=text("1")),
    _instant("theoretical_arrival_at"),  # GCRA
    _instant("paused_until"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("host", Text, nullable=False),  # host name and boot id: only there can its death be proved
    Column("pid", Integer, nullable=False),
    Column("lock_path", Text, nullable=False),  # held by flock for life: the kernel drops it on death, never on pause
    Column("queues", ARRAY(Text), nullable=False),
    Column("slots", Integer, nullable=False),
    _instant("started_at", stamped=True),
    _instant("heartbeat_at", stamped=True),
    _instant("ended_at"),
)

unsubscribe = Table(  # one answered request at /u: what it waited for and when it said so
    "unsubscribe",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id"), nullable=False, index=True),
    Column("address_id", BigInteger, ForeignKey("address.id")),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),
    _instant("committed_at", required=True),
    _instant("answered_at"),
    Column("answer", SmallInteger),  # 200 or 202
)

feedback_inbox = Table(  # what came in as it came in, until it is sorted: the sender was told that we have it
    "feedback_inbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("data_key", LargeBinary, nullable=False),  # wrapped; a key of this row alone
    Column("sealed", LargeBinary, nullable=False),
    Column("failures", SmallInteger, nullable=False, server_default=text("0")),
    _instant("received_at", required=True),
    _instant("retry_at"),
    _one_of("source", ("sendgrid", "twilio.status", "twilio.inbound")),
)

# What providers and mail servers reported, one row per event, also what makes no sense to us.  No foreign keys, as
# in `message`: three checks a row would cost as much as the row, and what they point at is never deleted.
feedback = Table(
    "feedback",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("event_key", LargeBinary, nullable=False),  # keyed hash of what makes the event this event
    Column("provider_event_id", Text),
    Column("kind", Text),  # NULL: nothing that concerns a message
    Column("hard", Boolean),  # of a bounce: the address cannot work
    Column("code", Text),
    Column("message_id", Uuid, index=True),
    Column("contact_id", BigInteger),
    Column("address_id", BigInteger),
    _instant("occurred_at", required=True),
    _instant("received_at", required=True),
    Column("flaw", Text),  # why it moved nothing, where it should have
    Column("data_key", LargeBinary),  # wrapped; only where there is no contact whose key would do
    Column("sealed", LargeBinary),  # the event as it came
    UniqueConstraint("source", "event_key"),
    UniqueConstraint("source", "provider_event_id"),
    Index(None, "address_id", "kind", "occurred_at"),
    Index("feedback_complained_idx", "received_at", postgresql_where=text("kind = 'complained'")),
    _one_of(
        "kind",
        ("accepted", "delayed", "delivered", "dropped", "bounced", "opened", "clicked", "complained", "unsubscribed"),
    ),
)

reply = Table(  # what somebody texted to us
    "reply",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("provider_event_id", Text, nullable=False),
    Column("address_id", BigInteger, ForeignKey("address.id"), nullable=False, index=True),
    Column("contact_id", BigInteger, ForeignKey("contact.id")),
    Column("reading", Text, nullable=False),
    _instant("received_at", required=True),
    Column("answer_id", Uuid, ForeignKey("message.id")),
    Column("review", Text),  # open, then what somebody found it to be
    _instant("reviewed_at"),
    Column("reviewed_by", Text),
    Column("data_key", LargeBinary),
    Column("sealed", LargeBinary),
    UniqueConstraint("source", "provider_event_id"),
    Index("reply_open_idx", "id", postgresql_where=text("review = 'open'")),
    _one_of("reading", ("stop", "asks_to_stop", "start", "help", "other")),
    _one_of("review", ("open", "stop", "not_stop")),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    _instant("created_at", stamped=True),
    _instant("last_used_at"),
    _instant("revoked_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    _instant("at", stamped=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default=text("'{}'")),
)
