"""tenants of subjects by index.

Revision: 0008, after 0007
"""

from alembic import op
from app.db.policies import tell_tenants_of_subjects

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != 'postgresql':
        return
    # Its first form, which 0005 made until now, read all grants to find those of one actor.
    schema = op.get_bind().exec_driver_sql('SELECT quote_ident(current_schema())').scalar_one()
    for statement in tell_tenants_of_subjects(schema):
        op.execute(statement)


def downgrade() -> None:
    """The function of 0005 is the same one."""
