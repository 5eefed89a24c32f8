"""A multipart upload, parsed from the request's stream straight into the blob store: constant memory whatever the size."""

from dataclasses import dataclass, field
from email.message import Message
from typing import Final

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.blobs.store import BlobStore, BlobWriter, StoredBlob
from app.core.errors import BadRequestError, InvalidError, TooLargeError, UnsupportedMediaTypeError
from app.core.text import MAX_JSON_BYTES
from app.http.buffers import BATCH_BYTES, Buffers
from app.observability.metrics import UPLOADED_BYTES

MAX_FIELD_BYTES: Final = MAX_JSON_BYTES + 1024
MAX_PARTS: Final = 20
MAX_PART_HEADER_BYTES: Final = 8 * 1024
MULTIPART_OVERHEAD: Final = 1024 * 1024
FILE_FIELD: Final = "file"


@dataclass(frozen=True, slots=True)
class Upload:
    """What came in: the stored bytes, the file part's name and type, and the other fields. Empty fields count as absent."""

    blob: StoredBlob
    file_name: str
    media_type: str | None
    fields: dict[str, str]


@dataclass(slots=True)
class _Part:
    name: str
    file_name: str | None
    media_type: str | None
    data: bytearray = field(default_factory=bytearray)


async def receive_upload(request: Request, store: BlobStore, buffers: Buffers, *, max_bytes: int) -> Upload:
    """Read the whole request body. On any error nothing of it is left in the store.

    Raises:
        UnsupportedMediaTypeError: not ``multipart/form-data``.
        BadRequestError: broken or truncated multipart, or an empty file.
        InvalidError: no file part, two of them, one without a file name, or a field that is too long or given twice.
        TooLargeError: the file is larger than ``max_bytes``; told as soon as it is known.
    """
    boundary = _boundary_of(request)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes + MULTIPART_OVERHEAD:
        raise _too_large(max_bytes)
    form = _FormReader(boundary, max_bytes, buffers)
    try:
        async with store.open_write() as writer:
            async for chunk in request.stream():
                form.feed(chunk)
                if form.filled > BATCH_BYTES:
                    await writer.write(form.take_batch())
            upload = await form.finish(writer)
        form.give_back()  # not after a failure, when a thread may still be reading
    finally:
        form.close()
    UPLOADED_BYTES.inc(upload.blob.size_bytes)
    return upload


class _FormReader:
    """The parser's callbacks: collects fields and at most one batch of the file.

    Two buffers take turns, one being filled while the store still reads the other: a new one for each batch would cost more in
    page faults than the parsing does. A file of one batch needs one.
    """

    def __init__(self, boundary: bytes, max_bytes: int, buffers: Buffers) -> None:
        self.filled = 0
        self._buffers = buffers
        self._filling = buffers.take()
        self._draining: bytearray | None = None
        self._max_bytes = max_bytes
        self._fields: dict[str, str] = {}
        self._file: _Part | None = None
        self._file_bytes = 0
        self._part: _Part | None = None
        self._parts = 0
        self._headers: Message = Message()
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._header_bytes = 0
        self._has_ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise BadRequestError("The multipart body is broken.", code="broken_multipart") from None

    def take_batch(self) -> memoryview:
        """The file's bytes collected so far; they stay as they are until the batch after the next is begun."""
        batch = memoryview(self._filling)[: self.filled]
        self._filling, self._draining, self.filled = self._draining or self._buffers.take(), self._filling, 0
        return batch

    def close(self) -> None:
        """Let go of the parser, which holds on to this and its buffers: else they stay until the collector comes."""
        del self._parser

    def give_back(self) -> None:
        """Leave the buffers to others."""
        self._buffers.give_back(self._filling)
        self._buffers.give_back(self._draining)

    async def finish(self, writer: BlobWriter) -> Upload:
        """Check that the form was whole, and make the file durable."""
        if not self._has_ended:  # the parser's own finalize() accepts a truncated body
            raise BadRequestError("The multipart body ends before its closing boundary.", code="broken_multipart")
        file = self._file
        if file is None:
            raise _file_is_required()
        if not self._file_bytes:
            raise BadRequestError("The file is empty.", code="empty_file")
        blob = await writer.finish(memoryview(self._filling)[: self.filled])
        return Upload(blob, file.file_name or "", file.media_type, self._fields)

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequestError(f"The form has more than {MAX_PARTS} parts.", code="too_many_parts")
        self._headers, self._header_bytes = Message(), 0

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._count_header(end - start)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._count_header(end - start)

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_PART_HEADER_BYTES:
            raise BadRequestError("A part of the form has headers that are too large.", code="broken_multipart")

    def _on_header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode("latin-1")
        self._header_name, self._header_value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(str(self._headers.get("content-disposition", "")).encode("latin-1"))
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise BadRequestError("A part of the form has no name.", code="broken_multipart")
        media_type = self._headers.get("content-type")
        self._part = _Part(_utf8(name), self._file_name(options), str(media_type) if media_type else None)
        if self._part.name == FILE_FIELD:
            if self._file is not None:
                raise InvalidError("is given more than once", pointer="/file")
            if not self._part.file_name:
                raise InvalidError("needs a file name", pointer="/file")
            self._file = self._part
        elif self._part.name in self._fields or self._part.file_name is not None:
            raise InvalidError("is given more than once, or as a file", pointer=f"/{self._part.name}")

    def _file_name(self, options: dict[bytes, bytes]) -> str | None:
        if b"filename" not in options:
            try:
                extended = self._headers.get_filename()
            except ValueError:  # a charset that is none of text
                raise BadRequestError("A file name of the form cannot be decoded.", code="broken_multipart") from None
            return _base_name(extended) if extended is not None else None
        # Browsers write the quote and line ends of a name as percent escapes (WHATWG form encoding), and nothing else.
        name = _utf8(options[b"filename"]).replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
        return _base_name(name)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part is not None and part is self._file:
            self._file_bytes += end - start
            if self._file_bytes > self._max_bytes:
                raise _too_large(self._max_bytes)
            self._collect(memoryview(data)[start:end])
        elif part is not None:
            part.data += data[start:end]
            if len(part.data) > MAX_FIELD_BYTES:
                raise InvalidError(f"is larger than {MAX_FIELD_BYTES} bytes", pointer=f"/{part.name}")

    def _collect(self, data: memoryview) -> None:
        end = self.filled + len(data)
        if end > len(self._filling):  # an unusually large piece from the server
            self._filling = self._filling[: self.filled] + bytearray(len(data))
        self._filling[self.filled : end] = data
        self.filled = end

    def _on_part_end(self) -> None:
        part, self._part = self._part, None
        if part is not None and part is not self._file:
            self._fields[part.name] = _utf8(bytes(part.data))

    def _on_end(self) -> None:
        self._has_ended = True


def _boundary_of(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"application/x-www-form-urlencoded":
        raise _file_is_required()
    if kind != b"multipart/form-data":
        raise UnsupportedMediaTypeError("This route takes multipart/form-data with a file part.")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # noqa: PLR2004 - RFC 2046, section 5.1.1
        raise BadRequestError("The multipart body has no valid boundary.", code="broken_multipart")
    return boundary


def _file_is_required() -> InvalidError:
    return InvalidError("is required: one part with a file name, in multipart/form-data", pointer="/file", code="missing")


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The file is larger than {limit} bytes.", code="file_too_large")


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequestError("A name or field of the form is not UTF-8.", code="broken_multipart") from None


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]
