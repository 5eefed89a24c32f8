"""api calls, executions, api keys.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op
from app.db import base
from sqlalchemy.dialects import postgresql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('api_calls',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('operation_key', sa.String(length=255), nullable=False),
    sa.Column('external_request_id', sa.String(length=255), nullable=True),
    sa.Column('idempotency_key', sa.String(length=255), nullable=True),
    sa.Column('request_digest', sa.String(length=64), nullable=False),
    sa.Column('correlation_id', sa.String(length=256), nullable=True),
    sa.Column('status', sa.String(length=32), nullable=False),
    sa.Column('requested_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('responded_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('request_payload', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('response_payload', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('updated_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['organization_id', 'project_id'], ['projects.organization_id', 'projects.id'], name=op.f('fk_api_calls_organization_id_project_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_calls')),
    sa.UniqueConstraint('project_id', 'operation_key', 'idempotency_key', name=op.f('uq_api_calls_project_id_operation_key_idempotency_key'))
    )
    with op.batch_alter_table('api_calls', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_api_calls_correlation_id_requested_at'), ['correlation_id', 'requested_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_api_calls_organization_id_requested_at_id'), ['organization_id', 'requested_at', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_api_calls_project_id_requested_at_id'), ['project_id', 'requested_at', 'id'], unique=False)

    op.create_table('api_keys',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=True),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('prefix', sa.String(length=32), nullable=False),
    sa.Column('scope_type', sa.String(length=32), nullable=False),
    sa.Column('scope_id', sa.Uuid(), nullable=False),
    sa.Column('role', sa.String(length=32), nullable=False),
    sa.Column('actions', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=True),
    sa.Column('allowed_cidrs', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=True),
    sa.Column('parent_key_id', sa.Uuid(), nullable=True),
    sa.Column('expires_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('revoked_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('deleted_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('last_used_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('last_used_ip', sa.String(length=64), nullable=True),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('updated_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['organization_id', 'parent_key_id'], ['api_keys.organization_id', 'api_keys.id'], name=op.f('fk_api_keys_organization_id_parent_key_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['organization_id', 'project_id'], ['projects.organization_id', 'projects.id'], name=op.f('fk_api_keys_organization_id_project_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['organization_id'], ['organizations.id'], name=op.f('fk_api_keys_organization_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_keys')),
    sa.UniqueConstraint('organization_id', 'id', name=op.f('uq_api_keys_organization_id_id'))
    )
    with op.batch_alter_table('api_keys', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_api_keys_organization_id_created_at_id'), ['organization_id', 'created_at', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_api_keys_organization_id_parent_key_id'), ['organization_id', 'parent_key_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_api_keys_scope_type_scope_id'), ['scope_type', 'scope_id'], unique=False)

    op.create_table('executions',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('operation', sa.String(length=255), nullable=False),
    sa.Column('status', sa.String(length=32), nullable=False),
    sa.Column('actor_type', sa.String(length=32), nullable=False),
    sa.Column('actor_id', sa.String(length=256), nullable=False),
    sa.Column('target_type', sa.String(length=32), nullable=True),
    sa.Column('target_id', sa.Uuid(), nullable=True),
    sa.Column('correlation_id', sa.String(length=256), nullable=True),
    sa.Column('parent_execution_id', sa.Uuid(), nullable=True),
    sa.Column('agent_version', sa.String(length=255), nullable=True),
    sa.Column('model_provider', sa.String(length=255), nullable=True),
    sa.Column('model_name', sa.String(length=255), nullable=True),
    sa.Column('confidence', sa.Float(precision=53), nullable=True),
    sa.Column('warnings', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('provenance', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('started_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('ended_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('input', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('output', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('updated_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['organization_id', 'parent_execution_id'], ['executions.organization_id', 'executions.id'], name=op.f('fk_executions_organization_id_parent_execution_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['organization_id', 'project_id'], ['projects.organization_id', 'projects.id'], name=op.f('fk_executions_organization_id_project_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_executions')),
    sa.UniqueConstraint('organization_id', 'id', name=op.f('uq_executions_organization_id_id'))
    )
    with op.batch_alter_table('executions', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_executions_correlation_id_started_at'), ['correlation_id', 'started_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_executions_organization_id_parent_execution_id_started_at'), ['organization_id', 'parent_execution_id', 'started_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_executions_organization_id_started_at_id'), ['organization_id', 'started_at', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_executions_project_id_started_at_id'), ['project_id', 'started_at', 'id'], unique=False)

    op.create_table('api_key_secrets',
    sa.Column('prefix', sa.String(length=32), nullable=False),
    sa.Column('api_key_id', sa.Uuid(), nullable=False),
    sa.Column('hash', sa.String(length=64), nullable=False),
    sa.Column('hash_algorithm', sa.String(length=32), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('expires_at', base.Timestamp(timezone=True), nullable=True),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.ForeignKeyConstraint(['organization_id', 'api_key_id'], ['api_keys.organization_id', 'api_keys.id'], name=op.f('fk_api_key_secrets_organization_id_api_key_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('prefix', name=op.f('pk_api_key_secrets'))
    )
    with op.batch_alter_table('api_key_secrets', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_api_key_secrets_organization_id_api_key_id'), ['organization_id', 'api_key_id'], unique=False)



def downgrade() -> None:
    with op.batch_alter_table('api_key_secrets', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_api_key_secrets_organization_id_api_key_id'))

    op.drop_table('api_key_secrets')
    with op.batch_alter_table('executions', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_executions_project_id_started_at_id'))
        batch_op.drop_index(batch_op.f('ix_executions_organization_id_started_at_id'))
        batch_op.drop_index(batch_op.f('ix_executions_organization_id_parent_execution_id_started_at'))
        batch_op.drop_index(batch_op.f('ix_executions_correlation_id_started_at'))

    op.drop_table('executions')
    with op.batch_alter_table('api_keys', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_api_keys_scope_type_scope_id'))
        batch_op.drop_index(batch_op.f('ix_api_keys_organization_id_parent_key_id'))
        batch_op.drop_index(batch_op.f('ix_api_keys_organization_id_created_at_id'))

    op.drop_table('api_keys')
    with op.batch_alter_table('api_calls', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_api_calls_project_id_requested_at_id'))
        batch_op.drop_index(batch_op.f('ix_api_calls_organization_id_requested_at_id'))
        batch_op.drop_index(batch_op.f('ix_api_calls_correlation_id_requested_at'))

    op.drop_table('api_calls')
