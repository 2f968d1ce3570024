"""`python -m workers GROUP`: one worker process."""

from __future__ import annotations

import sys

from dispatcher import logs
from dispatcher.errors import DispatcherError
from dispatcher.runtime import open_runtime
from dispatcher.settings import load_settings
from workers.boot import GROUPS, serve


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in GROUPS:
        print(f"usage: python -m workers {{{','.join(GROUPS)}}}", file=sys.stderr)
        return 2
    try:
        settings = load_settings()
        logs.configure(settings.log_level)
        with open_runtime(settings, needs_broker=True) as runtime:
            return serve(runtime, arguments[0])
    except DispatcherError as error:
        print(f"dispatcher worker: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
