"""What a provider's own suppression lists and ours have of each other, and how far a mailbox of bounces was read."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from dispatcher.tables.base import instant, metadata

mirror = Table(  # one row for each provider that has such lists
    "mirror",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("consent_seen", BigInteger, nullable=False, server_default=text("0")),  # consent_event.id
    instant("reconcile_at", stamped=True),  # when the lists are compared again; the database's own clock
    instant("wait_until"),  # it has had enough, or is away
)

# Written in the transaction that changes what we want to stand there, gone once the provider has said yes: whatever
# dies in between, the row is still there.
mirror_change = Table(
    "mirror_change",
    metadata,
    Column("address_id", BigInteger, ForeignKey("address.id"), primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False, server_default=text("1")),  # rises while somebody carries it out
    instant("since", stamped=True),
    Column("failures", SmallInteger, nullable=False, server_default=text("0")),
    instant("retry_at"),
)

mirrored = Table(  # what we put there, noted before it is: no evidence of anything a person did
    "mirrored",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("list", Text, primary_key=True),
    Column("address_id", BigInteger, ForeignKey("address.id"), primary_key=True, autoincrement=False),
    instant("put_at", required=True),
)

suppression_lift = Table(  # the newest time that a suppression was taken back: what is older must not bring it again
    "suppression_lift",
    metadata,
    Column("address_id", BigInteger, ForeignKey("address.id"), primary_key=True, autoincrement=False),
    Column("reason", Text, primary_key=True),
    instant("lifted_at", required=True),
    instant("removed_there_at"),  # from the provider's lists
)

mirror_report = Table(
    "mirror_report",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("provider", Text, nullable=False),
    instant("started_at", required=True),
    instant("finished_at"),
    Column("complete", Boolean, nullable=False, server_default=text("false")),
    Column("figures", JSONB, nullable=False, server_default=text("'{}'")),
    Column("flaw", Text),  # why it is not complete
)

mirror_difference = Table(
    "mirror_difference",
    metadata,
    Column("report_id", BigInteger, ForeignKey("mirror_report.id", ondelete="CASCADE"), nullable=False),
    Column("list", Text, nullable=False),
    Column("address_id", BigInteger, ForeignKey("address.id"), nullable=False),
    Column("what", Text, nullable=False),
    Index(None, "report_id"),
)

mailbox = Table(  # how far it was read: its mails have numbers that only rise
    "mailbox",
    metadata,
    Column("name", Text, primary_key=True),  # user, host and folder; no password
    Column("uid_validity", BigInteger, nullable=False),
    Column("last_uid", BigInteger, nullable=False),
    Column("set_aside", Integer, nullable=False, server_default=text("0")),  # mails that could not be read
    instant("read_at"),
)
