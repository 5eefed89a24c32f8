"""Whether the store is this database's: both carry the id of the installation, and only then may the sweeper remove anything.

A database that was lost or mistaken names nothing that the store holds. Without the mark all of it would look like leftovers.
"""

import asyncio
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from app.blobs.store import BlobMissingError, BlobStore
from app.core.clock import now
from app.db.engine import Database
from app.models import DocumentVersion, Installation

# So many addresses of a database are looked for in a store without a mark; one that is there is enough.
SAMPLES: Final = 20
# A store that looks like another's is looked at twice: processes that start beside this one prove for a moment that it takes writes.
PAUSES: Final = (0.0, 1.0)

_ID: Final = select(Installation.id)
_ADDRESSES: Final = select(DocumentVersion.storage_uri).limit(SAMPLES)


class ForeignStoreError(Exception):
    """The store is not known to be this database's; says in one line what to do."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"nothing is swept: {reason}. Correct SAASBASE_DB_URL, or SAASBASE_STORAGE__LOCAL__BASE_PATH or SAASBASE_STORAGE__S3__*;"
            " restore a database that was lost. 'saasbase sweep --take-over' makes the store this database's,"
            " and removes for ever what this database does not name"
        )


async def recognize(database: Database, store: BlobStore) -> bool:
    """Whether the store has this database's mark; False when it has none, and may be given it. Writes nothing.

    Costs one small read of each. A store without a mark is asked for its first contents, and for ``SAMPLES`` that the database names.

    Raises:
        ForeignStoreError: it has another mark, or none and contents of which the database names none.
        BlobStoreError: the store cannot be asked.
    """
    own = await _read_id(database)
    for pause in PAUSES:
        await asyncio.sleep(pause)
        mark = await store.read_mark()
        if mark == own:
            return True
        if mark is not None:
            raise ForeignStoreError(f"the store is marked as of the installation {mark!r}, and this database is of {own!r}")
        if await _is_empty(store) or await _holds_named(database, store):
            return False
    raise ForeignStoreError("the store has contents and no mark, and none that this database names")


async def claim(database: Database, store: BlobStore) -> None:
    """Make sure that the store is this database's: mark one that has no mark and may be given it.

    Processes of one installation that do this at once write the same. Of two databases that find a store empty at once the last
    that wrote has it, and the other is refused from then on: not every S3 server can write only what is absent.

    Raises:
        ForeignStoreError, BlobStoreError: see ``recognize``.
    """
    if not await recognize(database, store):
        await take_over(database, store)
        await recognize(database, store)


async def take_over(database: Database, store: BlobStore) -> None:
    """Mark the store as this database's, whatever mark it had."""
    await store.write_mark(await _read_id(database))


async def _read_id(database: Database) -> str:
    async with database.for_jobs.open_read() as connection:
        return str((await connection.execute(_ID)).scalar_one())


async def _is_empty(store: BlobStore) -> bool:
    async for _ in store.list_older_than(now() + timedelta(days=1)):  # those just written, too, by whatever clock
        return False
    return True


async def _holds_named(database: Database, store: BlobStore) -> bool:
    async with database.for_jobs.open_read() as connection:
        addresses = (await connection.execute(_ADDRESSES)).scalars().all()
    for address in addresses:
        try:
            blob = await store.open_read(address)
        except BlobMissingError:
            continue
        blob.close()
        return True
    return False
