"""Every operation x every kind of caller, with OpenFGA as engine."""

import pytest

from tests.security.test_matrix import *  # noqa: F403 - the same tests; only the engine differs

# On one database: the engine's own suites run on both.
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)]  # type: ignore[assignment] # the star import brought the mark of the other module
