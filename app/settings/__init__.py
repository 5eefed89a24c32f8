"""Everything that can be configured: environment variables with the prefix ``SAASBASE_`` and ``__`` between levels, or a ``.env`` file."""

import os
from collections.abc import Iterator
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from app.settings.limits import LimitSettings
from app.settings.sections import (
    ActorSettings,
    ApiKeySettings,
    AuditSettings,
    AuthorizationEngine,
    AuthorizationFallback,
    AuthorizationSettings,
    DatabaseSettings,
    JwtSettings,
    LogFormat,
    LogSettings,
    OrganizationCreation,
    OrganizationSettings,
    Section,
    StorageSettings,
    TelemetrySettings,
    WebSettings,
)

__all__ = [
    "PREFIX",
    "RENAMED",
    "AuthorizationEngine",
    "AuthorizationFallback",
    "Environment",
    "LogFormat",
    "OrganizationCreation",
    "Section",
    "Settings",
    "SettingsError",
    "load_settings",
    "setting_names",
]

PREFIX = "SAASBASE_"
MIN_SECRET = 16
# What SaaSBase 0.1.1 called otherwise: whoever starts with its environment is told what to write.
RENAMED: Final = {
    "SAASBASE_OPENFGA__API_URL": "SAASBASE_AUTHZ__OPENFGA__URL",
    "SAASBASE_OPENFGA__STORE_ID": "SAASBASE_AUTHZ__OPENFGA__STORE_ID",
    "SAASBASE_OPENFGA__AUTHORIZATION_MODEL_ID": "SAASBASE_AUTHZ__OPENFGA__MODEL_ID",
    "SAASBASE_OPENFGA__BEARER_TOKEN": "SAASBASE_AUTHZ__OPENFGA__TOKEN",
}


class SettingsError(Exception):
    """The configuration cannot be used; one clear line for each fault."""


class Environment(StrEnum):
    """What the service runs for."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """The whole configuration, validated once at start."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=False,
        extra="forbid",
        hide_input_in_errors=True,
    )

    environment: Environment = Environment.DEVELOPMENT
    """development, or production: then the service does not start with settings that are only safe on a developer's machine."""
    db_url: SecretStr = SecretStr("sqlite:///data/saasbase.db")
    """sqlite:///FILE, postgresql://USER:PASSWORD@HOST:PORT/NAME, their +aiosqlite and +asyncpg forms, or jdbc:sqlite:FILE, jdbc:postgresql://..."""
    database: DatabaseSettings = DatabaseSettings()
    storage: StorageSettings = StorageSettings()
    actor: ActorSettings = ActorSettings()
    api_keys: ApiKeySettings = ApiKeySettings()
    audit: AuditSettings = AuditSettings()
    authz: AuthorizationSettings = AuthorizationSettings()
    jwt: JwtSettings = JwtSettings()
    organizations: OrganizationSettings = OrganizationSettings()
    web: WebSettings = WebSettings()
    limits: LimitSettings = LimitSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, which wins over ``.env``; what else stands in a ``.env`` is for other programs."""
        if isinstance(dotenv_settings, DotEnvSettingsSource):
            dotenv_settings.env_vars = _ours(dotenv_settings)
        return init_settings, env_settings, dotenv_settings


def setting_names(section: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[str]:
    """The environment variable of every setting."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from setting_names(field.annotation, f"{prefix}{name.upper()}__")
        else:
            yield prefix + name.upper()


def load_settings(**given: Any) -> Settings:
    """Read the configuration.

    Raises:
        SettingsError: an unknown name or a bad value, one line for each; values are never repeated. Or ``.env`` cannot be read.
    """
    try:
        in_file = _ours(DotEnvSettingsSource(Settings))
    except OSError as error:
        raise SettingsError(f".env: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(".env: is not UTF-8") from None
    written = {name.upper() for name in (*os.environ, *in_file) if name.upper().startswith(PREFIX)}
    lines = [_unknown_line(name) for name in sorted(written - {*setting_names()})]
    try:
        settings = Settings(**given)
    except ValidationError as error:
        lines.extend(_fault_lines(error))
    except UnreadableError as error:  # a whole section given as text, which is no setting
        lines = lines or [str(error)]
    else:
        if settings.environment is Environment.PRODUCTION:
            lines.extend(_unsafe_lines(settings))
        if not lines:
            return settings
    raise SettingsError("\n".join(dict.fromkeys(lines)))


def _unsafe_lines(settings: Settings) -> Iterator[str]:
    """What must not be so in production."""
    if len(settings.api_keys.pepper.get_secret_value()) < MIN_SECRET:
        yield f"{PREFIX}API_KEYS__PEPPER: in production it must be a secret of its own, of at least {MIN_SECRET} characters"
    if len(settings.audit.key.get_secret_value()) < MIN_SECRET:
        yield f"{PREFIX}AUDIT__KEY: in production it must be a secret of its own, of at least {MIN_SECRET} characters"
    believed = settings.actor.trusted_proxies
    fours = [network for network in believed if isinstance(network, IPv4Network)]
    sixes = [network for network in believed if isinstance(network, IPv6Network)]
    together: list[IPv4Network | IPv6Network] = [*collapse_addresses(fours), *collapse_addresses(sixes)]
    believes_everybody = any(network.prefixlen == 0 for network in together)
    secret = settings.actor.proxy_secret
    if not believes_everybody:
        return
    if secret is None:
        yield f"{PREFIX}ACTOR__TRUSTED_PROXIES: in production not everybody is believed: name your proxies, or set a proxy secret"
    elif len(secret.get_secret_value()) < MIN_SECRET:
        yield f"{PREFIX}ACTOR__PROXY_SECRET: in production it must have at least {MIN_SECRET} characters where it alone says who is a proxy"


def _ours(source: DotEnvSettingsSource) -> dict[str, str | None]:
    return {name: value for name, value in source.env_vars.items() if name.upper().startswith(PREFIX)}


def _fault_lines(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        path = "__".join(str(part) for part in fault["loc"]).upper()
        name = path if path.startswith(PREFIX) else PREFIX + path
        is_unknown = fault["type"] in {"extra_forbidden", "unexpected_keyword_argument"}
        yield _unknown_line(name) if is_unknown else f"{name}: {fault['msg'].removeprefix('Value error, ')}"


def _unknown_line(name: str) -> str:
    return f"{name}: there is no such setting" + (f"; it is called {RENAMED[name]}" if name in RENAMED else "")
