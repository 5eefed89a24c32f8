"""The tests of the same name, with OpenFGA as engine."""

from tests.resources.memberships.test_api import *  # noqa: F403 - the same tests; only the engine differs
