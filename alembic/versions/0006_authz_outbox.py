"""authz outbox.

Revision: 0006, after 0005
"""

import sqlalchemy as sa
from alembic import op
from app.db import base
from app.db.policies import protect, unprotect

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('authz_outbox',
    sa.Column('seq', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), sa.Identity(), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('operation', sa.String(length=32), nullable=False),
    sa.Column('subject', sa.String(length=512), nullable=False),
    sa.Column('relation', sa.String(length=32), nullable=False),
    sa.Column('resource', sa.String(length=512), nullable=False),
    sa.Column('expires_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['organization_id'], ['organizations.id'], name=op.f('fk_authz_outbox_organization_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('seq', name=op.f('pk_authz_outbox'))
    )
    with op.batch_alter_table('authz_outbox', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_authz_outbox_organization_id_seq'), ['organization_id', 'seq'], unique=False)
    if op.get_bind().dialect.name == 'postgresql':
        for statement in protect('authz_outbox'):
            op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == 'postgresql':
        for statement in unprotect('authz_outbox'):
            op.execute(statement)
    with op.batch_alter_table('authz_outbox', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_authz_outbox_organization_id_seq'))

    op.drop_table('authz_outbox')
