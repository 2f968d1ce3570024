"""What the systems the shop sells with have told us: how new, how often, and what they asked for."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from dispatcher.tables.base import instant, metadata, one_of

STOREFRONTS = ("shopify", "woocommerce")

storefront_customer = Table(  # how new what we know of a customer is, so that an older body overwrites nothing
    "storefront_customer",
    metadata,
    Column("source", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    instant("changed_at", required=True),
    PrimaryKeyConstraint("source", "customer_id"),
    one_of("source", STOREFRONTS),
)

storefront_count = Table(  # what became of the requests, by topic
    "storefront_count",
    metadata,
    Column("source", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    instant("last_at", required=True),
    PrimaryKeyConstraint("source", "topic", "outcome"),
    one_of("source", STOREFRONTS),
)

storefront_request = Table(  # what somebody has a right to, asked for through the storefront
    "storefront_request",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False),  # the storefront's own number of it, of its customer, or its domain
    Column("contact_id", BigInteger, ForeignKey("contact.id")),
    instant("requested_at", required=True),
    instant("due_at", required=True),
    instant("done_at"),
    Column("done_by", Text),
    UniqueConstraint("source", "kind", "reference"),
    Index("storefront_request_open_idx", "id", postgresql_where=text("done_at IS NULL")),
    one_of("source", STOREFRONTS),
    one_of("kind", ("export", "erasure", "shop_erasure")),
)
