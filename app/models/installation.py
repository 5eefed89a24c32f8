"""Which installation a database is of. It belongs to no tenant, and nothing that a request could ask for."""

from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base


class Installation(Base):
    """One row, made by the migration: the id that the store of documents is marked with. A dump carries it along."""

    __tablename__ = "installation"

    id: Mapped[UUID] = mapped_column(primary_key=True)
