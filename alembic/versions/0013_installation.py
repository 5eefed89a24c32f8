"""the id of the installation, with which the store of documents is marked.

Revision: 0013, after 0012
"""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table('installation',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_installation')),
    )
    op.bulk_insert(table, [{'id': uuid4()}])


def downgrade() -> None:
    op.drop_table('installation')
