"""Buffers of uploads are used again, and few are kept."""

from app.http.buffers import BUFFER_BYTES, SPARE_BUFFERS, Buffers


def test_what_is_given_back_is_taken_next() -> None:
    buffers = Buffers()
    first = buffers.take()
    buffers.give_back(first)
    assert buffers.take() is first
    assert buffers.take() is not first


def test_few_are_kept_and_none_of_another_size() -> None:
    buffers = Buffers()
    for given in (None, bytearray(BUFFER_BYTES + 1), *(bytearray(BUFFER_BYTES) for _ in range(SPARE_BUFFERS))):
        buffers.give_back(given)
    kept = [buffers.take() for _ in range(SPARE_BUFFERS)]
    buffers.give_back(late := bytearray(BUFFER_BYTES))
    assert (buffers.take() is late, len({id(buffer) for buffer in kept})) == (True, SPARE_BUFFERS)
    assert {len(buffer) for buffer in kept} == {BUFFER_BYTES}
