"""Access lines are written for many requests together, soon, and tell of the time at which each was over."""

import asyncio
import logging
import pickle
import time
from logging.handlers import QueueHandler
from queue import Queue

import pytest

from app.core.head import Head
from app.http.access import AccessLog
from app.http.requests import RequestInfo

pytestmark = pytest.mark.anyio

INFO = RequestInfo(Head([]), "request", None, status=200)


def lines(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "app.access"]


async def wait_for(caplog: pytest.LogCaptureFixture, count: int) -> None:
    async with asyncio.timeout(60):
        while len(lines(caplog)) < count:
            await asyncio.sleep(0.01)


async def test_they_are_written_soon_and_tell_of_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.access")
    log = AccessLog()
    for count in (3, 6):
        begun = time.time()
        for _ in range(3):
            log.note("GET", "/a/{b}", INFO, 0.25)
        ended = time.time()
        assert len(lines(caplog)) == count - 3
        await wait_for(caplog, count)
        assert all(begun <= record.created <= ended for record in lines(caplog)[-3:])
        assert all(record.msecs == pytest.approx(record.created % 1 * 1000) for record in lines(caplog))
    assert {record.getMessage() for record in lines(caplog)} == {"GET /a/{b} 200"}


async def test_any_formatter_and_any_handler_can_take_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.access")
    log = AccessLog()
    log.note("GET", "/a", INFO, 0.25)
    log.note("PUT", None, INFO, 0.5)
    log.write()
    first, second = lines(caplog)
    shown = logging.Formatter("%(name)s %(levelname)s %(module)s %(lineno)d %(message)s %(duration_ms)s %(status)d")
    assert shown.format(first) == "app.access INFO access 0 GET /a 200 250.0 200"
    assert shown.format(second) == "app.access INFO access 0 PUT - 200 500.0 200"
    queued = QueueHandler(Queue()).prepare(first)
    assert shown.format(pickle.loads(pickle.dumps(queued))) == shown.format(first)
    assert logging.makeLogRecord(vars(second)).getMessage() == "PUT - 200"
    ordinary = logging.getLogger("app.access").makeRecord("app.access", logging.INFO, "", 0, "", (), None)
    assert vars(ordinary).keys() <= vars(second).keys()


async def test_one_that_cannot_be_noted_costs_no_other_its_line(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "app")
    counted: list[str] = []

    def observe(method: str, *_: object) -> None:
        if method == "PUT":
            raise OSError("no room")
        counted.append(method)

    monkeypatch.setattr("app.http.access.observe_request", observe)
    log = AccessLog()
    for method in ("GET", "PUT", "POST"):
        log.note(method, "/", INFO, 0)
    log.write()
    assert counted == ["GET", "POST"]
    assert [record.getMessage() for record in lines(caplog)] == ["GET / 200", "POST / 200"]
    assert [record.message for record in caplog.records if record.exc_info] == ["a request could not be noted"]


async def test_under_load_they_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.access")
    log = AccessLog()
    for _ in range(1000):
        log.note("GET", None, INFO, 0)
    assert len(lines(caplog)) > 700
    await wait_for(caplog, 1000)
    log.write()
    assert len(lines(caplog)) == 1000
