"""Bearer credentials by their form: an API key says what it is, anything else is a token."""

from app.authn.resolver import BearerVerifier
from app.core.actors import Identity
from app.core.keys import SCHEME
from app.db.wanted import Wanted


class KeyOrTokenVerifier:
    """Hands a bearer credential to the one verifier it is for: what one refuses, the other never sees."""

    def __init__(self, keys: BearerVerifier, tokens: BearerVerifier) -> None:
        self._keys = keys
        self._tokens = tokens

    async def verify(self, token: str, address: str | None, wanted: Wanted | None = None) -> Identity:
        """See ``BearerVerifier.verify``."""
        return await (self._keys if token.startswith(SCHEME) else self._tokens).verify(token, address, wanted)
