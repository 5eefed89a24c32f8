"""The tests of the same name, with OpenFGA as engine."""

import pytest

from tests.resources.memberships.test_api import *  # noqa: F403 - the same tests; only the engine differs

# On one database: the engine's own suites run on both.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)]  # type: ignore[assignment] # the star import brought the mark of the other module
