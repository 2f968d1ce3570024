"""From a pending message to an envelope: open the contact's data, fill the run's frozen template, address it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from dispatcher import clicks, opt_in
from dispatcher.content import message_context
from dispatcher.definitions import Shop, ShopIdentity, Topic
from dispatcher.errors import DispatcherError, Refused
from dispatcher.frozen_templates import load_template
from dispatcher.interests import strongest
from dispatcher.keys import KeyRing
from dispatcher.mail import headers_for
from dispatcher.preferences import data_links
from dispatcher.providers.protocol import Envelope
from dispatcher.runs import Run, load_run
from dispatcher.runtime import Runtime
from dispatcher.shop import load_shop
from dispatcher.tokens import (
    ClickTokens,
    DataTokens,
    OptInTokens,
    PreferenceTokens,
    UnsubscribeTokens,
    WayHome,
    WayOut,
    opt_in_url,
    own_data_url,
    preferences_url,
    unsubscribe_url,
)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a message comes from, and where its links lead; settings win over the shop's own."""

    key_ring: KeyRing
    public_url: str
    from_email: str | None = None
    postal_address: str | None = None

    def shop(self, shop: Shop) -> ShopIdentity:
        changes = {"from_email": self.from_email, "postal_address": self.postal_address}
        return shop.shop.model_copy(update={name: value for name, value in changes.items() if value})


def sender_of(runtime: Runtime) -> Sender:
    """Return who messages come from in this installation."""
    settings = runtime.settings
    return Sender(runtime.key_ring, settings.public_url, settings.from_email, settings.postal_address)


#: What `Renderer.envelope` needs of a message's contact.
CONTACT_COLUMNS = """c.id AS contact_id, c.version, c.external_id, c.locale, c.country, c.subdivision, c.attributes,
       c.data_key, c.sealed"""


class Renderer:
    """Renders the messages of one run."""

    def __init__(self, connection: Connection, run: Run, sender: Sender) -> None:
        self._run = run
        self._sender = sender
        self._shop = load_shop(connection)
        self._identity = sender.shop(self._shop)
        self._tokens = UnsubscribeTokens(sender.key_ring)
        self._opt_ins = OptInTokens(sender.key_ring)
        self._homes = PreferenceTokens(sender.key_ring)
        self._data_links = DataTokens(sender.key_ring)
        self._template = load_template(connection, run.template_hash)
        self._topic = self._shop.topics.get(run.topic) if run.topic else None
        self._interests: dict[int, list[str]] = {}
        self._links = clicks.writer_for(
            run, self._template, self._shop, sender.public_url, ClickTokens(sender.key_ring)
        )
        self._tracked: dict[UUID, int] = {}
        self._personal_links: dict[UUID, bytes] = {}

    @property
    def urgent(self) -> bool:
        """Whether the template may break quiet hours."""
        return self._template.meta.urgent

    def language(self, locale: str | None) -> str:
        """Return the language a contact of this locale is written to in."""
        return self._template.variant(locale).locale

    def read_ahead(self, connection: Connection, contact_ids: list[int]) -> None:
        """Read what the template asks about these contacts, in one query for all."""
        if "interests" in self._template.variables:
            self._interests = strongest(connection, contact_ids)

    def track(self, connection: Connection, rows: Sequence[Row[Any]]) -> None:
        """Number the messages of these rows, if their clicks are counted: to be called before they are rendered."""
        if self._links.tokens is not None:
            self._tracked = clicks.prepare(connection, self._run.id, self._links, rows)

    def take_personal_links(self) -> dict[UUID, bytes]:
        """Return, by message, the sealed links of what was rendered since, to be kept before any of it leaves."""
        taken, self._personal_links = self._personal_links, {}
        return taken

    def envelope(self, row: Row[Any]) -> Envelope:
        """Return the rendered, addressed message of a row with CONTACT_COLUMNS, `id`, `address_id`, `data`, `client`.

        Raises a DispatcherError without personal data if it cannot be rendered.
        """
        if row.data_key is None or row.sealed is None:
            raise Refused("the contact has no personal data (erased, or known by number only)")
        data_key = self._sender.key_ring.open_data_key(row.data_key)
        personal = data_key.open(row.sealed)
        to = personal.get("email" if self._run.channel == "email" else "phone")
        if not to:
            raise Refused(f"the contact has no {self._run.channel} address")
        link = self._link(row)
        language = self.language(row.locale)  # of the content, which may not be the reader's own
        data = data_key.open(row.data) if row.data else {}
        topic, confirm_url = self._confirmation(row, data)
        title = topic.title_for(language) if topic else None
        context = message_context(
            personal=personal,
            contact=row._asdict(),
            shop=self._identity,
            topic_title=title,
            unsubscribe_url=link,
            preferences_url=self._way_home(row),
            confirm_url=confirm_url,
            own_data_url=self._way_to_data(row, data),
            data=data,
            interests=self._interests.get(row.contact_id, ()),
        )
        written = self._links.write(self._template.render(context, row.locale), self._tracked.get(row.id))
        if written.personal:
            self._personal_links[row.id] = clicks.seal(data_key, written.personal)
        headers: tuple[tuple[str, str], ...] = ()
        if self._run.channel == "email":
            headers = tuple(
                headers_for(
                    message_id=row.id,
                    shop=self._identity,
                    class_=self._run.class_,
                    topic=self._run.topic,
                    topic_title=title,
                    campaign=self._run.name,
                    unsubscribe_url=link,
                )
            )
        return Envelope(
            message_id=row.id,
            run_id=self._run.id,
            contact=row.external_id,
            to=to,
            content=written.content,
            headers=headers,
            from_name=self._identity.name,
            from_email=self._identity.from_email,
            campaign=self._run.name,
            marketing=self._run.class_ == "marketing",
        )

    def _confirmation(self, row: Row[Any], data: dict[str, Any]) -> tuple[Topic | None, str | None]:
        """Return what the message is about, and the link that confirms it if it is an opt-in confirmation."""
        if row.client == opt_in.CLIENT:
            way_in = opt_in.way_in_of(row, self._run.channel, data)
            return self._shop.topics.get(way_in.topic), opt_in_url(self._sender.public_url, self._opt_ins, way_in)
        is_preview = row.client is None and "confirm_url" in self._template.variables
        return self._topic, f"{self._sender.public_url}/d/preview" if is_preview else None

    def _way_home(self, row: Row[Any]) -> str | None:
        if row.address_id is None:
            return None
        way_home = WayHome(row.contact_id, self._run.channel, row.address_id)
        return preferences_url(self._sender.public_url, self._homes, way_home)

    def _way_to_data(self, row: Row[Any], data: dict[str, Any]) -> str | None:
        if row.client == data_links.CLIENT:
            way = data_links.way_of(row, self._run.channel, data)
            return own_data_url(self._sender.public_url, self._data_links, way)
        is_preview = row.client is None and "own_data_url" in self._template.variables
        return f"{self._sender.public_url}/m/preview" if is_preview else None

    def _link(self, row: Row[Any]) -> str | None:
        if self._run.class_ != "marketing" or self._run.topic is None or row.address_id is None:
            return None
        way_out = WayOut(row.contact_id, self._run.channel, self._run.topic, row.address_id)
        return unsubscribe_url(self._sender.public_url, self._tokens, way_out)


_LEFT = text(f"""
SELECT m.id, m.run_id, m.client, m.sealed AS data, m.address_id, {CONTACT_COLUMNS} FROM message m
JOIN contact c ON c.id = m.contact_id AND c.merged_into IS NULL
 AND m.address_id = CASE m.channel WHEN 'email' THEN c.email_address_id ELSE c.sms_address_id END
WHERE m.id = :id
""")  # noqa: S608 - fixed columns


def render_again(database: Engine, sender: Sender, message_id: UUID) -> Envelope | None:
    """Return a message as it left, as far as its contact is still who it was; None if they have another address, or
    it cannot be rendered any more.
    """
    with database.connect() as connection:
        row = connection.execute(_LEFT, {"id": message_id}).one_or_none()
        if row is None:
            return None
        renderer = Renderer(connection, load_run(connection, row.run_id), sender)
        renderer.read_ahead(connection, [row.contact_id])
        try:
            return renderer.envelope(row)
        except DispatcherError:
            return None
