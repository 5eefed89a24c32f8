"""One row of the reference, read column by column: what cannot be kept as it is, is changed and noted, or makes the row unusable."""

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import RowMapping

from app.core.actors import MAX_ACTOR_ID
from app.core.text import InvalidTextError, check_json, clean_identifier, is_storable, repair_identifier
from app.db.base import MAX_NAME, MAX_SUBJECT

# The reference bounds nothing: what it took in is kept, as far as one value can be answered in one piece.
MAX_JSON_BYTES: Final = 64 * 1024 * 1024
MAX_INTEGER: Final = 2**63 - 1
UNKNOWN: Final = "unknown"
_YEARS: Final = range(1900, 9001)

Choice = TypeVar("Choice", bound=StrEnum)


class RottenRowError(Exception):
    """The row cannot be imported; the message says why, and holds nothing of what stands in it but ids."""


class RowReader:
    """Reads one row. ``changes`` is what could not be kept."""

    def __init__(self, values: Mapping[str, Any] | RowMapping) -> None:
        self._values = values
        self.changes: list[str] = []

    def uuid(self, column: str) -> UUID:
        """An id.

        Raises:
            RottenRowError: it is none.
        """
        try:
            return UUID(self._values[column])
        except (ValueError, TypeError, AttributeError):
            raise RottenRowError(f"{column} is no id") from None

    def uuid_or_none(self, column: str) -> UUID | None:
        """The same where there may be none."""
        return self.uuid(column) if self._values[column] is not None else None

    def moment(self, column: str) -> datetime:
        """A time; the reference means UTC where it tells no offset.

        Raises:
            RottenRowError: it is none.
        """
        try:
            value = datetime.fromisoformat(self._values[column].strip())
        except (ValueError, TypeError, AttributeError):
            raise RottenRowError(f"{column} is no time") from None
        if value.year not in _YEARS:
            raise RottenRowError(f"{column} is out of range")
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    def moment_or_none(self, column: str) -> datetime | None:
        """The same where there may be none."""
        return self.moment(column) if self._values[column] not in {None, ""} else None

    def choice(self, column: str, choices: type[Choice]) -> Choice:
        """One of a set of words.

        Raises:
            RottenRowError: it is another.
        """
        try:
            return choices(self._values[column])
        except ValueError:
            raise RottenRowError(f"{column} is none of {', '.join(choices)}") from None

    def integer(self, column: str, lowest: int, highest: int = MAX_INTEGER) -> int:
        """A whole number.

        Raises:
            RottenRowError: it is none, or out of range.
        """
        value = self._values[column]
        if not isinstance(value, int) or not lowest <= value <= highest:
            raise RottenRowError(f"{column} is no number from {lowest} to {highest}")
        return value

    def number_or_none(self, column: str) -> float | None:
        """A finite number where there may be none."""
        value = self._values[column]
        if value is None or (isinstance(value, int | float) and math.isfinite(value)):
            return value
        self.changes.append(f"{column} is no finite number: left empty")
        return None

    def exact(self, column: str, longest: int) -> str:
        """A text that must not be changed.

        Raises:
            RottenRowError: it cannot be kept.
        """
        try:
            clean_identifier(self._raw(column), longest)
        except InvalidTextError as error:
            raise RottenRowError(f"{column} {error}") from None
        return self._raw(column)

    def matching(self, column: str, pattern: re.Pattern[str]) -> str:
        """The same for a text of which the form is known."""
        if not pattern.fullmatch(self._raw(column)):
            raise RottenRowError(f"{column} has another form")
        return self._raw(column)

    def string(self, column: str, longest: int = MAX_NAME, fallback: str = UNKNOWN) -> str:
        """A text; made fit where it is not: control characters become spaces, and what is too long is cut."""
        raw = self._raw(column)
        try:
            clean_identifier(raw, longest)
        except InvalidTextError as error:
            fit = repair_identifier(raw, longest) or fallback
            self.changes.append(f"{column} {error}: now {fit!a:.80}")
            return fit
        return raw[:longest]

    def string_or_none(self, column: str, longest: int = MAX_NAME) -> str | None:
        """The same where there may be none; blank is none."""
        return self.string(column, longest) if self._raw(column).strip() else None

    def subject(self, column: str = "created_by_subject") -> str:
        """An actor in its written form, as an author."""
        return self.string(column, MAX_SUBJECT, f"user:{UNKNOWN}")

    def actor_id(self) -> str:
        """The id of an actor, as an author: nobody gets a right by it."""
        return self.string("actor_id", MAX_ACTOR_ID)

    def json(self, column: str) -> dict[str, Any]:
        """A JSON object; an empty one where it is none that every database can store and every client read."""
        try:
            return check_json(_an_object(self._parsed(column, {})), max_bytes=MAX_JSON_BYTES)
        except InvalidTextError as error:
            self.changes.append(f"{column} {error}: left empty")
            return {}

    def strings(self, column: str) -> list[str]:
        """A list of texts; without those that are none."""
        try:
            value = self._parsed(column, [])
        except InvalidTextError:
            value = None
        kept = [text for text in value if isinstance(text, str) and is_storable(text)] if isinstance(value, list) else []
        if kept != value:
            self.changes.append(f"{column} is no list of texts: the others are left out")
        return kept

    def _raw(self, column: str) -> str:
        value = self._values[column]
        return value if isinstance(value, str) else ""

    def _parsed(self, column: str, absent: Any) -> Any:
        raw = self._values[column]
        if raw in {None, ""}:
            return absent
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise InvalidTextError("is not JSON") from None


def _an_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidTextError("is no JSON object")
    return value
