"""What makes the audit trail tamper-evident: the head of each chain, what was pruned from it, and where it stood when."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, TenantOwned, Timestamp
from app.models.audit_event import MAX_HASH, MAX_KEY_ID


class AuditChain(TenantOwned, Base):
    """The head of an organization's chain: its last position and hash, signed. Who changes the chain locks this row."""

    __tablename__ = "audit_chains"

    organization_id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(MAX_HASH))
    sealed_at: Mapped[datetime] = mapped_column(Timestamp())
    key_id: Mapped[str] = mapped_column(String(MAX_KEY_ID))
    mac: Mapped[str] = mapped_column(String(MAX_HASH))


class AuditGap(TenantOwned, Base):
    """Positions whose events were pruned, with the hash of the last of them, signed: the event after it is linked to that."""

    __tablename__ = "audit_gaps"

    organization_id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True)
    first_position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    last_position: Mapped[int] = mapped_column(BigInteger)
    last_hash: Mapped[str] = mapped_column(String(MAX_HASH))
    prune_event_id: Mapped[UUID]
    key_id: Mapped[str] = mapped_column(String(MAX_KEY_ID))
    mac: Mapped[str] = mapped_column(String(MAX_HASH))

    __table_args__ = (Index("ix_audit_gaps_last_position", "organization_id", "last_position", unique=True),)


class AuditCheckpoint(TenantOwned, Base):
    """Where a chain stood at some moment, signed: a head that was set back is behind it."""

    __tablename__ = "audit_checkpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(MAX_HASH))
    created_at: Mapped[datetime] = mapped_column(Timestamp())
    key_id: Mapped[str] = mapped_column(String(MAX_KEY_ID))
    mac: Mapped[str] = mapped_column(String(MAX_HASH))

    __table_args__ = (Index("ix_audit_checkpoints_position", "organization_id", "position", unique=True),)


class AuditRetention(TenantOwned, Base):
    """For how many days an organization keeps its events, signed; without a row as the service is set. It outlives the organization."""

    __tablename__ = "audit_retentions"

    organization_id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True)
    retention_days: Mapped[int]
    key_id: Mapped[str] = mapped_column(String(MAX_KEY_ID))
    mac: Mapped[str] = mapped_column(String(MAX_HASH))

    __table_args__ = (CheckConstraint("retention_days BETWEEN 1 AND 36500", name="in_range"),)
