"""Every operation x every kind of caller, with OpenFGA as engine."""

from tests.security.test_matrix import *  # noqa: F403 - the same tests; only the engine differs
