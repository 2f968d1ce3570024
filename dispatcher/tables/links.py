"""Where the links of messages lead whose clicks are counted.  No foreign keys, as in `message`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, LargeBinary, SmallInteger, Table, Text, Uuid

from dispatcher.tables.base import metadata

run_link = Table(  # the links that are the same in every message of a run
    "run_link",
    metadata,
    Column("run_id", Uuid, primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("destination", Text, nullable=False),
)

tracked_message = Table(  # a message by a number that is short enough for the link in an SMS
    "tracked_message",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("message_id", Uuid, nullable=False, unique=True),
    Column("contact_id", BigInteger, nullable=False),  # under whose data key the links are sealed
    Column("sealed", LargeBinary),  # the links that are this message's own, by their numbers
)
