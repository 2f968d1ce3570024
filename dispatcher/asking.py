"""One HTTP request, asked plainly: no redirect is followed, nothing is repeated, and it ends in time.

For `doctor`, which wants to see what a stranger sees.  Messages are handed over another way (`providers.http`).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from dispatcher.errors import DispatcherError

_MOST_BYTES = 65_536


class Unreachable(DispatcherError):  # noqa: N818 - named for what it says, like the rest of its family
    """There is no answer, and why."""


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    asked_at: datetime  #: by this machine's clock, half-way between question and answer
    certificate_ends_at: datetime | None  #: None: not over TLS

    @property
    def dated(self) -> datetime | None:
        """What the other side's clock showed, to the second."""
        try:
            found = parsedate_to_datetime(self.headers.get("date", ""))
        except (ValueError, TypeError):
            return None
        return found if found.tzinfo is not None else None


def ask(
    method: str, url: str, *, seconds: float, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answered:
    """Return the answer; Unreachable if there is none, if it takes longer, or if its certificate is not good."""
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, seconds)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.connect()
        ends_at = _certificate_ends_at(connection.sock)
        began = time.time()
        connection.request(method, path, body, {"User-Agent": "Dispatcher", **(headers or {})})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        content = response.read(_MOST_BYTES)
        asked_at = datetime.fromtimestamp((began + time.time()) / 2, UTC)
        return Answered(response.status, found, content, asked_at, ends_at)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"the certificate is not good: {error.verify_message.rstrip('.')}") from None
    except ssl.SSLError as error:
        raise Unreachable(f"no TLS there ({error.reason or 'it failed'})") from None
    except TimeoutError:
        raise Unreachable(f"no answer within {seconds:g} s") from None
    except socket.gaierror:
        raise Unreachable(f"there is no host {parts.hostname} in DNS") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Unreachable(f"no answer ({reason})") from None
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None, seconds: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, port, timeout=seconds)


def _certificate_ends_at(sock: socket.socket | ssl.SSLSocket) -> datetime | None:
    if not isinstance(sock, ssl.SSLSocket):
        return None
    ends = (sock.getpeercert() or {}).get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(ends)), UTC) if ends else None
