"""How the room is served: who may say for whom a request comes, and how long a connection may idle."""

from __future__ import annotations

from typing import Any

import uvicorn
from fastapi import FastAPI

#: Of a connection between two requests.
_IDLE_SECONDS = 5


def server_config(app: FastAPI, *, trusted_proxies: str | None, **more: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for `app`.

    `X-Forwarded-For` and `-Proto` count only from `trusted_proxies` (comma-separated addresses and networks); without
    any, whoever connects is the client.  What is logged is ours to say: theirs would name tokens.
    """
    return uvicorn.Config(
        app,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies or "",
        **more,
    )
