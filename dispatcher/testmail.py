"""A test message: a template filled with a made-up person, through the real provider, to an address of one's own.

It belongs to no run and no contact, so it has no row in the ledger, only one in the audit; in the sandbox's log its run
is null.  Its unsubscribe link opens nobody's consent.  An address that must not be written to is refused.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from dispatcher import audit, clock
from dispatcher.addresses import BadAddress, normal_email, normal_phone
from dispatcher.content import message_context
from dispatcher.content.filters import Sample
from dispatcher.errors import Refused
from dispatcher.frozen_templates import load_template
from dispatcher.mail import headers_for
from dispatcher.providers import providers_for
from dispatcher.providers.protocol import Accepted, Envelope, Moment, boot_seconds
from dispatcher.rendering import Sender, sender_of
from dispatcher.runs import template_of
from dispatcher.runtime import Runtime
from dispatcher.shop import load_shop

_SOMEBODY = {"first_name": "Alex", "last_name": "Example"}
_PATIENCE = timedelta(seconds=20)


def send(runtime: Runtime, channel: str, name: str, to: str, *, by: str) -> str | None:
    """Send it and return the provider's reference; Refused with the provider's words if it was not accepted."""
    settings = runtime.settings
    to = _normal(channel, to)
    sender = sender_of(runtime)
    with runtime.database.begin() as connection:
        _refuse_suppressed(connection, sender, channel, to)
        envelope = _envelope(connection, sender, channel, name, to)
        now = clock.read_now(connection)
        audit.record(connection, by, "template.send", f"{channel}/{name}", {"message": str(envelope.message_id)})
    moment = Moment(now, boot_seconds())
    provider = providers_for(settings)[channel]
    try:
        [receipt] = provider.hand_over([envelope], moment, moment.boot + _PATIENCE.total_seconds())
    finally:
        provider.close()
    if not isinstance(receipt, Accepted):
        raise Refused(f"{provider.name} did not accept the test message: {receipt.detail}")
    return receipt.ref


def _normal(channel: str, to: str) -> str:
    try:
        return normal_email(to) if channel == "email" else normal_phone(to, None)
    except BadAddress as error:
        raise Refused(f"the address cannot be used: {error}") from error


def _refuse_suppressed(connection: Connection, sender: Sender, channel: str, to: str) -> None:
    suppressed = connection.scalar(
        text("""SELECT s.reason FROM suppression s JOIN address a ON a.id = s.address_id
                WHERE a.channel = :channel AND a.hash = :hash ORDER BY s.id LIMIT 1"""),
        {"channel": channel, "hash": sender.key_ring.address_hash(channel, to)},
    )
    if suppressed:
        raise Refused(f"this address is suppressed ({suppressed}); test messages go to addresses of your own only")


def _envelope(connection: Connection, sender: Sender, channel: str, name: str, to: str) -> Envelope:
    template_hash, meta = template_of(connection, channel, name)
    shop = load_shop(connection)
    identity = sender.shop(shop)
    topic = shop.topics.get(meta.topic) if meta.topic else None
    title = topic.title_for(None) if topic else None
    link = f"{sender.public_url}/u/test" if meta.class_ == "marketing" else None
    message_id = uuid7()
    context = message_context(
        personal=_SOMEBODY | {channel if channel == "email" else "phone": to},
        contact={"attributes": {}},
        shop=identity,
        topic_title=title,
        unsubscribe_url=link,
        preferences_url=f"{sender.public_url}/p/test",
        confirm_url=f"{sender.public_url}/d/test" if meta.class_ == "transactional" else None,
        own_data_url=f"{sender.public_url}/m/test" if meta.class_ == "security" else None,
        data={},
    ) | {"data": Sample(), "event": Sample()}  # the names of what the shop would send along
    content = load_template(connection, template_hash).render(context, None)
    headers: tuple[tuple[str, str], ...] = ()
    if channel == "email":
        headers = tuple(
            headers_for(
                message_id=message_id,
                shop=identity,
                class_=meta.class_,
                topic=meta.topic,
                topic_title=title,
                campaign=name,
                unsubscribe_url=link,
            )
        )
    return Envelope(
        message_id, None, "test", to, content, headers, from_name=identity.name, from_email=identity.from_email,
        campaign=name, marketing=meta.class_ == "marketing",
    )  # fmt: skip
