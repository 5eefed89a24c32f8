"""Documents and their named versions. The bytes lie in a blob store under ``storage_key``."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import MAX_SUBJECT, Base, Json, Recorded, TenantOwned, Timestamp

MAX_VERSION_NAME = 100
MAX_MEDIA_TYPE = 255
MAX_STORAGE_KEY = 255
CHECKSUM_LENGTH = 64


class Stored:
    """What a document's current version and every version say about their bytes."""

    media_type: Mapped[str] = mapped_column(String(MAX_MEDIA_TYPE))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    checksum: Mapped[str] = mapped_column(String(CHECKSUM_LENGTH))
    storage_uri: Mapped[str] = mapped_column(String(MAX_STORAGE_KEY))


class Document(TenantOwned, Recorded, Stored, Base):
    """A file of a project. The columns of its current version are repeated here, so that reading one is one row."""

    __tablename__ = "documents"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID]
    name: Mapped[str]
    current_version_id: Mapped[UUID]
    current_version_number: Mapped[int]
    current_version_name: Mapped[str] = mapped_column(String(MAX_VERSION_NAME))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)

    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "project_id"],
            ["projects.organization_id", "projects.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("organization_id", "project_id", "id"),
        Index(None, "organization_id", "created_at", "id"),
        Index(None, "project_id", "created_at", "id"),
        *(Index(None, "project_id", name, "id") for name in ("updated_at", "name", "size_bytes")),
    )


class DocumentVersion(TenantOwned, Stored, Base):
    """One upload of a document; never changed after it is written."""

    __tablename__ = "document_versions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    document_id: Mapped[UUID]
    project_id: Mapped[UUID]
    version_number: Mapped[int]
    version_name: Mapped[str] = mapped_column(String(MAX_VERSION_NAME))
    name: Mapped[str]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", Json)
    created_at: Mapped[datetime] = mapped_column(Timestamp())
    created_by_subject: Mapped[str] = mapped_column(String(MAX_SUBJECT))

    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "project_id", "document_id"],
            ["documents.organization_id", "documents.project_id", "documents.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("document_id", "version_number"),
        UniqueConstraint("document_id", "version_name"),
        Index(None, "organization_id", "version_number", "id"),
        Index(None, "project_id", "version_number", "id"),
        Index(None, "storage_uri"),
    )
