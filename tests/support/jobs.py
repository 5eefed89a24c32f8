"""The service's own jobs, as a test meets them that does by hand what one of them does too: it says when, and no job comes in between."""

import asyncio

from tests.support.statements import JOBS


def _tasks_of(*names: str) -> list[asyncio.Task[object]]:
    unknown = set(names) - JOBS
    if unknown:
        raise ValueError(f"no job has the name {unknown}")
    return [task for task in asyncio.all_tasks() if task.get_name() in names]


async def stop_jobs(*names: str) -> None:
    """End these jobs, all when none is named, of every service in this process; what one of them has begun is rolled back."""
    stopped = _tasks_of(*(names or JOBS))
    for task in stopped:
        task.cancel()
    await asyncio.gather(*stopped, return_exceptions=True)


async def sweep_of_the_start() -> None:
    """Wait until it is over: it is the only one where the settings name no interval, as those of tests do."""
    await asyncio.gather(*_tasks_of("sweeper"))
