"""foundation.

Revision: 0001, after 
"""

import sqlalchemy as sa
from alembic import op
from app.db import base
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table('audit_events',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('occurred_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=True),
    sa.Column('actor_type', sa.String(length=32), nullable=False),
    sa.Column('actor_id', sa.String(length=256), nullable=False),
    sa.Column('on_behalf_of', sa.String(length=272), nullable=True),
    sa.Column('auth_method', sa.String(length=32), nullable=False),
    sa.Column('action', sa.String(length=128), nullable=False),
    sa.Column('outcome', sa.String(length=32), nullable=False),
    sa.Column('resource_type', sa.String(length=32), nullable=False),
    sa.Column('resource_id', sa.Uuid(), nullable=False),
    sa.Column('ip', sa.String(length=64), nullable=True),
    sa.Column('user_agent', sa.String(length=512), nullable=True),
    sa.Column('request_id', sa.String(length=128), nullable=True),
    sa.Column('correlation_id', sa.String(length=256), nullable=True),
    sa.Column('details', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_events'))
    )
    with op.batch_alter_table('audit_events', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_audit_events_correlation_id_occurred_at'), ['correlation_id', 'occurred_at'], unique=False)
        batch_op.create_index(batch_op.f('ix_audit_events_organization_id_occurred_at_id'), ['organization_id', 'occurred_at', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_audit_events_project_id_occurred_at_id'), ['project_id', 'occurred_at', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_audit_events_resource_type_resource_id_occurred_at'), ['resource_type', 'resource_id', 'occurred_at'], unique=False)

    op.create_table('organizations',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('slug', sa.String(length=63), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('updated_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_organizations')),
    sa.UniqueConstraint('slug', name=op.f('uq_organizations_slug'))
    )
    op.create_table('groups',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('group_id', sa.String(length=256), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('updated_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['organization_id'], ['organizations.id'], name=op.f('fk_groups_organization_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_groups')),
    sa.UniqueConstraint('organization_id', 'group_id', name=op.f('uq_groups_organization_id_group_id'))
    )
    op.create_table('projects',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('updated_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['organization_id'], ['organizations.id'], name=op.f('fk_projects_organization_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_projects')),
    sa.UniqueConstraint('organization_id', 'id', name=op.f('uq_projects_organization_id_id'))
    )
    with op.batch_alter_table('projects', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_projects_organization_id_created_at_id'), ['organization_id', 'created_at', 'id'], unique=False)

    op.create_table('documents',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('current_version_id', sa.Uuid(), nullable=False),
    sa.Column('current_version_number', sa.Integer(), nullable=False),
    sa.Column('current_version_name', sa.String(length=100), nullable=False),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('updated_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('media_type', sa.String(length=255), nullable=False),
    sa.Column('size_bytes', sa.BigInteger(), nullable=False),
    sa.Column('checksum', sa.String(length=64), nullable=False),
    sa.Column('storage_uri', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['organization_id', 'project_id'], ['projects.organization_id', 'projects.id'], name=op.f('fk_documents_organization_id_project_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_documents')),
    sa.UniqueConstraint('organization_id', 'project_id', 'id', name=op.f('uq_documents_organization_id_project_id_id'))
    )
    with op.batch_alter_table('documents', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_documents_organization_id_created_at_id'), ['organization_id', 'created_at', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_documents_project_id_created_at_id'), ['project_id', 'created_at', 'id'], unique=False)

    op.create_table('group_members',
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('group_id', sa.String(length=256), nullable=False),
    sa.Column('member_type', sa.String(length=32), nullable=False),
    sa.Column('member_id', sa.String(length=256), nullable=False),
    sa.Column('added_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('added_by_subject', sa.String(length=272), nullable=False),
    sa.Column('expires_at', base.Timestamp(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['organization_id', 'group_id'], ['groups.organization_id', 'groups.group_id'], name=op.f('fk_group_members_organization_id_group_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('organization_id', 'group_id', 'member_type', 'member_id', name=op.f('pk_group_members'))
    )
    with op.batch_alter_table('group_members', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_group_members_member_type_member_id_organization_id_group_id'), ['member_type', 'member_id', 'organization_id', 'group_id'], unique=False)

    op.create_table('memberships',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=True),
    sa.Column('resource_type', sa.String(length=32), nullable=False),
    sa.Column('resource_id', sa.Uuid(), nullable=False),
    sa.Column('actor_type', sa.String(length=32), nullable=False),
    sa.Column('actor_id', sa.String(length=256), nullable=False),
    sa.Column('role', sa.String(length=32), nullable=False),
    sa.Column('granted_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('granted_by_subject', sa.String(length=272), nullable=False),
    sa.Column('expires_at', base.Timestamp(timezone=True), nullable=True),
    sa.CheckConstraint("(resource_type = 'ORGANIZATION' AND role IN ('ORG_OWNER', 'ORG_ADMIN', 'ORG_MEMBER', 'PROJECT_OWNER', 'PROJECT_EDITOR', 'PROJECT_VIEWER', 'DOCUMENT_OWNER', 'DOCUMENT_EDITOR', 'DOCUMENT_VIEWER', 'API_CALL_OWNER', 'API_CALL_EDITOR', 'API_CALL_VIEWER')) OR (resource_type = 'PROJECT' AND role IN ('PROJECT_OWNER', 'PROJECT_EDITOR', 'PROJECT_VIEWER', 'DOCUMENT_OWNER', 'DOCUMENT_EDITOR', 'DOCUMENT_VIEWER', 'API_CALL_OWNER', 'API_CALL_EDITOR', 'API_CALL_VIEWER')) OR (resource_type = 'DOCUMENT' AND role IN ('DOCUMENT_OWNER', 'DOCUMENT_EDITOR', 'DOCUMENT_VIEWER')) OR (resource_type = 'API_CALL' AND role IN ('API_CALL_OWNER', 'API_CALL_EDITOR', 'API_CALL_VIEWER'))", name=op.f('ck_memberships_role_fits_level')),
    sa.ForeignKeyConstraint(['organization_id', 'project_id'], ['projects.organization_id', 'projects.id'], name=op.f('fk_memberships_organization_id_project_id'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['organization_id'], ['organizations.id'], name=op.f('fk_memberships_organization_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_memberships')),
    sa.UniqueConstraint('actor_type', 'actor_id', 'resource_type', 'resource_id', 'role', name='uq_memberships_grant')
    )
    with op.batch_alter_table('memberships', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_memberships_organization_id_project_id'), ['organization_id', 'project_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_memberships_resource_type_resource_id'), ['resource_type', 'resource_id'], unique=False)

    op.create_table('document_versions',
    sa.Column('id', sa.Uuid(), nullable=False),
    sa.Column('document_id', sa.Uuid(), nullable=False),
    sa.Column('project_id', sa.Uuid(), nullable=False),
    sa.Column('version_number', sa.Integer(), nullable=False),
    sa.Column('version_name', sa.String(length=100), nullable=False),
    sa.Column('name', sa.String(length=255), nullable=False),
    sa.Column('metadata', sa.JSON().with_variant(postgresql.JSONB(), 'postgresql'), nullable=False),
    sa.Column('created_at', base.Timestamp(timezone=True), nullable=False),
    sa.Column('created_by_subject', sa.String(length=272), nullable=False),
    sa.Column('organization_id', sa.Uuid(), nullable=False),
    sa.Column('media_type', sa.String(length=255), nullable=False),
    sa.Column('size_bytes', sa.BigInteger(), nullable=False),
    sa.Column('checksum', sa.String(length=64), nullable=False),
    sa.Column('storage_uri', sa.String(length=255), nullable=False),
    sa.ForeignKeyConstraint(['organization_id', 'project_id', 'document_id'], ['documents.organization_id', 'documents.project_id', 'documents.id'], name=op.f('fk_document_versions_organization_id_project_id_document_id'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_document_versions')),
    sa.UniqueConstraint('document_id', 'version_name', name=op.f('uq_document_versions_document_id_version_name')),
    sa.UniqueConstraint('document_id', 'version_number', name=op.f('uq_document_versions_document_id_version_number'))
    )
    with op.batch_alter_table('document_versions', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_document_versions_organization_id_version_number_id'), ['organization_id', 'version_number', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_document_versions_project_id_version_number_id'), ['project_id', 'version_number', 'id'], unique=False)
        batch_op.create_index(batch_op.f('ix_document_versions_storage_uri'), ['storage_uri'], unique=False)




def downgrade() -> None:

    with op.batch_alter_table('document_versions', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_document_versions_storage_uri'))
        batch_op.drop_index(batch_op.f('ix_document_versions_project_id_version_number_id'))
        batch_op.drop_index(batch_op.f('ix_document_versions_organization_id_version_number_id'))

    op.drop_table('document_versions')
    with op.batch_alter_table('memberships', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_memberships_resource_type_resource_id'))
        batch_op.drop_index(batch_op.f('ix_memberships_organization_id_project_id'))

    op.drop_table('memberships')
    with op.batch_alter_table('group_members', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_group_members_member_type_member_id_organization_id_group_id'))

    op.drop_table('group_members')
    with op.batch_alter_table('documents', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_documents_project_id_created_at_id'))
        batch_op.drop_index(batch_op.f('ix_documents_organization_id_created_at_id'))

    op.drop_table('documents')
    with op.batch_alter_table('projects', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_projects_organization_id_created_at_id'))

    op.drop_table('projects')
    op.drop_table('groups')
    op.drop_table('organizations')
    with op.batch_alter_table('audit_events', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_audit_events_resource_type_resource_id_occurred_at'))
        batch_op.drop_index(batch_op.f('ix_audit_events_project_id_occurred_at_id'))
        batch_op.drop_index(batch_op.f('ix_audit_events_organization_id_occurred_at_id'))
        batch_op.drop_index(batch_op.f('ix_audit_events_correlation_id_occurred_at'))

    op.drop_table('audit_events')

