"""The settings of rate limits."""

from pydantic import Field

from app.settings.sections import Section

MAX_PER_MINUTE = 1_000_000


class LimitSettings(Section):
    """How many requests a caller may send a minute; so many may come at once, and they come back steadily."""

    key_per_minute: int = Field(default=0, ge=0, le=MAX_PER_MINUTE)
    """Requests of one API key; 0 = no limit."""
    actor_per_minute: int = Field(default=0, ge=0, le=MAX_PER_MINUTE)
    """Requests of one user, service or agent that is no API key; 0 = no limit."""
    peer_per_minute: int = Field(default=0, ge=0, le=MAX_PER_MINUTE)
    """Requests from one address (IPv6: one /64) that show no identity, or a wrong one; 0 = no limit."""
    shared: bool = False
    """true = all processes count together in the database, which costs little on PostgreSQL; false = each worker counts for itself."""
