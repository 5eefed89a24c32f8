"""What a running service consists of, built once by ``main`` and reached from every request."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from app.audit.chain import ChainKeys
from app.audit.retention import RetentionRules
from app.authn.api_keys import KeyUses
from app.authn.proxies import ProxyTrust
from app.authn.resolver import ActorResolver
from app.blobs.store import BlobStore
from app.http.access import AccessLog
from app.http.buffers import Buffers
from app.http.limits import RequestLimits
from app.http.traffic import Traffic
from app.unit_of_work import WorkContext

if TYPE_CHECKING:
    from app.authn.jwt import JwtVerifier


@dataclass(frozen=True, slots=True)
class Runtime:
    """The capabilities of this process and the limits of its edge."""

    context: WorkContext
    store: BlobStore
    resolver: ActorResolver
    tokens: "JwtVerifier | None"
    key_uses: KeyUses
    pepper: bytes = field(repr=False)
    chain_keys: ChainKeys
    retention: RetentionRules
    trust: ProxyTrust
    base_path: str
    max_body_bytes: int
    max_upload_bytes: int
    may_create_organizations: bool
    limits: RequestLimits | None = None
    access: AccessLog = field(default_factory=AccessLog)
    traffic: Traffic = field(default_factory=Traffic)
    buffers: Buffers = field(default_factory=Buffers)


def runtime_of(connection: HTTPConnection) -> Runtime:
    """The runtime of the app that serves this request."""
    runtime: Runtime = connection.app.state.runtime
    return runtime
