"""A file on its way in, as a handler asks for it: nothing is read from the request before the guard has said yes."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.core.errors import InvalidError
from app.core.text import InvalidTextError, clean_identifier
from app.db.base import MAX_NAME
from app.http.dependencies import TheRuntime, Work
from app.http.runtime import Runtime
from app.http.uploads import FILE_FIELD, Upload, receive_upload
from app.unit_of_work import UnitOfWork

FormT = TypeVar("FormT", bound=BaseModel)

DEFAULT_NAME = "document"


@dataclass(frozen=True, slots=True)
class IncomingUpload:
    """An upload that has not been read yet."""

    request: Request
    work: UnitOfWork
    runtime: Runtime

    async def receive(self, form: type[FormT]) -> tuple[FormT, Upload]:
        """Read the body; the bytes are durable when this returns, and removed again unless the work commits.

        Raises:
            RequestValidationError: the form's fields are not valid, or there are others.
            AppError: see ``receive_upload``.
        """
        upload = await receive_upload(self.request, self.runtime.store, self.runtime.buffers, max_bytes=self.runtime.max_upload_bytes)
        blob = upload.blob

        async def remove() -> None:
            await self.runtime.store.delete(blob.uri)

        self.work.after_rollback(remove)
        fields = {name: value for name, value in upload.fields.items() if value != ""}
        try:
            return form.model_validate(fields), upload
        except ValidationError as error:
            raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from None


def file_name_of(upload: Upload) -> str:
    """The name the client gave the file.

    Raises:
        InvalidError: it could not be a document's name.
    """
    try:
        return clean_identifier(upload.file_name or DEFAULT_NAME, MAX_NAME)
    except InvalidTextError as error:
        raise InvalidError(f"the file's name {error}", pointer=f"/{FILE_FIELD}") from None


def multipart_body(form: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI description of a body with a file and the form's fields."""
    schema = form.model_json_schema()
    required = [FILE_FIELD, *schema.get("required", [])]
    file = {"type": "string", "format": "binary", "minLength": 1, "description": "The file; its part needs a file name."}
    fields = {name: _form_field(described, is_required=name in required) for name, described in schema["properties"].items()}
    fields["metadata"] = {"type": "string", "description": "A JSON object, as text."}
    described = {"type": "object", "properties": {FILE_FIELD: file, **fields}, "required": required, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": described}}}}


def _form_field(described: dict[str, Any], *, is_required: bool) -> dict[str, Any]:
    """A field of a form is text, and absent when it is left blank."""
    kinds = described.get("anyOf", [described])
    told = {name: kind[name] for kind in kinds for name in ("maxLength", "pattern") if name in kind}
    if is_required:
        told["minLength"] = 1
    elif "pattern" in told:
        told["pattern"] = f"^$|{told['pattern']}"
    return {"type": "string", "description": described.get("description", ""), **told}


async def open_upload(request: Request, work: Work, runtime: TheRuntime) -> IncomingUpload:
    """The upload of this request, unread."""
    return IncomingUpload(request, work, runtime)


TheUpload = Annotated[IncomingUpload, Depends(open_upload)]
