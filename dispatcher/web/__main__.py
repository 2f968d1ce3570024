"""Serve HTTP until told to stop: `python -m dispatcher.web`."""

from __future__ import annotations

import signal
import socket
import sys
from types import FrameType

import uvicorn

from dispatcher import logs
from dispatcher.errors import DispatcherError, Refused
from dispatcher.runtime import Runtime, open_runtime
from dispatcher.web.app import create_app
from dispatcher.web.server import server_config

#: Longer than an unsubscribe waits: who has clicked gets an answer.
PATIENCE_SECONDS = 10


def main() -> int:
    """Return 0 after a stop that was asked for, 1 with one clear line if it cannot start."""
    signal.signal(signal.SIGTERM, _stop)  # uvicorn stops gracefully first, then hands the signal on to this
    try:
        with open_runtime() as runtime:
            serve(runtime)
    except DispatcherError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def serve(runtime: Runtime) -> None:
    """Serve until a signal to stop; Refused if the port is taken."""
    settings = runtime.settings
    logs.configure(settings.log_level)
    config = server_config(
        create_app(runtime),
        trusted_proxies=settings.trusted_proxies,
        log_config=None,
        timeout_graceful_shutdown=PATIENCE_SECONDS,
    )
    with _listen(settings.host, settings.port) as listener:
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Refused(f"cannot listen on {host} port {port} ({reason}); set DISPATCHER_PORT to another one") from error


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
