"""executions as traces: their root, what they cost, their deadline, where a telemetry span came from, what they tell on the way.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op
from app.db import base
from sqlalchemy.dialects import postgresql

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')
FIND_ROOTS = """
WITH RECURSIVE tree(id, root) AS (
    SELECT id, id FROM executions WHERE parent_execution_id IS NULL
    UNION ALL SELECT child.id, tree.root FROM executions AS child JOIN tree ON child.parent_execution_id = tree.id
)
UPDATE executions SET root_execution_id = tree.root FROM tree WHERE tree.id = executions.id
"""


def upgrade() -> None:
    for column in (
        sa.Column('root_execution_id', sa.Uuid(), nullable=True),
        sa.Column('kind', sa.String(length=32), nullable=True),
        sa.Column('session_id', sa.String(length=256), nullable=True),
        sa.Column('tags', JSON, server_default='[]', nullable=False),
        sa.Column('usage', JSON, nullable=True),
        sa.Column('cost', JSON, nullable=True),
        sa.Column('timeout_seconds', sa.Float(53), nullable=True),
        sa.Column('deadline_at', base.Timestamp(timezone=True), nullable=True),
        sa.Column('heartbeat_at', base.Timestamp(timezone=True), nullable=True),
        sa.Column('trace_id', sa.String(length=32), nullable=True),
        sa.Column('span_id', sa.String(length=16), nullable=True),
        sa.Column('parent_span_id', sa.String(length=16), nullable=True),
    ):
        op.add_column('executions', column)
    op.execute(FIND_ROOTS)
    with op.batch_alter_table('executions', schema=None) as batch_op:
        batch_op.create_index('ix_executions_organization_id_root_execution_id', ['organization_id', 'root_execution_id'], unique=False)
        batch_op.create_index('ix_executions_organization_id_session_id_started_at', ['organization_id', 'session_id', 'started_at'], unique=False)
        batch_op.create_index('ix_executions_span', ['organization_id', 'trace_id', 'span_id'], unique=True)
    where = sa.text("status = 'RUNNING'")
    op.create_index('ix_executions_running_deadline_at', 'executions', ['deadline_at'], sqlite_where=where, postgresql_where=where)
    op.create_table('execution_events',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('execution_id', sa.Uuid(), nullable=False),
    sa.Column('occurred_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('message', sa.String(length=8000), nullable=True),
    sa.Column('data', JSON, nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.ForeignKeyConstraint(['organization_id', 'execution_id'], ['executions.organization_id', 'executions.id'], name=op.f('fk_execution_events_organization_id_execution_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_execution_events'))
    )
    with op.batch_alter_table('execution_events', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_execution_events_organization_id_execution_id_occurred_at_id'), ['organization_id', 'execution_id', 'occurred_at', 'id'], unique=False)


def downgrade() -> None:
    op.drop_table('execution_events')
    for index in ('running_deadline_at', 'span', 'organization_id_session_id_started_at', 'organization_id_root_execution_id'):
        op.drop_index(f'ix_executions_{index}', 'executions')
    for name in ('parent_span_id', 'span_id', 'trace_id', 'heartbeat_at', 'deadline_at', 'timeout_seconds', 'cost', 'usage', 'tags', 'session_id', 'kind', 'root_execution_id'):
        op.drop_column('executions', name)
