"""Memory that uploads collect batches of a file in, used again and again."""

from collections import deque
from typing import Final

BATCH_BYTES: Final = 1024 * 1024
BUFFER_BYTES: Final = BATCH_BYTES + 512 * 1024  # a batch, and what arrives with its last byte
SPARE_BUFFERS: Final = 8


class Buffers:
    """The buffers of uploads that have ended, for those to come: new memory costs a document of 1 MiB as much as parsing it does."""

    def __init__(self) -> None:
        self._spare: deque[bytearray] = deque(maxlen=SPARE_BUFFERS)

    def take(self) -> bytearray:
        """One of ``BUFFER_BYTES``, with whatever an upload left in it."""
        return self._spare.pop() if self._spare else bytearray(BUFFER_BYTES)

    def give_back(self, buffer: bytearray | None) -> None:
        """Nobody reads it any more."""
        if buffer is not None and len(buffer) == BUFFER_BYTES:
            self._spare.append(buffer)
