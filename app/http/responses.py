"""Answers with headers of their own: single resources with their entity tag."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.http.conditional import matches_weakly
from app.http.requests import request_info
from app.http.schemas import Resource


class ResourceResponse(Response):
    """One resource as JSON, with ``ETag``, with ``Location`` when it was created; 304 when the client has this revision already."""

    media_type = "application/json"

    def __init__(self, resource: Resource, status_code: int, base_path: str) -> None:
        self._etag = resource.etag
        headers = {"ETag": self._etag}
        if status_code == 201:  # noqa: PLR2004 - Created
            headers["Location"] = f"{base_path}{resource.address}"
        super().__init__(resource.__pydantic_serializer__.to_json(resource), status_code, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or 304 without a body."""
        if scope["method"] in {"GET", "HEAD"}:
            known = request_info(scope).head.joined(b"if-none-match")
            if known and matches_weakly(known, self._etag):
                await Response(status_code=304, headers={"ETag": self._etag})(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
