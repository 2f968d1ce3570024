"""How the house stands at this moment: small queries with an index each, asked at every scrape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from dispatcher import clock, figures
from dispatcher.doubt import FOR_GOOD_AFTER
from dispatcher.figures import Key
from dispatcher.rates import accounts, overview
from dispatcher.rates.accounts import AccountState, LaneState

#: A room that has not been heard of for so long is not counted as alive; it beats every two seconds.
SILENT_SECONDS = 10
_ASKED_SECONDS = 2


@dataclass(frozen=True, slots=True)
class State:
    lanes: list[LaneState]
    accounts: list[AccountState]
    warm_up: Mapping[str, int]  #: mails of the sender's day: `allowed`, `used`; empty: it is warm, or was never to be
    rooms: Mapping[str, int]  #: alive, by kind
    clock_silent_seconds: float | None  #: since the last beat of any clock; None: there never was one
    stopped: bool
    clock_offset_seconds: float
    runs: Mapping[str, int]  #: unfinished, by state
    braked: int  #: runs that the brake has paused
    campaigns_not_fired: int
    doubtful: int  #: unknown, and still looked into
    inbox_waiting: int
    inbox_failed: int  #: and is tried again
    inbox_not_understood: int  #: kept for an operator to see, and waits for nobody else
    inbox_oldest_seconds: float
    reviews: int  #: texts that somebody must read
    unsubscribes_waiting: int
    figures: Mapping[Key, float]


_SMALL = text("""
SELECT e.stopped_at IS NOT NULL AS stopped, extract(epoch FROM e.clock_offset) AS clock_offset,
    (SELECT extract(epoch FROM min(clock_timestamp() - heartbeat_at)) FROM worker
     WHERE kind = 'scheduler') AS clock_silent,
    (SELECT count(*) FROM run WHERE finished_at IS NULL AND state = 'paused' AND brake IS NOT NULL) AS braked,
    (SELECT count(*) FROM campaign WHERE active AND fire_error IS NOT NULL) AS campaigns_not_fired,
    (SELECT count(*) FROM message WHERE status = 'unknown' AND settled_at > :doubt_since) AS doubtful,
    i.waiting, i.failed, i.not_understood, i.oldest,
    (SELECT count(*) FROM reply WHERE review = 'open') AS reviews,
    (SELECT count(*) FROM (SELECT answered_at, committed_at FROM unsubscribe ORDER BY id DESC LIMIT 1000) AS newest
     WHERE answered_at IS NULL AND committed_at > clock_timestamp() + e.clock_offset - interval '1 minute') AS barrier
FROM engine e, (
    SELECT count(*) FILTER (WHERE flaw IS NULL AND failures = 0) AS waiting,
           count(*) FILTER (WHERE flaw IS NULL AND failures > 0) AS failed,
           count(*) FILTER (WHERE flaw IS NOT NULL) AS not_understood,
           COALESCE(extract(epoch FROM :now - min(received_at) FILTER (WHERE flaw IS NULL)), 0) AS oldest
    FROM feedback_inbox) AS i
""")
_ROOMS = text("""
SELECT kind, count(*) AS number FROM worker
WHERE ended_at IS NULL AND heartbeat_at > clock_timestamp() - make_interval(secs => :silent) GROUP BY kind
""")
_RUNS = text("SELECT state, count(*) AS number FROM run WHERE finished_at IS NULL AND kind = 'campaign' GROUP BY state")


def read_state(connection: Connection) -> State:
    """Return the state, in a transaction that gives up after two seconds."""
    connection.execute(text(f"SET LOCAL statement_timeout = '{_ASKED_SECONDS}s'"))
    now = clock.read_now(connection)
    row = connection.execute(_SMALL, {"doubt_since": now - FOR_GOOD_AFTER, "now": now}).one()
    rooms = connection.execute(_ROOMS, {"silent": SILENT_SECONDS})
    return State(
        lanes=accounts.read_states(connection, now),
        accounts=accounts.read_account_states(connection, now),
        warm_up=_warm_up(connection),
        rooms={room.kind: room.number for room in rooms},
        clock_silent_seconds=None if row.clock_silent is None else float(row.clock_silent),
        stopped=row.stopped,
        clock_offset_seconds=float(row.clock_offset),
        runs={run.state: run.number for run in connection.execute(_RUNS)},
        braked=row.braked,
        campaigns_not_fired=row.campaigns_not_fired,
        doubtful=row.doubtful,
        inbox_waiting=row.waiting,
        inbox_failed=row.failed,
        inbox_not_understood=row.not_understood,
        inbox_oldest_seconds=float(row.oldest),
        reviews=row.reviews,
        unsubscribes_waiting=row.barrier,
        figures=figures.read(connection),
    )


def _warm_up(connection: Connection) -> dict[str, int]:
    today = overview.warm_up_today(connection)
    if today is None or today["allowance"] is None:
        return {}
    return {"allowed": today["allowance"], "used": today["authorised"]}
