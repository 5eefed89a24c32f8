"""Log lines: readable in a terminal, one JSON object a line elsewhere."""

import json
import logging
import sys
import time
from functools import lru_cache
from typing import Any, Final

from pydantic_core import to_json

# What every LogRecord has; whatever else one carries was given with ``extra=`` and is shown.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_PLAIN: Final = (str, int, float, type(None), dict, list)

# Libraries that tell what they ask other servers: a line for each question, and below that headers, credentials and signed URLs.
_CLIENTS: Final = (
    *("aioboto3", "aiobotocore", "boto3", "botocore", "s3transfer"),
    *("aiohttp", "hpack", "httpcore", "httpx", "requests", "urllib3"),
)


def configure_logging(level: str, *, as_json: bool) -> None:
    """Send the log to standard error, once for the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else ConsoleFormatter())
    # What no line of ours tells is not looked up for each (the library's own advice): the caller's frame, thread, process and task.
    logging._srcfile = None  # noqa: SLF001 - it is in the library's documentation
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = logging.logAsyncioTasks = False  # type: ignore[attr-defined]
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # the edge writes a better line
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    for name in _CLIENTS:
        logging.getLogger(name).setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": f"{_second_of(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return to_json(line, fallback=str).decode()
        except ValueError:  # half a character: what is no text in UTF-8 is told by its number
            return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """Time, level, message, and what was given beside it that the message does not say."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = (None, *(record.args if isinstance(record.args, tuple) else ()))
        extra = " ".join(f"{key}={value}" for key, value in _extra(record).items() if value not in told)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname:<7} {record.getMessage()}" + (f"  {extra}" if extra else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


@lru_cache(1)
def _second_of(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    """What is plain as it is, anything else as it names itself: what it has inside is not for the log."""
    return {
        key: value if isinstance(value, _PLAIN) else str(value)
        for key, value in vars(record).items()
        if key not in _STANDARD and key != "color_message"
    }
