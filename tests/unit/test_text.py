"""Which text may enter, tested without a service."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.text import MAX_JSON_BYTES, MAX_JSON_DEPTH, InvalidTextError, check_json, clean_identifier, is_encodable, is_storable

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


def test_a_name_is_trimmed_and_otherwise_kept() -> None:
    for text, clean in (
        (" a ", "a"),
        ("\t a b \n", "a b"),
        ("Größe 日本 🙂", "Größe 日本 🙂"),
        ("\u00a0x\u3000", "x"),
        ("a" * 10, "a" * 10),
    ):
        assert clean_identifier(text, 10) == clean


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        (" \t\n\u3000", "is empty"),
        ("a" * 11, "is longer than 10 characters"),
        *((f"a{control}b", "has a control character") for control in "\x00\x01\t\n\r\x1f\x7f\x80\x9f\u2028\u2029"),
        ("a\ud800b", "is not valid Unicode"),
        ("\udfff", "is not valid Unicode"),
    ],
)
def test_a_name_that_could_not_be_shown_or_fetched_is_refused(text: str, fault: str) -> None:
    with pytest.raises(InvalidTextError) as caught:
        clean_identifier(text, 10)
    assert str(caught.value) == fault


@given(ANY_TEXT)
def test_a_name_that_passes_can_be_stored_and_passes_again(text: str) -> None:
    try:
        clean = clean_identifier(text, 20)
    except InvalidTextError:
        return
    assert clean_identifier(clean, 20) == clean
    assert 1 <= len(clean) <= 20
    assert is_storable(clean)
    assert clean.isprintable() or not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in clean)


@given(ANY_TEXT)
def test_what_can_be_written_as_utf_8_is_known(text: str) -> None:
    assert is_encodable(text) == all(not 0xD800 <= ord(letter) <= 0xDFFF for letter in text)
    assert is_storable(text) == (is_encodable(text) and "\x00" not in text)


def nest(depth: int) -> dict[str, Any]:
    """An object with this many levels, itself included."""
    value: Any = {}
    for number in range(depth - 1):
        value = [value] if number % 2 else {"a": value}
    return value if isinstance(value, dict) else {"a": value[0]}


def test_metadata_has_a_limit_on_its_depth() -> None:
    assert check_json(nest(MAX_JSON_DEPTH)) == nest(MAX_JSON_DEPTH)
    with pytest.raises(InvalidTextError, match="nested deeper than 32"):
        check_json(nest(MAX_JSON_DEPTH + 1))
    with pytest.raises(InvalidTextError, match="nested deeper than 32"):
        check_json(nest(10_000))


def test_metadata_has_a_limit_on_its_size() -> None:
    room = MAX_JSON_BYTES - len('{"a": ""}') - 1
    assert check_json({"a": "x" * room})
    for large in (
        {"a": "x" * MAX_JSON_BYTES},
        {"ä" * (MAX_JSON_BYTES // 2): 1},
        {"a": [1] * MAX_JSON_BYTES},
        {str(n): 1 for n in range(20_000)},
    ):
        with pytest.raises(InvalidTextError, match="larger than 64 KiB"):
            check_json(large)


@pytest.mark.parametrize("bad", ["\x00", "a\x00", "\ud800", float("nan"), float("inf"), float("-inf"), 2**1025, -(2**1025)])
def test_metadata_with_a_value_that_no_database_takes_is_refused(bad: Any) -> None:
    spots: list[dict[str, Any]] = [{"a": bad}, {"a": [bad]}, {"a": {"b": [[bad]]}}]
    if isinstance(bad, str):
        spots.append({bad: 1})
    for value in spots:
        with pytest.raises(InvalidTextError):
            check_json(value)


NAMES = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False) | NAMES
TREES = st.recursive(SCALARS, lambda below: st.lists(below, max_size=5) | st.dictionaries(NAMES, below, max_size=5), max_leaves=40)


@given(st.dictionaries(NAMES, TREES, max_size=5))
def test_ordinary_metadata_passes_unchanged(value: dict[str, Any]) -> None:
    assert check_json(value) is value
    assert json.loads(json.dumps(value)) == value
