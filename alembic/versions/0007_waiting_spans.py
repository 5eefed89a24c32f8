"""spans that arrived before their parents are found by the parent they wait for.

Revision: 0007, after 0006
"""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text('parent_span_id IS NOT NULL AND parent_execution_id IS NULL')
    columns = ['organization_id', 'trace_id', 'parent_span_id']
    op.create_index('ix_executions_waiting_span', 'executions', columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index('ix_executions_waiting_span', 'executions')
