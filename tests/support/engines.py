"""Every policy engine, for the suites that run over all of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.authz.builtin import BuiltinPolicyEngine
from app.authz.engine import PolicyEngine
from app.authz.openfga import OpenFGAPolicyEngine
from app.authz.openfga_client import OpenFGAClient
from app.authz.outbox import Outbox
from app.authz.reconcile import reconcile
from app.db.engine import Database
from tests.support.openfga import OpenFGAServer


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine, and how it learns of rows that were written past the service."""

    policy: PolicyEngine
    client: OpenFGAClient | None = None

    async def catch_up(self, database: Database) -> None:
        """Let the engine see the tables as they are now."""
        if self.client is not None:
            found = await reconcile(database, self.client, Outbox(database, self.client), is_dry_run=False)
            assert found.unsent == 0


@asynccontextmanager
async def open_openfga_engine(server: OpenFGAServer) -> AsyncIterator[Candidate]:
    """The engine over a new store. Long timeouts: the machine may be busy, and time is not what is shown."""
    client = OpenFGAClient(server.url, server.new_store(), timeout_seconds=30)
    policy = OpenFGAPolicyEngine(client)
    try:
        yield Candidate(policy, client)
    finally:
        await policy.aclose()


BUILTIN = Candidate(BuiltinPolicyEngine())
