"""Nobody hands out more than he holds: one rule for grants and for keys."""

from app.authz.engine import Located
from app.core.errors import ForbiddenError, InvalidError
from app.core.permissions import ROLE_ACTIONS, Role


def require_fit(resource: Located, role: Role) -> None:
    """Refuse a role on a level below its own.

    Raises:
        InvalidError: ORG_MEMBER on a project, say.
    """
    if not role.fits(resource.ref.type):
        raise InvalidError(f"{role.value} cannot be held on a resource of type {resource.ref.type.value}", pointer="/role")


def forbid_escalation(resource: Located, role: Role) -> None:
    """Refuse to hand out, or take away, a role that carries an action the caller does not hold on the resource.

    Raises:
        ForbiddenError: names what is missing.
    """
    missing = ROLE_ACTIONS[role] - resource.actions
    if missing:
        raise ForbiddenError(f"{role.value} carries what you do not hold here: {', '.join(sorted(missing))}.", code="escalation")
