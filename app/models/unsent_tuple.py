"""The outbox of the policy engine: changes of grants and groups that OpenFGA has not been told yet."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_ENUM, Base, TenantOwned, Timestamp

MAX_TUPLE_PART = 512


class UnsentTuple(TenantOwned, Base):
    """One change of one tuple, written with the change of the row it stands for and removed once OpenFGA has it.

    ``seq`` orders the changes of a tuple: its row is locked when the number is drawn.
    """

    __tablename__ = "authz_outbox"

    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    operation: Mapped[str] = mapped_column(String(MAX_ENUM))
    subject: Mapped[str] = mapped_column(String(MAX_TUPLE_PART))
    relation: Mapped[str] = mapped_column(String(MAX_ENUM))
    resource: Mapped[str] = mapped_column(String(MAX_TUPLE_PART))
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp())
    created_at: Mapped[datetime] = mapped_column(Timestamp())

    __table_args__ = (Index(None, "organization_id", "seq"),)
