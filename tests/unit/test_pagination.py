"""Pages and cursors, without a database."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.pagination import (
    MAX_OFFSET,
    Cursor,
    CursorPage,
    InvalidCursorError,
    Page,
    PageRequest,
    decode_cursor,
    encode_cursor,
    fingerprint,
)

STORABLE = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(STORABLE, st.uuids(), st.text())
def test_a_cursor_comes_back_as_it_was(value: str, identifier: UUID, filters: str) -> None:
    bound_to = fingerprint({"filter": filters})
    text = encode_cursor(Cursor(value, identifier), bound_to)
    assert text.isascii()
    assert not set(text) & set("+/=&?# %")
    assert decode_cursor(text, bound_to) == Cursor(value, identifier)


@given(st.text(max_size=300))
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidCursorError):
        decode_cursor(text, fingerprint({}))


def test_a_cursor_is_bound_to_filters_and_order() -> None:
    text = encode_cursor(Cursor("a", uuid4()), fingerprint({"name": "x", "sort": "a"}))
    assert decode_cursor(text, fingerprint({"sort": "a", "name": "x"}))
    for other in ({}, {"name": "x"}, {"name": "X", "sort": "a"}, {"name": "x", "sort": "a", "more": None}, {"name": "xa", "sort": ""}):
        with pytest.raises(InvalidCursorError, match="another list"):
            decode_cursor(text, fingerprint(other))


def test_an_offset_is_bounded_to_what_databases_take() -> None:
    assert PageRequest(3, 20, "name", descending=False).offset == 60
    assert PageRequest(10**18, 500, "name", descending=False).offset == MAX_OFFSET < 2**63


def test_pages_can_be_mapped() -> None:
    request = PageRequest(1, 2, "name", descending=True)
    assert Page([1, 2], 9, request).map(str) == Page(["1", "2"], 9, request)
    assert CursorPage([1, 2], "next").map(str) == CursorPage(["1", "2"], "next")
