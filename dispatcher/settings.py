"""Settings, read once at the door: environment first, then dispatcher.toml, then defaults.

Functions get the value they need, never this object.  What the shop decides (quiet hours, caps, topics) is not a
setting: `apply` reads it into the database (`definitions.Shop`).
"""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dispatcher.errors import InvalidDefinition

WORKSPACE_FILE = "dispatcher.toml"


#: Credential -> the provider that needs it, what it looks like, and what it is.
_NEEDED_BY = {
    "sendgrid_api_key": ("sendgrid", r"[!-~]+", "an API key with the permission Mail Send"),
    "twilio_account_sid": ("twilio", r"AC[0-9a-fA-F]{32}", "the account's SID, AC and 32 hex digits"),
    "twilio_auth_token": ("twilio", r"[!-~]+", "the account's auth token"),
    "twilio_messaging_service_sid": ("twilio", r"MG[0-9a-fA-F]{32}", "a Messaging Service's SID, MG and 32 hex digits"),
    "smtp_url": (
        "smtp",
        r"(?:smtp|smtp\+starttls|smtps)://(?:[^@/\s]*@)?[^@/\s]+/?",
        "an address like smtp+starttls://user:password@host:587",
    ),
}


def _named(providers: set[str]) -> str:
    return " and ".join(sorted(providers - {"sandbox"}))


class Settings(BaseSettings):
    """Every setting; `docs/settings.md` explains each (a test keeps both in step)."""

    model_config = SettingsConfigDict(env_prefix="DISPATCHER_", frozen=True, extra="ignore")

    home: Path = Path(".dispatcher")  #: embedded servers, keys, logs and the sandbox's outbox live here
    database_url: str | None = Field(default=None, repr=False)  #: postgresql://...; none: the embedded PostgreSQL
    broker_url: str | None = Field(
        default=None, repr=False
    )  #: redis://... or unix:///path?db=0; none: the embedded Valkey
    host: str = "127.0.0.1"  #: where `serve` and `up` listen
    port: int = Field(default=8000, ge=1, le=65535)
    trusted_proxies: str | None = None  #: addresses and networks whose X-Forwarded-For counts; none: nobody's
    email_provider: Literal["sandbox", "sendgrid", "smtp"] = "sandbox"
    sms_provider: Literal["sandbox", "twilio"] = "sandbox"
    #: where the links in messages lead, https outside the sandbox; none: this machine, at `host` and `port`
    public_url: str = Field(default="", validate_default=True)
    secret_keys: SecretStr | None = None  #: comma-separated base64 of 32 bytes, newest first; none: HOME/secret_keys
    sendgrid_api_key: SecretStr | None = Field(default=None, validate_default=True)
    sendgrid_url: str | None = None  #: instead of https://api.sendgrid.com
    sendgrid_slice: int = Field(default=250, ge=1, le=1_000)  #: most mails of one request
    sendgrid_activity: bool = False  #: whether its Email Activity, which has to be bought, may be asked
    #: unsubscribe group at SendGrid that our opt-outs of marketing go into; none: they go into no list there
    sendgrid_unsubscribe_group: int | None = Field(default=None, ge=1)
    sendgrid_webhook_key: str | None = None  #: public key of SendGrid's signed events, base64; none: none are taken
    twilio_account_sid: str | None = Field(default=None, validate_default=True)
    twilio_auth_token: SecretStr | None = Field(default=None, validate_default=True)
    twilio_messaging_service_sid: str | None = Field(default=None, validate_default=True)
    twilio_url: str | None = None  #: instead of https://api.twilio.com
    shopify_secret: SecretStr | None = None  #: of its webhooks; after a rotation the new and the old one, comma between
    woocommerce_secret: SecretStr | None = None  #: likewise
    smtp_url: SecretStr | None = Field(default=None, validate_default=True)  #: smtps://user:password@host:465
    dkim_selectors: str | None = None  #: comma-separated; under which mails are signed, for `doctor` to look at
    #: imaps://user:password@host/INBOX, where bounces and complaints arrive; none: no mailbox is read
    bounce_mailbox_url: SecretStr | None = None
    from_email: str | None = None  #: instead of shop.from_email
    postal_address: str | None = None  #: instead of shop.postal_address
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("public_url")
    @classmethod
    def _leads_somewhere(cls, value: str, info: ValidationInfo) -> str:
        """Return the address without a slash at the end; the local one if none is given.

        Links in real messages have to be https (RFC 8058), and Twilio calls no host with an underscore.
        """
        providers = {str(info.data.get(f"{channel}_provider", "sandbox")) for channel in ("email", "sms")}
        if providers != {"sandbox"} and not value.startswith("https://"):
            raise ValueError(
                f"must be the https:// address that readers reach `dispatcher serve` at, with {_named(providers)}"
            )
        if "twilio" in providers and "_" in (urlsplit(value).hostname or ""):
            raise ValueError("must be a host without an underscore: Twilio calls no other")
        if not value:
            host = str(info.data.get("host", "127.0.0.1"))
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
            return f"http://{f'[{host}]' if ':' in host else host}:{info.data.get('port', 8000)}"
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// (http:// only for the sandbox)")
        return value.rstrip("/")

    @field_validator(*_NEEDED_BY)
    @classmethod
    def _needed(cls, value: SecretStr | str | None, info: ValidationInfo) -> SecretStr | str | None:
        """Return the credential; one that a configured provider lacks is said at the start, not with a message."""
        provider, looks_like, kind = _NEEDED_BY[str(info.field_name)]
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not plain:
            if provider in (info.data.get("email_provider"), info.data.get("sms_provider")):
                raise ValueError(f"must be set for {provider}: {kind}")
            return None
        if re.fullmatch(looks_like, plain) is None:
            raise ValueError(f"is not {kind}")
        return value

    @field_validator("bounce_mailbox_url")
    @classmethod
    def _is_a_mailbox(cls, value: SecretStr | None) -> SecretStr | None:
        plain = value.get_secret_value() if value is not None else ""
        if not plain:
            return None
        if re.fullmatch(r"(?:imaps|imap\+starttls|imap)://[^@/\s:]+:[^@/\s]+@[^@/\s]+(?:/\S*)?", plain) is None:
            raise ValueError("is not an address like imaps://user:password@host/INBOX, its parts percent-encoded")
        return value

    @field_validator("smtp_url", "bounce_mailbox_url")
    @classmethod
    def _is_no_open_secret(cls, value: SecretStr | None) -> SecretStr | None:
        """Return the address; Refused if a password would go over the network in clear."""
        try:
            parts = urlsplit(value.get_secret_value()) if value is not None else None
            if parts is None or parts.port == 0:
                return value
        except ValueError:
            raise ValueError("has a port that is no number") from None
        in_clear = parts.scheme in ("smtp", "imap")
        if in_clear and parts.username and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            scheme = parts.scheme
            raise ValueError(f"would send its password in clear: write {scheme}+starttls:// or {scheme}s://")
        return value

    @field_validator("dkim_selectors")
    @classmethod
    def _are_labels(cls, value: str | None) -> str | None:
        if value and re.fullmatch(r"[A-Za-z0-9._-]+(?:\s*,\s*[A-Za-z0-9._-]+)*", value.strip()) is None:
            raise ValueError("must be selectors like s1,s2")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: str | None) -> str | None:
        """Return the list without blanks; each of it is an address or a network."""
        parts = [part.strip() for part in (value or "").split(",") if part.strip()]
        for part in parts:
            try:
                ip_network(part)
            except ValueError:
                raise ValueError(f"has {part!r}, which is no address or network like 10.0.0.7 or 10.0.0.0/24") from None
        return ",".join(parts) or None

    @field_validator("sendgrid_url", "twilio_url")
    @classmethod
    def _only_a_place(cls, value: str | None) -> str | None:
        """Return scheme, host and port, in whose place the provider's own are left out."""
        if not value:
            return None
        if re.fullmatch(r"https?://[^/?#@\s]+/?", value) is None:
            raise ValueError("must be scheme, host and port, like https://api.eu.sendgrid.com")
        return value.rstrip("/")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not read
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _WorkspaceFile(settings_cls)

    @cached_property
    def sandbox_only(self) -> bool:
        """Whether nothing can leave this machine: what a shifted clock and plain http links are allowed for."""
        return self.email_provider == self.sms_provider == "sandbox"


class _WorkspaceFile(PydanticBaseSettingsSource):
    """The settings of a dispatcher.toml in the current folder: its top-level keys that are not tables."""

    def get_field_value(self, _: Any, field_name: str) -> tuple[Any, str, bool]:  # pragma: no cover - unused hook
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = Path(WORKSPACE_FILE)
        if not path.is_file():
            return {}
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidDefinition([f"{path}: {error}"]) from error
        return {key: value for key, value in content.items() if key in Settings.model_fields}


def load_settings(**overrides: Any) -> Settings:
    """Return the settings; InvalidDefinition names every wrong one with its reason."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise InvalidDefinition([_line(found) for found in error.errors()]) from error


def _line(found: Any) -> str:
    setting = "_".join(map(str, found["loc"])).upper()
    return f"DISPATCHER_{setting}: {found['msg'].removeprefix('Value error, ')}"
