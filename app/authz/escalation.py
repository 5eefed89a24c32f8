"""Nobody hands out more than he holds: one rule for grants and for keys."""

from datetime import datetime
from ipaddress import ip_network
from typing import Any, Final

from app.authz.engine import Located
from app.core.errors import ForbiddenError, InvalidError
from app.core.permissions import ROLE_ACTIONS, Action, Role

_EVERYWHERE: Final = ["0.0.0.0/0", "::/0"]


def require_fit(resource: Located, role: Role) -> None:
    """Refuse a role on a level below its own.

    Raises:
        InvalidError: ORG_MEMBER on a project, say.
    """
    if not role.fits(resource.ref.type):
        raise InvalidError(f"{role.value} cannot be held on a resource of type {resource.ref.type.value}", pointer="/role")


def forbid_escalation(held: frozenset[Action], role: Role) -> None:
    """Refuse to hand out, or take away, a role that carries an action the caller does not hold on the same resource.

    Raises:
        ForbiddenError: names what is missing.
    """
    missing = ROLE_ACTIONS[role] - held
    if missing:
        raise ForbiddenError(f"{role.value} carries what you do not hold here: {', '.join(sorted(missing))}.", code="escalation")


def forbid_outliving(parent: Any, expires_at: datetime | None) -> None:
    """Refuse an end after that of the key that makes the key.

    Raises:
        ForbiddenError: it has one, and this is later or none.
    """
    if is_later(expires_at=expires_at, than=parent.expires_at):
        raise ForbiddenError("A key that a key makes must not outlive it.", code="escalation")


def forbid_wandering(parent: Any, networks: list[str] | None) -> None:
    """Refuse networks that the key that makes the key does not work from.

    Raises:
        ForbiddenError: it is bound to networks, and one of these lies outside.
    """
    if not lie_within(networks, parent.allowed_cidrs):
        raise ForbiddenError("A key that a key makes must not work from where that one does not.", code="escalation")


def is_later(*, expires_at: datetime | None, than: datetime | None) -> bool:
    """Whether an end is after another; None never comes."""
    return than is not None and (expires_at is None or expires_at > than)


def common_networks(networks: list[str] | None, allowed: list[str]) -> list[str]:
    """What two lists of networks share; of two networks that overlap one always holds the other."""
    inner, outer = [[ip_network(network) for network in listed] for listed in (networks or _EVERYWHERE, allowed)]
    pairs = ((mine, theirs) for mine in inner for theirs in outer if mine.version == theirs.version and mine.overlaps(theirs))
    return sorted({str(max(pair, key=lambda network: network.prefixlen)) for pair in pairs})


def lie_within(networks: list[str] | None, allowed: list[str] | None) -> bool:
    """Whether each network is part of an allowed one; no list at all means everywhere."""
    if allowed is None:
        return True
    outer = [ip_network(network) for network in allowed]
    inner = [ip_network(network) for network in networks or _EVERYWHERE]
    return all(any(part.version == whole.version and part.subnet_of(whole) for whole in outer) for part in inner)  # type: ignore[arg-type]
