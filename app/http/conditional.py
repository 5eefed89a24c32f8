"""Entity tags and conditional requests (RFC 9110, section 13)."""

from typing import Any


def etag_of(row: Any) -> str:
    """The strong tag of a row: its id and its revision."""
    return f'"{row.id.hex}-{row.revision}"'


def matches_strongly(header: str, etag: str) -> bool:
    """Whether an ``If-Match`` header names the tag, or is ``*``; a weak tag never matches."""
    return header.strip() == "*" or etag in _tags(header)


def matches_weakly(header: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` header names the tag, weak or strong, or is ``*``."""
    return header.strip() == "*" or etag in {tag.removeprefix("W/") for tag in _tags(header)}


def _tags(header: str) -> set[str]:
    return {part.strip() for part in header.split(",")}
