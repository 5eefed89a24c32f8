"""SQL of API calls."""

from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import Row, Select, select

from app.core.errors import ConflictError, NotFoundError, PreconditionFailedError
from app.core.pagination import CursorPage, CursorRequest, Page, PageRequest
from app.db.listing import Listing, equals, wire_columns
from app.db.repository import Repository
from app.models import ApiCall
from app.resources.api_calls.schemas import ENDS, MAY_FOLLOW, ApiCallListQuery, ApiCallStatus
from app.unit_of_work import UnitOfWork


class ApiCallRepository(Repository):
    """Statements over ``api_calls``."""

    model = ApiCall
    listing: ClassVar[Listing] = Listing(
        ApiCall,
        {
            "name": ApiCall.name,
            "requested_at": ApiCall.requested_at,
            "responded_at": ApiCall.responded_at,
            "created_at": ApiCall.created_at,
            "updated_at": ApiCall.updated_at,
            "status": ApiCall.status,
            "operation_key": ApiCall.operation_key,
        },
        {
            "organization_id": equals(ApiCall.organization_id),
            "project_id": equals(ApiCall.project_id),
            "status": equals(ApiCall.status),
            "operation_key": equals(ApiCall.operation_key),
            "external_request_id": equals(ApiCall.external_request_id),
            "idempotency_key": equals(ApiCall.idempotency_key),
            "correlation_id": equals(ApiCall.correlation_id),
        },
    )

    def __init__(self, work: UnitOfWork) -> None:
        super().__init__(work.session)
        self._work = work

    async def find_repeated(self, project_id: UUID, operation_key: str, idempotency_key: str) -> Row[Any] | None:
        """The call that was created with this idempotency key."""
        statement: Select[Any] = select(*wire_columns(ApiCall)).where(
            ApiCall.project_id == project_id, ApiCall.operation_key == operation_key, ApiCall.idempotency_key == idempotency_key
        )
        found: Row[Any] | None = (await self._session.execute(statement)).one_or_none()
        return found

    async def move(self, call_id: UUID, values: dict[str, Any], status: ApiCallStatus | None, expected_revision: int | None) -> Row[Any]:
        """Change a call that has not ended and, if a status is given, may come into it. The database decides, so of many at once one wins.

        Raises:
            ConflictError: it has ended, or stands where no way leads to that status.
        """
        allowed = set(ApiCallStatus) - ENDS if status is None else MAY_FOLLOW[status] | ({status} - ENDS)
        try:
            return await self.update(call_id, values, expected_revision, ApiCall.status.in_([before.value for before in allowed]))
        except (NotFoundError, PreconditionFailedError):
            before = (await self._session.execute(select(ApiCall.status).where(ApiCall.id == call_id))).scalar_one_or_none()
            if before is None or ApiCallStatus(before) in allowed:
                raise
        code = "already_ended" if ApiCallStatus(before) in ENDS else "status_not_allowed"
        raise ConflictError(f"The call is {before}: it cannot become {status or 'anything else'}.", code=code)

    async def list_visible(self, query: ApiCallListQuery, request: PageRequest | CursorRequest) -> Page[Any] | CursorPage[Any]:
        """The calls the actor was admitted to."""
        return await self.page(query.given(), request, self._work.visible_rows(self.model))
