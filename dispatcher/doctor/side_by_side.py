"""Looks at the network, all at once: the slowest says how long it takes, and none may take longer than it is given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from dispatcher.doctor.check import Check
from dispatcher.doctor.names import Unanswered

Look = Callable[[], Iterable[Check]]

#: A server that drips, or a firewall that swallows: whoever is not done by then is left behind.
PATIENCE_SECONDS = 15.0


def look_side_by_side(looks: Sequence[tuple[str, Look]], *, seconds: float = PATIENCE_SECONDS) -> list[Check]:
    """Return what each look found, in the order of `looks`; what has no answer in time is said to have none."""
    found: list[list[Check]] = [[] for _ in looks]
    threads = [  # daemons: one that hangs keeps no command from ending
        threading.Thread(target=_look, args=(name, look, found[place]), name=name, daemon=True)
        for place, (name, look) in enumerate(looks)
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = [
        Check(name, "look", f"no answer within {seconds:g} s", "is the network open from here?") for name, _ in looks
    ]
    return [
        check
        for place, thread in enumerate(threads)
        for check in ([*found[place], late[place]] if thread.is_alive() else found[place])
    ]


def _look(name: str, look: Look, found: list[Check]) -> None:
    try:
        for check in look():
            found.append(check)
    except Unanswered as error:
        found.append(Check(name, "look", str(error), "ask again; if it stays so, look at this machine's nameservers"))
    except Exception as error:  # one look that breaks must not hide what the others see
        found.append(Check(name, "look", f"could not be looked at ({type(error).__name__})", "please report this"))
