"""The tests of the same name, with OpenFGA as engine."""

from tests.resources.api_keys.test_made_by_keys import *  # noqa: F403 - the same tests; only the engine differs
