"""The groups of settings."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import NoDecode

from app.core.issuers import Issuer, SigningAlgorithm
from app.settings.values import (
    Days,
    Networks,
    OptionalSecret,
    Origins,
    read_actor,
    read_base_path,
    read_issuers,
    read_list,
    read_prefix,
    require_distinct_issuers,
)

MAX_SECONDS = 366 * 86400
MAX_WAIT = 3600
MAX_S3_PARTS = 10_000


class Section(BaseModel):
    """A group of settings; unknown names in it are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class DatabaseSettings(Section):
    """The connection pool and its limits, and the roles that keep tenants apart."""

    pool_size: int = Field(default=8, ge=1, le=200)
    """Connections per worker process; 4 to 8 are best on a small machine."""
    pool_timeout_seconds: float = Field(default=30, gt=0, le=86400)
    """How long a request waits for a free connection before it is answered 503."""
    statement_timeout_seconds: float = Field(default=30, ge=0, le=86400)
    """PostgreSQL: a statement that runs longer is cancelled, and three seconds later the database taken for silent; 0 = no limit."""
    lock_timeout_seconds: float = Field(default=10, ge=0, le=86400)
    """PostgreSQL: a wait for a lock that takes longer fails; SQLite: how long a writer waits for another process."""
    transaction_pooler: bool = False
    """Set to true behind PgBouncer in transaction pooling mode: no prepared statement outlives its transaction."""
    row_level_security: bool = False
    """PostgreSQL: name the tenants of each transaction, so that row-level security confines it; needs a jobs URL and roles of their own."""
    jobs_url: OptionalSecret = None
    """PostgreSQL: URL with the role for the service's own jobs, which concern every tenant; empty = the same as SAASBASE_DB_URL."""
    migration_url: OptionalSecret = None
    """URL with the role that owns the tables, used by 'saasbase migrate' only; empty = the same as SAASBASE_DB_URL."""


class LocalStorageSettings(Section):
    """Documents on disk."""

    base_path: Path = Path("data/documents")
    """Folder for the contents of documents; created when absent."""


class S3StorageSettings(Section):
    """Documents in S3 or what speaks its protocol, when a bucket is named."""

    endpoint: str = Field(default="", pattern=r"^(https?://[^/?#@\s]+/?)?$")
    """Address of a server other than Amazon's, such as http://127.0.0.1:9000; empty = Amazon S3."""
    region: str = Field(default="", pattern=r"^[A-Za-z0-9-]*$")
    """Region; empty = the one of the environment, and us-east-1 with an endpoint."""
    prefix: Annotated[str, AfterValidator(read_prefix)] = ""
    """Folder in the bucket; everything of ours lies below it, and nothing else is touched."""
    access_key: OptionalSecret = None
    """Access key; empty = the default chain: environment, profile, role of the machine."""
    secret_key: OptionalSecret = Field(default=None, validate_default=True)
    """Its secret."""
    path_style: bool = True
    """true = http://server/bucket/key, which every server knows; false = http://bucket.server/key."""
    part_bytes: int = Field(default=8 * 1024**2, ge=5 * 1024**2, le=512 * 1024**2)
    """Larger documents go up in parts of this size; an upload holds three of them in memory."""
    presign_downloads: bool = False
    """true = downloads are redirected (307) to a signed URL of the S3 server, which clients have to reach by the same address."""
    presign_seconds: int = Field(default=300, ge=1, le=7 * 86400)
    """How long such a URL is good for."""
    bucket: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9])?$", validate_default=True)
    """The bucket, which has to exist; empty = documents lie on disk."""

    @field_validator("secret_key")
    @classmethod
    def _keys_come_in_pairs(cls, value: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if (value is None) != (others.data.get("access_key") is None):
            raise ValueError("goes together with ACCESS_KEY: give both or none")
        return value

    @field_validator("bucket")
    @classmethod
    def _is_named_for_an_endpoint(cls, value: str, others: ValidationInfo) -> str:
        if not value and (others.data.get("endpoint") or others.data.get("access_key")):
            raise ValueError("is needed: the bucket that documents lie in")
        return value


class StorageSettings(Section):
    """Where documents lie and how large they may be."""

    local: LocalStorageSettings = LocalStorageSettings()
    s3: S3StorageSettings = S3StorageSettings()
    max_upload_bytes: int = Field(default=5 * 1024**3, ge=1)
    """Largest document; a larger upload is answered 413 while it streams."""
    sweep_min_age_seconds: int = Field(default=3600, ge=0, le=MAX_SECONDS)
    """The sweeper removes contents without a row only when they are older than this."""
    sweep_interval_seconds: int = Field(default=3600, ge=0, le=MAX_SECONDS)
    """Pause between two runs of the sweeper; 0 = only at start."""

    @field_validator("max_upload_bytes")
    @classmethod
    def _fits_into_parts(cls, value: int, others: ValidationInfo) -> int:
        s3 = others.data.get("s3")
        if s3 is not None and s3.bucket and value > MAX_S3_PARTS * s3.part_bytes:
            raise ValueError(f"is more than {MAX_S3_PARTS} parts of S3__PART_BYTES, which is all that S3 takes")
        return value


class ActorSettings(Section):
    """Who is calling."""

    header: str = Field(default="X-SaaSBase-Actor", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Request header that names the actor as type:id, believed only from trusted proxies."""
    trusted_proxies: Networks = ()
    """Comma-separated networks (CIDR) whose requests may name their actor in the header; empty = the header is ignored."""
    proxy_secret: OptionalSecret = None
    """When not empty, a trusted proxy must also send this value in X-SaaSBase-Proxy-Secret."""
    anonymous: Annotated[str, AfterValidator(read_actor)] = "service:anonymous"
    """Actor of a caller who shows no identity; empty = such callers are answered 401."""
    resolver: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*)?$")
    """module:Class of your own that says who is calling, instead of API keys, tokens and the settings above; empty = none."""


class ApiKeySettings(Section):
    """API keys."""

    pepper: SecretStr = SecretStr("development")
    """Secret that stored key hashes are made with; changing it makes every key invalid. Set your own in production."""
    guess_limit: bool = True
    """false = failed attempts slow nobody; for a load balancer that shows all callers under one address."""


class AuditSettings(Section):
    """The audit trail: what its hash chain is made with, and how long events are kept."""

    key: SecretStr = Field(default=SecretStr("development"), min_length=1)
    """Secret that the hash chain is made with. Set your own in production, keep it, and keep it away from the database."""
    previous_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(read_list)] = ()
    """Comma-separated secrets that were the key before, the oldest first; what was sealed with them is verified with them."""
    min_retention: Days = None
    """Events younger than this, such as P30D or 30d, cannot be pruned, by nobody; empty = all can."""
    retention: Days = None
    """Events older than this, such as P365D, are pruned every day where an organization has not chosen otherwise; empty = they are kept."""

    @field_validator("previous_keys")
    @classmethod
    def _each_at_its_time(cls, value: tuple[SecretStr, ...], others: ValidationInfo) -> tuple[SecretStr, ...]:
        if len({*value, others.data.get("key")}) <= len(value):
            raise ValueError("each secret is the key once: name none twice, and not the key itself")
        return value

    @field_validator("retention")
    @classmethod
    def _not_below_the_minimum(cls, value: timedelta | None, others: ValidationInfo) -> timedelta | None:
        minimum = others.data.get("min_retention")
        if value is not None and minimum is not None and value < minimum:
            raise ValueError("must not be less than SAASBASE_AUDIT__MIN_RETENTION")
        return value


class JwtSettings(Section):
    """Tokens of OpenID Connect and OAuth issuers."""

    issuers: Annotated[tuple[Issuer, ...], NoDecode, BeforeValidator(read_issuers), AfterValidator(require_distinct_issuers)] = ()
    """JSON list of the issuers whose tokens are believed: issuer, audience, jwks_url and what the README tells of; empty = none."""
    algorithms: Annotated[tuple[SigningAlgorithm, ...], NoDecode, BeforeValidator(read_list), Field(min_length=1)] = tuple(SigningAlgorithm)
    """Comma-separated signature algorithms that are accepted."""
    leeway_seconds: int = Field(default=30, ge=0, le=300)
    """How far the clocks of issuers may differ from ours."""


class AuthorizationEngine(StrEnum):
    """Who decides what an actor may do."""

    BUILTIN = "builtin"
    OPENFGA = "openfga"


class AuthorizationFallback(StrEnum):
    """What happens while OpenFGA does not answer."""

    NONE = "none"
    SQL = "sql"


class OpenFGASettings(Section):
    """OpenFGA, when it is the engine."""

    url: str = Field(default="http://127.0.0.1:8080", pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")
    """Address of its HTTP API."""
    store_id: str = ""
    """The store that holds the grants; `saasbase authz setup` makes one and prints its id."""
    model_id: str = ""
    """The authorization model to ask; empty = the newest of the store."""
    token: Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)] = None
    """Preshared key, if the server wants one."""
    timeout_seconds: float = Field(default=1, gt=0, le=60)
    """How long a request waits for a decision."""


class AuthorizationSettings(Section):
    """Who decides what an actor may do."""

    engine: AuthorizationEngine = AuthorizationEngine.BUILTIN
    """builtin (in SQL) or openfga (an OpenFGA server, kept in step with the database)."""
    fallback: AuthorizationFallback = AuthorizationFallback.NONE
    """While OpenFGA does not answer: none = requests are answered 503, sql = the database decides."""
    openfga: OpenFGASettings = OpenFGASettings()


class OrganizationCreation(StrEnum):
    """Who may create organizations."""

    AUTHENTICATED = "authenticated"
    NONE = "none"


class OrganizationSettings(Section):
    """Rules for organizations."""

    creation: OrganizationCreation = OrganizationCreation.AUTHENTICATED
    """Who may create organizations: authenticated (users, services, agents) or none."""


class WebSettings(Section):
    """The HTTP surface."""

    enabled: bool = True
    """false = no API routes at all, only the health routes."""
    base_path: Annotated[str, AfterValidator(read_base_path)] = "/api"
    """Prefix of every API route; may be empty."""
    max_body_bytes: int = Field(default=1024**2, ge=1024)
    """Largest JSON body; a larger one is answered 413. Uploads have their own limit."""
    metrics: bool = True
    """false = no /metrics. It names no tenant and no caller, but shows anybody who can reach it how busy the service is."""
    docs: bool = True
    """false = no /docs, no /redoc, no /openapi.json."""
    ops_port: int = Field(default=0, ge=0, le=65535)
    """Port for /metrics, /docs, /redoc and /openapi.json, which then are on no other, and the health routes; 0 = the port of the API."""
    ops_host: str = Field(default="127.0.0.1", min_length=1)
    """Address that port is opened on."""
    drain_seconds: float = Field(default=0, ge=0, le=MAX_WAIT)
    """After SIGTERM: how long requests are still taken while /readyz says 503, so that a load balancer can turn away first."""
    shutdown_seconds: int = Field(default=30, ge=1, le=MAX_WAIT)
    """After that: how long requests that are under way may take before they are broken off."""
    header_seconds: float = Field(default=20, ge=0, le=MAX_WAIT)
    """How long a connection may take to send the head of a request; 0 = no limit."""
    body_idle_seconds: float = Field(default=30, ge=0, le=MAX_WAIT)
    """How long nothing of a body may come before it is answered 408, and how long the rest of a refused body is read; 0 = no limit."""
    read_idle_seconds: float = Field(default=60, ge=0, le=MAX_WAIT)
    """How long a client may read nothing of its answer before the connection is cut; 0 = no limit."""
    cors_origins: Origins = ()
    """Comma-separated origins whose pages may call the API from a browser, or * for all; empty = none but its own."""
    hsts_seconds: int = Field(default=0, ge=0, le=2 * MAX_SECONDS)
    """Behind TLS: how long browsers shall come by https only (Strict-Transport-Security); 0 = it is not said."""


class TelemetrySettings(Section):
    """OpenTelemetry. Where spans go say OTEL_EXPORTER_OTLP_ENDPOINT and its like, in the environment: in .env they are not seen."""

    traces: bool = False
    """true = requests and their statements are traced; needs the extra saasbase-server[otel]."""


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe line that is written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class LogSettings(Section):
    """Log lines."""

    level: LogLevel = LogLevel.INFO
    """DEBUG, INFO, WARNING or ERROR."""
    format: LogFormat = LogFormat.AUTO
    """console, json, or auto: console in a terminal, json elsewhere."""
