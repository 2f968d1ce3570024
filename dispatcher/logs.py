"""Logs: events with facts, one line each, on stderr; nothing personal in them.

Every library's log goes the same way.  Nothing here is meant to carry an address; whatever looks like one is masked all
the same, for the day somebody forgets.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

_EMAIL = re.compile(r"""[^\s@<>"'(),;:=/?&\[\]{}]+(?:@|%40)[^\s@<>"'(),;:=/?&\[\]{}]+\.[^\s@<>"'(),;:=/?&\[\]{}.]+""")
# International numbers, and national ones with their leading zero; a part of an id or of an instant is neither.
_PHONE = re.compile(r"(?<![\w.:-])(?:(?:\+|%2B|00)[1-9](?:[ ().-]{0,2}\d){6,14}|0\d{9,10})(?![\w-])")
_QUIET_LIBRARIES = ("apscheduler", "sqlalchemy", "alembic", "asyncio", "multipart")
_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "dramatiq")


def masked(value: Any) -> Any:
    """Return `value` with everything in it that looks like an e-mail address or a phone number taken out."""
    if isinstance(value, str):
        return _PHONE.sub("[phone]", _EMAIL.sub("[email]", value))
    if isinstance(value, bytes):
        return masked(value.decode(errors="replace"))
    if isinstance(value, Mapping):
        return {masked(key): masked(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(part) for part in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return masked(str(value))


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> EventDict:
    event.pop("color_message", None)  # uvicorn says everything twice
    return {name: value if name.startswith("_") else masked(value) for name, value in event.items()}


def configure(level: str = "info", *, json: bool | None = None) -> None:
    """Send every log of this process to stderr: JSON lines, or for a reader if stderr is a terminal."""
    as_json = json if json is not None else not sys.stderr.isatty()
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=True)
    )
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _mask, renderer],
        )
    )
    _take_over(handler, level)


def _take_over(handler: logging.Handler, level: str) -> None:
    """Make `handler` the only one of the process, for our events and for the libraries'."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
