"""Settings, read once at the door: environment first, then dispatcher.toml, then defaults.

Functions get the value they need, never this object.  What the shop decides (quiet hours, caps, topics) is not a
setting: `apply` reads it into the database (`definitions.Shop`).
"""

from __future__ import annotations

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dispatcher.errors import InvalidDefinition

WORKSPACE_FILE = "dispatcher.toml"


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
    #: where the links in messages lead, https outside the sandbox; none: this machine, at `host` and `port`
    public_url: str = Field(default="", validate_default=True)
    secret_keys: SecretStr | None = None  #: comma-separated base64 of 32 bytes, newest first; none: HOME/secret_keys
    email_provider: Literal["sandbox"] = "sandbox"
    sms_provider: Literal["sandbox"] = "sandbox"
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
        """Return the address without a slash at the end; the local one if none is given."""
        if not value:
            host = str(info.data.get("host", "127.0.0.1"))
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
            return f"http://{f'[{host}]' if ':' in host else host}:{info.data.get('port', 8000)}"
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with https:// (http:// only for the sandbox)")
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
        raise InvalidDefinition(
            [f"DISPATCHER_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
        ) from error
