"""What text may enter the service: one set of rules for body, query, path, header, form field and file name."""

import json
import re
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUL = "\x00"

MAX_JSON_BYTES = 64 * 1024
MAX_JSON_DEPTH = 32
MAX_INTEGER_BITS = 1024


class InvalidTextError(ValueError):
    """The text cannot be accepted; the message completes the sentence 'this value ...'."""


def clean_identifier(text: str, longest: int) -> str:
    """Trim a name, key or id and refuse what could not be stored, shown or fetched back.

    Raises:
        InvalidTextError: empty after trimming, longer than ``longest`` characters, a control character or a lone surrogate.
    """
    text = text.strip()
    if not text:
        raise InvalidTextError("is empty")
    if len(text) > longest:
        raise InvalidTextError(f"is longer than {longest} characters")
    if _CONTROL.search(text):
        raise InvalidTextError("has a control character")
    if not is_encodable(text):
        raise InvalidTextError("is not valid Unicode")
    return text


def repair_identifier(text: str, longest: int) -> str:
    """The nearest text that ``clean_identifier`` takes: without control characters, and cut off; empty when nothing is left."""
    return _CONTROL.sub(" ", text.encode("utf-8", "replace").decode()).strip()[:longest].strip()


def is_encodable(text: str) -> bool:
    """Whether the text has no lone surrogate, i.e. can be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_storable(text: str) -> bool:
    """Whether both databases take the text as a value: valid Unicode without NUL."""
    return _NUL not in text and is_encodable(text)


def read_json_object(text: bytes) -> dict[str, Any]:
    """Read a JSON object of which every reader would read the same (RFC 8725, 2.4): no member twice, UTF-8, no NaN.

    Raises:
        InvalidTextError: it is not one.
    """
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidTextError("is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidTextError("is not a JSON object")
    return value


def check_json(value: dict[str, Any], max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return a JSON object unchanged if every database can store it and every client read it back.

    Raises:
        InvalidTextError: more than ``max_bytes`` of text, nested deeper than 32, a number that is not finite, NUL or a lone surrogate.
    """
    size = 0
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise InvalidTextError(f"is nested deeper than {MAX_JSON_DEPTH}")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                size += 2 + sum(_text_size(key) + 2 for key in node)
                below.extend(node.values())
            elif isinstance(node, list):
                size += 2 + len(node)
                below.extend(node)
            else:
                size += _scalar_size(node)
        if size > max_bytes:
            raise InvalidTextError(f"is larger than {max_bytes // 1024} KiB")
        level = below
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is named twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _text_size(text: str) -> int:
    if _NUL in text:
        raise InvalidTextError("has a NUL character")
    try:
        return len(text.encode("utf-8")) + 2
    except UnicodeEncodeError:
        raise InvalidTextError("is not valid Unicode") from None


def _scalar_size(node: Any) -> int:
    if isinstance(node, str):
        return _text_size(node)
    if isinstance(node, float) and node - node != 0:  # true for nan and both infinities only
        raise InvalidTextError("has a number that is not finite")
    if isinstance(node, int) and node.bit_length() > MAX_INTEGER_BITS:
        raise InvalidTextError("has a number with too many digits")
    return len(repr(node))
