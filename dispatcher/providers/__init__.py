"""Who carries messages: one file or folder per provider behind one protocol (`protocol.Provider`)."""

from __future__ import annotations

from pydantic import SecretStr

from dispatcher.errors import Refused
from dispatcher.providers.http import Http
from dispatcher.providers.protocol import Provider
from dispatcher.providers.sandbox import Sandbox
from dispatcher.providers.sendgrid import DEFAULT_URL as SENDGRID_URL
from dispatcher.providers.sendgrid import SendGrid
from dispatcher.providers.sendgrid.drafts import MOST_PEOPLE
from dispatcher.providers.smtp import Smtp
from dispatcher.providers.smtp.connection import server_at
from dispatcher.providers.twilio import DEFAULT_URL as TWILIO_URL
from dispatcher.providers.twilio import Twilio
from dispatcher.settings import Settings

#: The largest slice of each provider, whatever its settings: by how much hands may run ahead of a rate.
LARGEST_SLICES = {
    Sandbox.name: Sandbox.slice_size,
    SendGrid.name: MOST_PEOPLE,
    Twilio.name: Twilio.slice_size,
    Smtp.name: Smtp.slice_size,
}


def providers_for(settings: Settings) -> dict[str, Provider]:
    """Return the configured provider of each channel.  Nothing is opened before something is handed over."""
    http = Http()
    return {
        "email": _provider("email", settings.email_provider, settings, http),
        "sms": _provider("sms", settings.sms_provider, settings, http),
    }


def _provider(channel: str, name: str, settings: Settings, http: Http) -> Provider:
    match name:
        case "sandbox":
            return Sandbox(settings.home / "sandbox", channel)
        case "sendgrid":
            return SendGrid(
                http,
                api_key=_secret(settings.sendgrid_api_key),
                url=settings.sendgrid_url or SENDGRID_URL,
                slice_size=settings.sendgrid_slice,
                unsubscribe_group=settings.sendgrid_unsubscribe_group,
                reads_activity=settings.sendgrid_activity,
            )
        case "smtp":
            return Smtp(server_at(_secret(settings.smtp_url)))
        case "twilio":
            return Twilio(
                http,
                account_sid=settings.twilio_account_sid or "",
                auth_token=_secret(settings.twilio_auth_token),
                messaging_service_sid=settings.twilio_messaging_service_sid or "",
                public_url=settings.public_url,
                url=settings.twilio_url or TWILIO_URL,
            )
    raise Refused(f"there is no {channel} provider called {name}")


def _secret(value: SecretStr | None) -> str:
    """Return the secret; settings without one are refused when they are read."""
    return value.get_secret_value() if value is not None else ""
