"""buckets of callers whose requests are limited, shared by processes.

Revision: 0011, after 0010
"""

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Unlogged: it is written at the rate of requests, and nothing is lost with it.
    op.create_table('rate_buckets',
    sa.Column('bucket', sa.String(length=32), nullable=False),
    sa.Column('tokens', sa.Double(), nullable=False),
    sa.Column('granted', sa.Integer(), nullable=False),
    sa.Column('filled_at', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('bucket', name=op.f('pk_rate_buckets')),
    prefixes=['UNLOGGED'] if op.get_bind().dialect.name == 'postgresql' else [],
    )
    op.create_index(op.f('ix_rate_buckets_filled_at'), 'rate_buckets', ['filled_at'])


def downgrade() -> None:
    op.drop_index(op.f('ix_rate_buckets_filled_at'), 'rate_buckets')
    op.drop_table('rate_buckets')
