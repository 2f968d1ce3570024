"""Is this really from the provider?  Asked before anything of the body is read.

Sources: SendGrid's signed event webhook (ECDSA P-256 and SHA-256 over timestamp and raw body); Twilio's request
validation (HMAC-SHA1 over the URL as Twilio called it and the sorted form; of a JSON body over the URL, which holds the
body's SHA-256).  Neither bounds the age of a request: a replay is a duplicate, and duplicates are harmless.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from functools import lru_cache
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dispatcher.errors import Refused

_PORTS = {"http": 80, "https": 443}
_MOST_FIELDS = 200


def sendgrid_signed(key: str, signature: str, timestamp: str, body: bytes) -> bool:
    """Whether SendGrid signed exactly these bytes; Refused if `key` is no public key of theirs."""
    public_key = read_sendgrid_key(key)
    try:
        public_key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + body, ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


@lru_cache
def read_sendgrid_key(key: str) -> EllipticCurvePublicKey:
    """Return the public key; Refused, naming the setting, if it is none of SendGrid's kind."""
    try:
        loaded = load_der_public_key(base64.b64decode("".join(key.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise Refused(
            "DISPATCHER_SENDGRID_WEBHOOK_KEY is not the verification key that SendGrid shows (base64)"
        ) from error
    if not isinstance(loaded, EllipticCurvePublicKey) or not isinstance(loaded.curve, SECP256R1):
        raise Refused("DISPATCHER_SENDGRID_WEBHOOK_KEY is a key of another kind than SendGrid's")
    return loaded


def twilio_signed(token: str, signature: str, url: str, content_type: str, body: bytes) -> bool:
    """Whether Twilio signed this request to `url`, the public one: what stands in Host or X-Forwarded is not asked.

    A proxy may add or take away the port, so the URL is tried as it is, with the usual port, and without any.
    """
    if content_type.partition(";")[0].strip().lower() == "application/json":
        said = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
        if not hmac.compare_digest(said.lower().encode(), hashlib.sha256(body).hexdigest().encode()):
            return False
        text = b""
    else:
        try:
            fields = form_fields(body)
        except ValueError:
            return False
        text = "".join(name + value for name, value in sorted(set(fields))).encode("utf-8", "surrogateescape")
    given = signature.encode("utf-8", "replace")
    return any(hmac.compare_digest(_twilio_signature(token, one, text), given) for one in _spellings(url))


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """Return the fields of a form in their order; ValueError if there are too many.  No byte is lost on the way."""
    return parse_qsl(
        body.decode("utf-8", "surrogateescape"),
        keep_blank_values=True,
        errors="surrogateescape",
        max_num_fields=_MOST_FIELDS,
    )


def _twilio_signature(token: str, url: str, text: bytes) -> bytes:
    return base64.b64encode(hmac.digest(token.encode(), url.encode("utf-8", "surrogateescape") + text, "sha1"))


def _spellings(url: str) -> list[str]:
    """Return the URL as it is, without a port, and with the usual one."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return [url]
    bare = _at(parts, None)
    return [url, bare, _at(parts, port or _PORTS.get(parts.scheme))]


def _at(parts: SplitResult, port: int | None) -> str:
    host = parts.netloc.rpartition("@")[2]
    if parts.port is not None:
        host = host.rpartition(":")[0]
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{host}{f':{port}' if port else ''}").geturl()
