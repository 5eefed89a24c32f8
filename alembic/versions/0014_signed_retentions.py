"""for how long an organization keeps its events is signed, and within what can be chosen.

No migration can sign: choices made before stay, unsigned, and nothing of their organizations is pruned until they are made again.

Revision: 0014, after 0013
"""

import sqlalchemy as sa
from alembic import op

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None

IN_RANGE = 'retention_days BETWEEN 1 AND 36500'


def upgrade() -> None:
    op.execute(f'DELETE FROM audit_retentions WHERE NOT ({IN_RANGE})')  # noqa: S608 - of this page; the service has written no such row
    with op.batch_alter_table('audit_retentions', schema=None) as batch_op:
        batch_op.add_column(sa.Column('key_id', sa.String(length=8), nullable=False, server_default=''))
        batch_op.add_column(sa.Column('mac', sa.String(length=64), nullable=False, server_default=''))
        batch_op.create_check_constraint(op.f('ck_audit_retentions_in_range'), sa.text(IN_RANGE))
    with op.batch_alter_table('audit_retentions', schema=None) as batch_op:
        batch_op.alter_column('key_id', server_default=None)
        batch_op.alter_column('mac', server_default=None)


def downgrade() -> None:
    with op.batch_alter_table('audit_retentions', schema=None) as batch_op:
        batch_op.drop_constraint(op.f('ck_audit_retentions_in_range'), type_='check')
        batch_op.drop_column('mac')
        batch_op.drop_column('key_id')
