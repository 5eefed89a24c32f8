"""the hash chain of the audit trail: places of events, heads, gaps, checkpoints; and how long each organization keeps its events.

Revision: 0009, after 0008
"""

import sqlalchemy as sa
from alembic import op
from app.db import base
from app.db.policies import protect, unprotect

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None

TABLES = ('audit_chains', 'audit_gaps', 'audit_checkpoints', 'audit_retentions')


def upgrade() -> None:
    for column in (sa.Column('position', sa.BigInteger()), sa.Column('hash', sa.String(length=64)), sa.Column('key_id', sa.String(length=8))):
        op.add_column('audit_events', column)
    unsealed = sa.text('position IS NULL')
    columns = ['organization_id', 'occurred_at', 'id']
    op.create_index('ix_audit_events_position', 'audit_events', ['organization_id', 'position'], unique=True)
    op.create_index('ix_audit_events_unsealed', 'audit_events', columns, sqlite_where=unsealed, postgresql_where=unsealed)
    op.create_table('audit_chains',
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('position', sa.BigInteger(), nullable=False),
    sa.Column('hash', sa.String(length=64), nullable=False),
    sa.Column('sealed_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('key_id', sa.String(length=8), nullable=False),
    sa.Column('mac', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('organization_id', name=op.f('pk_audit_chains'))
    )
    op.create_table('audit_gaps',
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('first_position', sa.BigInteger(), nullable=False),
    sa.Column('last_position', sa.BigInteger(), nullable=False),
    sa.Column('last_hash', sa.String(length=64), nullable=False),
    sa.Column('prune_event_id', sa.Uuid(), nullable=False),
    sa.Column('key_id', sa.String(length=8), nullable=False),
    sa.Column('mac', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('organization_id', 'first_position', name=op.f('pk_audit_gaps'))
    )
    op.create_index('ix_audit_gaps_last_position', 'audit_gaps', ['organization_id', 'last_position'], unique=True)
    op.create_table('audit_checkpoints',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('position', sa.BigInteger(), nullable=False),
    sa.Column('hash', sa.String(length=64), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('key_id', sa.String(length=8), nullable=False),
    sa.Column('mac', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_checkpoints'))
    )
    op.create_index('ix_audit_checkpoints_position', 'audit_checkpoints', ['organization_id', 'position'], unique=True)
    op.create_table('audit_retentions',
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('retention_days', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('organization_id', name=op.f('pk_audit_retentions'))
    )
    if op.get_bind().dialect.name == 'postgresql':
        for table in TABLES:
            for statement in protect(table):
                op.execute(statement)


def downgrade() -> None:
    for table in reversed(TABLES):
        if op.get_bind().dialect.name == 'postgresql':
            for statement in unprotect(table):
                op.execute(statement)
        op.drop_table(table)
    op.drop_index('ix_audit_events_unsealed', 'audit_events')
    op.drop_index('ix_audit_events_position', 'audit_events')
    for column in ('key_id', 'hash', 'position'):
        op.drop_column('audit_events', column)
