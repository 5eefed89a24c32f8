"""The written form of API keys: ``sbk_<prefix>.<secret><checksum>``.

The checksum lets a typo be refused, and a leaked key be recognised, without asking a database. Keys of SaaSBase 0.1.1 have a
43-character secret and no checksum; they are read too.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

SCHEME: Final = "sbk_"
SHA256: Final = "sha256"
HMAC_SHA256: Final = "hmac-sha256"

_BASE36: Final = string.digits + string.ascii_lowercase
_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PREFIX_LENGTH: Final = 12
_SECRET_LENGTH: Final = 43  # 256 bits in base 62
_PAIRS: Final = tuple(a + b for a in _BASE62 for b in _BASE62)
_CHECKSUM_LENGTH: Final = 6  # 32 bits in base 62: three pairs
_OURS = re.compile(rf"sbk_([0-9a-z]{{{_PREFIX_LENGTH}}})\.([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})")
_REFERENCE = re.compile(rf"sbk_([0-9a-z]{{{_PREFIX_LENGTH}}})\.([0-9A-Za-z_-]{{{_SECRET_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class KeyToken:
    """A token taken apart: what is looked up, and what is proved."""

    prefix: str
    secret: str = field(repr=False)
    algorithm: str = HMAC_SHA256
    """How keys of this form are stored: a token of ours that lost its checksum is not taken for one of the reference."""

    @property
    def written(self) -> str:
        """The whole token. Shown once, kept nowhere."""
        head = f"{SCHEME}{self.prefix}.{self.secret}"
        return head + _checksum(head)


def new_token() -> KeyToken:
    """A token nobody can guess: 256 random bits."""
    return KeyToken(_random(_BASE36, _PREFIX_LENGTH), _random(_BASE62, _SECRET_LENGTH))


def read_token(text: str) -> KeyToken | None:
    """Take a token apart; None when it has neither form or its checksum is wrong."""
    if (ours := _OURS.fullmatch(text)) is not None:
        head = text[:-_CHECKSUM_LENGTH]
        return KeyToken(ours[1], ours[2]) if hmac.compare_digest(_checksum(head), ours[3]) else None
    if (reference := _REFERENCE.fullmatch(text)) is not None:
        return KeyToken(reference[1], reference[2], SHA256)
    return None


def hash_secret(secret: str, algorithm: str, pepper: bytes) -> str:
    """The stored form. 256 random bits need no slow hash; the pepper keeps a stolen database from being of any use.

    Raises:
        ValueError: an algorithm this service does not know.
    """
    if algorithm == HMAC_SHA256:
        mac = _keyed(pepper).copy()
        mac.update(secret.encode())
        return mac.hexdigest()
    if algorithm == SHA256:  # keys of SaaSBase 0.1.1
        return hashlib.sha256(secret.encode()).hexdigest()
    raise ValueError(algorithm)


@lru_cache(1)
def _keyed(pepper: bytes) -> hmac.HMAC:
    return hmac.new(pepper, digestmod="sha256")  # to look up the algorithm each time costs as much as the rest


def _checksum(head: str) -> str:
    rest, last = divmod(zlib.crc32(head.encode()), len(_PAIRS))
    first, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
