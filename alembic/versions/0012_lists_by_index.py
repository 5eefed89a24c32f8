"""every order of a list within a project has its index, and a total within one reads nothing else.

Revision: 0012, after 0011
"""

from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None

ADDED = (
    ('api_calls', ['organization_id', 'project_id']),
    ('executions', ['organization_id', 'project_id']),
    *(
        ('api_calls', ['project_id', name, 'id'])
        for name in ('created_at', 'updated_at', 'responded_at', 'name', 'status', 'operation_key')
    ),
    ('api_calls', ['external_request_id']),
    ('api_calls', ['idempotency_key']),
    *(('documents', ['project_id', name, 'id']) for name in ('updated_at', 'name', 'size_bytes')),
    *(('executions', ['project_id', name, 'id']) for name in ('ended_at', 'operation', 'status')),
    *(('projects', ['organization_id', name, 'id']) for name in ('updated_at', 'name')),
    *(('groups', ['organization_id', name, 'id']) for name in ('created_at', 'name')),
    ('api_keys', ['project_id', 'created_at', 'id']),
    ('audit_events', ['organization_id', 'project_id', 'occurred_at', 'id']),
)


def name_of(table: str, columns: list[str]) -> str:
    return op.f('_'.join(['ix', table, *columns]))


def upgrade() -> None:
    for table, columns in ADDED:
        op.create_index(name_of(table, columns), table, columns)


def downgrade() -> None:
    for table, columns in ADDED:
        op.drop_index(name_of(table, columns), table)
