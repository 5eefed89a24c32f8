"""row-level security.

Revision: 0005, after 0004
"""

from alembic import op
from app.db.confinement import OF_SUBJECTS, lookup_name
from app.db.policies import protect, tell_tenant_by, tell_tenants_of_subjects, unprotect

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

TABLES = {
    'organizations': 'id',
    'projects': 'organization_id',
    'documents': 'organization_id',
    'document_versions': 'organization_id',
    'api_calls': 'organization_id',
    'executions': 'organization_id',
    'execution_events': 'organization_id',
    'api_keys': 'organization_id',
    'api_key_secrets': 'organization_id',
    'groups': 'organization_id',
    'group_members': 'organization_id',
    'memberships': 'organization_id',
    'audit_events': 'organization_id',
}
KEYS = (
    ('organizations', 'slug', 'text'),
    ('projects', 'id', 'uuid'),
    ('documents', 'id', 'uuid'),
    ('api_calls', 'id', 'uuid'),
    ('executions', 'id', 'uuid'),
    ('api_keys', 'id', 'uuid'),
    ('api_key_secrets', 'prefix', 'text'),
)


def upgrade() -> None:
    if op.get_bind().dialect.name != 'postgresql':  # SQLite has none
        return
    schema = op.get_bind().exec_driver_sql('SELECT quote_ident(current_schema())').scalar_one()
    for table, column in TABLES.items():
        for statement in protect(table, column):
            op.execute(statement)
    for key in KEYS:
        for statement in tell_tenant_by(*key, schema):
            op.execute(statement)
    for statement in tell_tenants_of_subjects(schema):
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name != 'postgresql':
        return
    op.execute(f'DROP FUNCTION {OF_SUBJECTS}')
    for table, column, _kind in KEYS:
        op.execute(f'DROP FUNCTION {lookup_name(table, column)}')
    for table in TABLES:
        for statement in unprotect(table):
            op.execute(statement)
