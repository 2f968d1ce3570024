"""What providers and storefronts tell us: stored, then answered.  To whatever is wrong with a signature, one answer.

The signature is asked about before anything of the body is read, over the bytes as they came and the URL as the
settings know it: what a proxy writes into Host or X-Forwarded decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher import replies, storefronts
from dispatcher.feedback import inbox
from dispatcher.feedback.signatures import sendgrid_signed, twilio_signed
from dispatcher.storefronts.signatures import is_ping, signed
from dispatcher.web.problems import problem
from dispatcher.web.room import Room, in_thread, room_of

log = structlog.get_logger()

_LONGEST_HEADER = 300
_LONGEST_PING = 100

#: To Twilio: no text goes out in answer to this one; ours, if any, is a message like every other.
_NO_ANSWER = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'


async def sendgrid(request: Request) -> Response:
    """An array of events.  200 once they are stored; sorting them is the hands' work."""
    room, body = room_of(request), await request.body()
    if not room.sendgrid_webhook_key or not sendgrid_signed(
        room.sendgrid_webhook_key,
        request.headers.get("x-twilio-email-event-webhook-signature", ""),
        request.headers.get("x-twilio-email-event-webhook-timestamp", ""),
        body,
    ):
        return _refused(room, "sendgrid")
    await in_thread(room.pools.hooks, lambda: _store(room, "sendgrid", request, body))
    return Response(status_code=HTTPStatus.OK)


async def twilio_status(request: Request) -> Response:
    """What became of one text.  204 once it is stored."""
    room, body = room_of(request), await request.body()
    if not _is_from_twilio(room, request, body):
        return _refused(room, "twilio.status")
    await in_thread(room.pools.hooks, lambda: _store(room, "twilio.status", request, body))
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def twilio_inbound(request: Request) -> Response:
    """Somebody texted to us.  Whoever says stop is heard before the answer; what fails is stored and done later."""
    room, body = room_of(request), await request.body()
    if not _is_from_twilio(room, request, body):
        return _refused(room, "twilio.inbound")
    number = await in_thread(room.pools.hooks, lambda: _store(room, "twilio.inbound", request, body))
    await in_thread(room.pools.hooks, lambda: _hear(room, number))
    return Response(_NO_ANSWER, media_type="text/xml")


async def shopify(request: Request) -> Response:
    """One event of the shop.  200 once it is stored, well within the five seconds Shopify waits."""
    return await _storefront(request, "shopify", "x-shopify-", "x-shopify-hmac-sha256")


async def woocommerce(request: Request) -> Response:
    """One event of the shop; or the ping with which a webhook begins, which is not signed and says nothing."""
    room, signature = room_of(request), request.headers.get("x-wc-webhook-signature")
    listening = bool(room.storefront_secrets["woocommerce"])
    short = signature is None and listening and _announced_length(request) < _LONGEST_PING
    if short and is_ping(await request.body()):
        return Response(status_code=HTTPStatus.OK)
    return await _storefront(request, "woocommerce", "x-wc-webhook-", "x-wc-webhook-signature")


async def _storefront(request: Request, source: inbox.Source, prefix: str, signed_by: str) -> Response:
    room, signature = room_of(request), request.headers.get(signed_by)
    secrets = room.storefront_secrets[source]
    if not secrets or signature is None or not signed(secrets, signature, body := await request.body()):
        room.figures.count("webhook_signature_failures", source)
        return problem(HTTPStatus.UNAUTHORIZED, "the signature is missing or wrong")
    said = {
        name: value[:_LONGEST_HEADER]
        for name, value in request.headers.items()
        if name.startswith(prefix) and name != signed_by
    }
    later = not storefronts.is_urgent(source, inbox.topic_in(said))
    await in_thread(room.pools.hooks, lambda: _store(room, source, request, body, said, later=later))
    return Response(status_code=HTTPStatus.OK)


def _announced_length(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 10 else _LONGEST_PING


def _refused(room: Room, source: str) -> Response:
    room.figures.count("webhook_signature_failures", source)
    return problem(HTTPStatus.FORBIDDEN, "the signature is missing or wrong")


def _is_from_twilio(room: Room, request: Request, body: bytes) -> bool:
    if not room.twilio_auth_token:
        return False
    query = request.scope["query_string"].decode("latin-1")
    path = request.scope.get("raw_path", request.scope["path"].encode()).decode("latin-1")
    return twilio_signed(
        room.twilio_auth_token,
        request.headers.get("x-twilio-signature", ""),
        f"{room.public_url}{path}{f'?{query}' if query else ''}",
        request.headers.get("content-type", ""),
        body,
    )


def _store(
    room: Room, source: inbox.Source, request: Request, body: bytes, headers: Mapping[str, str] | None = None,
    *, later: bool = False,
) -> int:  # fmt: skip
    with room.database.begin() as connection:
        return inbox.store(
            connection, room.key_ring, source, body,
            query=request.scope["query_string"].decode("latin-1"),
            content_type=request.headers.get("content-type", ""), headers=headers, later=later,
        )  # fmt: skip


def _hear(room: Room, number: int) -> None:
    try:
        inbox.hear_now(room.database, room.key_ring, replies.take, number)
    except Exception as error:  # it is stored: the hands will find it
        log.error("reply.later", number=number, error=type(error).__name__)


ROUTES = [
    Route("/hooks/sendgrid", sendgrid, methods=["POST"]),
    Route("/hooks/twilio/status", twilio_status, methods=["POST"]),
    Route("/hooks/twilio/inbound", twilio_inbound, methods=["POST"]),
    Route("/hooks/shopify", shopify, methods=["POST"]),
    Route("/hooks/woocommerce", woocommerce, methods=["POST"]),
]
