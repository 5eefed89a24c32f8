"""acting for others: the right of a key, the principal of an execution.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('api_keys', sa.Column('may_act_for_others', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('executions', sa.Column('on_behalf_of', sa.String(length=272), nullable=True))


def downgrade() -> None:
    op.drop_column('executions', 'on_behalf_of')
    op.drop_column('api_keys', 'may_act_for_others')
