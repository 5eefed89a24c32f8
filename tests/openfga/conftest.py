"""What only shows with OpenFGA as engine: the whole service over a real server. Without one nothing here is collected."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.conftest import Caller, Service, make_settings, open_service
from tests.openfga.copy import assert_copy_is_true
from tests.support.openfga import OpenFGAServer, is_expected, run_openfga

collect_ignore_glob = [] if is_expected() else ["test_*.py"]


def openfga_settings(server: OpenFGAServer, database_url: str, folder: Path, **changes: Any) -> Settings:
    """A configuration with a new store as engine. A long timeout: the machine may be busy."""
    openfga = {"url": server.url, "store_id": server.new_store(), "timeout_seconds": 30, **changes.pop("openfga", {})}
    return make_settings(database_url, folder, authz={"engine": "openfga", "openfga": openfga, **changes})


@pytest.fixture
def settings(openfga_server: OpenFGAServer, database_url: str, tmp_path: Path) -> Settings:
    """The same configuration as everywhere, with OpenFGA as engine."""
    return openfga_settings(openfga_server, database_url, tmp_path)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """The service; whatever a test has done, in the end the store holds exactly what the rows say."""
    async with open_service(settings) as running:
        yield running
        await assert_copy_is_true(running)


@pytest.fixture
async def alice(service: Service) -> Caller:
    return service.as_("user:alice")


@pytest.fixture
def own_server() -> Any:
    """A server that the test may kill."""
    with run_openfga() as running:
        yield running
