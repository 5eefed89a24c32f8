"""What is known of OpenFGA without a client of it, whose library costs whoever has no such server: limits and errors."""

from typing import Final

MAX_CHECKS: Final = 50
MAX_CONTEXTUAL_TUPLES: Final = 100
MAX_WRITES: Final = 100


class OpenFGAError(Exception):
    """The server refused a request: a fault of the configuration or of this service."""


class OpenFGADownError(OpenFGAError):
    """It does not answer, not in time, or not with an answer."""


class TooDeepError(OpenFGAError):
    """Groups are nested deeper than the server follows."""
