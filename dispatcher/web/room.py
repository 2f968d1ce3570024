"""What every handler needs, and the threads the database is talked to in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from pydantic import SecretStr
from sqlalchemy import Connection, Engine
from starlette.requests import HTTPConnection

from dispatcher import unsubscribe
from dispatcher.feedback.signatures import read_sendgrid_key
from dispatcher.figures import Figures
from dispatcher.keys import KeyRing
from dispatcher.metrics import Metrics
from dispatcher.rate_limit import RateLimit, SharedRateLimit
from dispatcher.runtime import Runtime
from dispatcher.storefronts.signatures import secrets_of
from dispatcher.tokens import ClickTokens, DataTokens, OptInTokens, PreferenceTokens, UnsubscribeTokens
from dispatcher.web.bad_links import BadLinks
from dispatcher.web.cursors import Cursors
from dispatcher.web.health import Health

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pools:
    """How many threads (and so database connections) each kind of request may use at once.

    Each has its own: a mail scanner that opens ten thousand links must not stand in front of one person who clicks the
    button.  Together they stay below what `db.engine_for` opens at most.
    """

    withdrawals: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(10))
    looks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(3))
    pages: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    clicks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(3))
    notes: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))  # of clicks, behind their redirects
    api: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(7))
    simulations: CapacityLimiter = field(
        default_factory=lambda: CapacityLimiter(1)
    )  # seconds long, and busy all the time
    hooks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))
    health: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(2))  # one for the database, one not
    metrics: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))  # and one counts in the background


@dataclass(frozen=True, slots=True)
class Room:
    database: Engine
    broker_url: str
    key_ring: KeyRing
    tokens: UnsubscribeTokens
    opt_ins: OptInTokens
    clicks: ClickTokens
    homes: PreferenceTokens
    data_links: DataTokens
    wait: timedelta  #: how long an unsubscribe waits for what is on the wire
    public_url: str
    sendgrid_webhook_key: str | None
    twilio_auth_token: str | None
    sandbox_only: bool
    storefront_secrets: Mapping[str, tuple[str, ...]]  #: by source; empty: nothing of theirs is taken
    outbox: Path | None  #: the sandbox's, while there is nothing but the sandbox
    rate_limit: RateLimit  #: of API keys
    cursors: Cursors
    figures: Figures
    metrics: Metrics
    health: Health
    pools: Pools
    bad_links: BadLinks = field(default_factory=BadLinks)


def open_room(runtime: Runtime, *, wait: timedelta = unsubscribe.LONGEST_WAIT) -> Room:
    settings = runtime.settings
    if settings.sendgrid_webhook_key:
        read_sendgrid_key(settings.sendgrid_webhook_key)  # a wrong one is told now, not with the first event
    figures, pools = Figures(), Pools()
    return Room(
        database=runtime.database,
        broker_url=runtime.broker_url,
        key_ring=runtime.key_ring,
        tokens=UnsubscribeTokens(runtime.key_ring),
        opt_ins=OptInTokens(runtime.key_ring),
        clicks=ClickTokens(runtime.key_ring),
        homes=PreferenceTokens(runtime.key_ring),
        data_links=DataTokens(runtime.key_ring),
        wait=wait,
        public_url=settings.public_url,
        sendgrid_webhook_key=settings.sendgrid_webhook_key,
        twilio_auth_token=settings.twilio_auth_token.get_secret_value() if settings.twilio_auth_token else None,
        sandbox_only=settings.sandbox_only,
        storefront_secrets={
            "shopify": _secrets(settings.shopify_secret),
            "woocommerce": _secrets(settings.woocommerce_secret),
        },
        outbox=settings.home / "sandbox" / "outbox.jsonl" if settings.sandbox_only else None,
        rate_limit=SharedRateLimit(runtime.broker_url),
        cursors=Cursors(runtime.key_ring),
        figures=figures,
        metrics=Metrics(runtime.database, figures),
        health=Health(runtime.database, runtime.broker_url, pools.health),
        pools=pools,
    )


def _secrets(setting: SecretStr | None) -> tuple[str, ...]:
    return secrets_of(setting.get_secret_value()) if setting else ()


def room_of(connection: HTTPConnection) -> Room:
    room: Room = connection.app.state.room
    return room


async def in_transaction(room: Room, work: Callable[[Connection], T]) -> T:
    """Return what `work` returns, done in one transaction of what people decide on their pages."""

    def transaction() -> T:
        with room.database.begin() as connection:
            return work(connection)

    return await in_thread(room.pools.withdrawals, transaction)


async def in_thread(pool: CapacityLimiter, work: Callable[[], T]) -> T:
    """Return what `work` returns, done in one of the pool's threads."""
    return await anyio.to_thread.run_sync(work, limiter=pool)
