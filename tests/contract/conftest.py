"""Suites of the policy engine run over each implementation; OpenFGA's over a real server."""

from collections.abc import AsyncIterator

import pytest

from tests.support.engines import BUILTIN, Candidate, open_openfga_engine
from tests.support.openfga import ENGINES


@pytest.fixture(params=ENGINES)
async def candidate(request: pytest.FixtureRequest) -> AsyncIterator[Candidate]:
    """Each policy engine in turn."""
    if request.param == "builtin":
        yield BUILTIN
        return
    async with open_openfga_engine(request.getfixturevalue("openfga_server")) as opened:
        yield opened
