"""The buckets of callers, when processes share them. They belong to no tenant: a caller is limited whatever it asks for."""

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base

MAX_BUCKET = 32


class RateBucket(Base):
    """What is left of one caller's quota, and how much the last who asked was given. Times are seconds since 1970.

    On PostgreSQL the table is unlogged: after a crash it is empty, and every bucket full.
    """

    __tablename__ = "rate_buckets"

    bucket: Mapped[str] = mapped_column(String(MAX_BUCKET), primary_key=True)
    tokens: Mapped[float] = mapped_column(Double())
    granted: Mapped[int]
    filled_at: Mapped[float] = mapped_column(Double(), index=True)
