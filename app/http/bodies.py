"""A body that is no JSON of ours: read whole, after the guard has said yes, with a limit on what is sent and on what it unpacks to."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from app.core.errors import BadRequestError, TooLargeError, UnsupportedMediaTypeError

_GZIP = "gzip"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class ReceivedBody:
    """What was sent, still packed; ``unpack`` costs CPU and belongs into a thread."""

    media_type: str
    sent: bytes
    is_packed: bool
    max_bytes: int

    def unpack(self) -> bytes:
        """The content. A packed body is never inflated beyond its limit, whatever it would come to.

        Raises:
            BadRequestError: it is not one whole gzip member.
            TooLargeError: it unpacks to more than ``max_bytes``.
        """
        if not self.is_packed:
            return self.sent
        inflater = zlib.decompressobj(_GZIP_WINDOW)
        try:
            content = inflater.decompress(self.sent, self.max_bytes + 1)
        except zlib.error:
            raise _broken() from None
        if len(content) > self.max_bytes:
            raise TooLargeError(f"The body unpacks to more than {self.max_bytes} bytes.")
        if not inflater.eof or inflater.unused_data:
            raise _broken()
        return content


async def receive_body(request: Request, max_bytes: Mapping[str, int], *, max_packed_bytes: int) -> ReceivedBody:
    """Read the body of one of the media types in ``max_bytes``, which says how large each may be unpacked.

    Raises:
        UnsupportedMediaTypeError: another media type, or packed with anything but gzip.
        TooLargeError: more was sent, or announced, than may be.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in max_bytes:
        raise UnsupportedMediaTypeError(f"The body has to be {' or '.join(max_bytes)}.")
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in {"", "identity", _GZIP}:
        raise UnsupportedMediaTypeError("The body has to be packed with gzip, or not at all.")
    limit = min(max_packed_bytes, max_bytes[media_type]) if coding == _GZIP else max_bytes[media_type]
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    sent = bytearray()
    async for chunk in request.stream():
        sent += chunk
        if len(sent) > limit:
            raise _too_large(limit)
    return ReceivedBody(media_type, bytes(sent), coding == _GZIP, max_bytes[media_type])


def _broken() -> BadRequestError:
    return BadRequestError("The body is not whole gzip, as its Content-Encoding says.", code="broken_gzip")


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The body is larger than {limit} bytes.")
