"""The broker: where tickets wait.  A ticket may be lost, late or doubled without harm; the ledger is the queue's truth.

So there is no middleware that retries, delays, expires, limits or stores anything, and a broker that is away costs
seconds, nothing else.
"""

from __future__ import annotations

import dramatiq
import dramatiq.errors
import structlog
from dramatiq.brokers.redis import RedisBroker
from redis.exceptions import RedisError

log = structlog.get_logger()

RELEASE, PLAN, HOUSEKEEPING = "release", "plan", "housekeeping"
#: What may take long stands in nobody's way: sorting feedback has a queue, and so have looking at how runs go, asking
#: providers about what is in doubt, and what waits for their lists or a mailbox.
FEEDBACK, WATCH, DOUBT, MIRRORS = "feedback", "watch", "doubt", "mirrors"
#: Erasures, the chain over the audit, and what is kept no longer.
RIGHTS = "rights"
MARKETING_LANES = ("email.marketing", "sms.marketing")
TRANSACTIONAL_LANES = ("email.transactional", "sms.transactional")
LANES = (*MARKETING_LANES, *TRANSACTIONAL_LANES)

#: More waiting tickets in a queue of the clock's own than this say nothing new: it has two actors at most.
ENOUGH_WAITING = 2


def connect(url: str) -> RedisBroker:
    """Make this process's broker; call before importing `workers.actors`.

    By URL: redis-py then repeats no command behind our back.  Dead workers' tickets come back within seconds.
    """
    broker = RedisBroker(  # type: ignore[no-untyped-call]  # dramatiq has no types there
        url=url, middleware=[], namespace="dispatcher", maintenance_chance=1_000_000, heartbeat_timeout=5_000
    )
    dramatiq.set_broker(broker)
    for lane in LANES:
        broker.declare_queue(lane)
    return broker


def wake(actor: dramatiq.Actor[[], None]) -> None:
    """Put a ticket for one of the clock's actors into its queue, unless enough of them wait already.

    A broker that is away is only logged: the next tick tries again.
    """
    broker = actor.broker
    assert isinstance(broker, RedisBroker)
    try:
        waiting: int = broker.client.llen(f"{broker.namespace}:{actor.queue_name}")
        if waiting < ENOUGH_WAITING:
            actor.send()
    except (RedisError, dramatiq.errors.ConnectionError) as error:
        log.warning("broker.away", actor=actor.actor_name, error=type(error).__name__)
