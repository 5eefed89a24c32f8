"""Removes bytes that no document version names: leftovers of uploads that failed and of documents that were deleted."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import bindparam, select

from app.blobs.mark import claim
from app.blobs.store import BlobStore
from app.core.clock import now
from app.db.engine import Database
from app.models import DocumentVersion
from app.observability.metrics import REMOVED, SWEPT

_log = logging.getLogger(__name__)

_VERSIONS: Final = DocumentVersion.__table__
_NAMED: Final = select(_VERSIONS.c.storage_uri).where(_VERSIONS.c.storage_uri.in_(bindparam("uris", expanding=True)))


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one run found and removed."""

    examined: int
    removed: int


async def sweep(database: Database, store: BlobStore, min_age: timedelta) -> Sweep:
    """Remove every blob older than ``min_age`` that no row of any tenant names.

    The age keeps an upload safe whose row is about to be written. Reads addresses only, across tenants, and changes no row.

    Raises:
        ForeignStoreError: the store is not known to be this database's; nothing is removed.
        BlobStoreError: the store cannot be asked.
    """
    await claim(database, store)
    examined = removed = 0
    async for uris in store.list_older_than(now() - min_age):
        async with database.for_jobs.open_read() as connection:
            named = set((await connection.execute(_NAMED, {"uris": uris})).scalars())
        for uri in uris:
            if uri not in named:
                await store.delete(uri)
                removed += 1
                REMOVED.inc()
        examined += len(uris)
        SWEPT.inc(len(uris))
    if removed:
        _log.info("sweeper removed %d of %d contents", removed, examined)
    return Sweep(examined, removed)
