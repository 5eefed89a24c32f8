"""Ends executions that were not heard of before their deadline."""

from sqlalchemy import select, update

from app.core.clock import now
from app.core.events import AuditAction
from app.db.listing import wire_columns
from app.models import Execution
from app.resources.executions.schemas import ExecutionStatus
from app.resources.executions.subjects import subject_of
from app.unit_of_work import WorkContext, open_system_work

BATCH = 500


async def end_overdue(context: WorkContext) -> int:
    """End every execution whose deadline has passed as TIMED_OUT; returns how many.

    Several processes may do it at once: each execution is ended, and recorded, by the one that locks it while it runs.
    """
    is_overdue = (Execution.status == ExecutionStatus.RUNNING.value) & (Execution.deadline_at <= now())
    ended = 0
    async with context.database.for_jobs.open_read() as connection:
        tenants = (await connection.execute(select(Execution.organization_id).where(is_overdue).distinct().limit(BATCH))).scalars().all()
    for organization_id in tenants:
        async with open_system_work(context, "executions past their deadline", organization_id) as work:
            locked = select(Execution.id).where(is_overdue).limit(BATCH).with_for_update(skip_locked=True)
            ids = (await work.session.execute(locked)).scalars().all()
            if not ids:  # another process was first
                continue
            values = {"status": ExecutionStatus.TIMED_OUT.value, "ended_at": now(), "updated_at": now(), "revision": Execution.revision + 1}
            statement = update(Execution).where(Execution.id.in_(ids)).values(values).returning(*wire_columns(Execution))
            for row in (await work.session.execute(statement)).all():
                work.record(AuditAction.EXECUTION_TIMED_OUT, subject_of(row), correlation_id=row.correlation_id, execution_id=str(row.id))
                ended += 1
    return ended
