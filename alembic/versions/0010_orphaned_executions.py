"""an execution stays when its parent, which may lie in another project, is deleted.

Revision: 0010, after 0009
"""

import re

from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None

OF_TWO, OF_ONE = 'fk_executions_organization_id_parent_execution_id', 'fk_executions_parent_execution_id'
TWO, REFERRED = ['organization_id', 'parent_execution_id'], ['organization_id', 'id']
TEXT_OF_TWO = 'FOREIGN KEY(organization_id, parent_execution_id) REFERENCES {} (organization_id, id)'
CASCADING = f'CONSTRAINT {OF_TWO} {TEXT_OF_TWO} ON DELETE CASCADE'
STAYING = (
    f'CONSTRAINT {OF_TWO} {TEXT_OF_TWO} DEFERRABLE INITIALLY DEFERRED, '
    f'CONSTRAINT {OF_ONE} FOREIGN KEY(parent_execution_id) REFERENCES {{}} (id) ON DELETE SET NULL'
)


def upgrade() -> None:
    op.drop_index('ix_executions_organization_id_parent_execution_id_started_at', 'executions')
    op.create_index('ix_executions_parent_execution_id_started_at', 'executions', ['parent_execution_id', 'started_at'])
    if op.get_bind().dialect.name == 'sqlite':
        rebuild(CASCADING, STAYING)
        return
    op.drop_constraint(OF_TWO, 'executions', type_='foreignkey')
    op.create_foreign_key(OF_TWO, 'executions', 'executions', TWO, REFERRED, deferrable=True, initially='DEFERRED')
    op.create_foreign_key(OF_ONE, 'executions', 'executions', ['parent_execution_id'], ['id'], ondelete='SET NULL')


def downgrade() -> None:
    op.drop_index('ix_executions_parent_execution_id_started_at', 'executions')
    op.create_index('ix_executions_organization_id_parent_execution_id_started_at', 'executions', [*TWO, 'started_at'])
    if op.get_bind().dialect.name == 'sqlite':
        rebuild(STAYING, CASCADING)
        return
    op.drop_constraint(OF_ONE, 'executions', type_='foreignkey')
    op.drop_constraint(OF_TWO, 'executions', type_='foreignkey')
    op.create_foreign_key(OF_TWO, 'executions', 'executions', TWO, REFERRED, ondelete='CASCADE')


def rebuild(before: str, after: str) -> None:
    """Put the table into a new one with other foreign keys: SQLite cannot change them.

    They are in force meanwhile. So the new table refers to itself, until it gets the name of the old one, and the events, which go
    with the old one, are kept beside.
    """
    run = op.get_bind().exec_driver_sql
    texts = "SELECT sql FROM sqlite_schema WHERE tbl_name = 'executions' AND sql IS NOT NULL AND type = '{}'"
    table, indexes = run(texts.format('table')).scalar_one(), run(texts.format('index')).scalars().all()
    pattern = re.escape(before).replace(re.escape('{}'), '"?executions"?')
    table, count = re.subn(pattern, after.replace('{}', 'executions_new'), table)
    assert count == 1, 'the foreign keys of executions are not those of the migrations'
    for statement in (
        re.sub('^CREATE TABLE "?executions"?', 'CREATE TABLE executions_new', table),
        'INSERT INTO executions_new SELECT * FROM executions',
        'CREATE TABLE execution_events_kept AS SELECT * FROM execution_events',
        'DROP TABLE executions',
        'ALTER TABLE executions_new RENAME TO executions',
        'INSERT INTO execution_events SELECT * FROM execution_events_kept',
        'DROP TABLE execution_events_kept',
        *indexes,
    ):
        run(statement)
