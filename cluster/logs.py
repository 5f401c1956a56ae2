"""Logs as JSON lines in var/log/crm.log, from the service and from every Ray worker."""

from __future__ import annotations

import logging
import os
import re
from logging.handlers import WatchedFileHandler
from pathlib import Path

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

FILE = "crm.log"
LARGEST_BYTES = 64 * 2**20
KEPT = 5
_QUERY = re.compile(r"(?<=[\w/])\?[^\s\"']+")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+")
_QUIET = ("httpx", "httpcore", "asyncio", "uvicorn.access")


def configure(folder: Path) -> None:
    """Send the standard library's and structlog's records to the file, one JSON object a line."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = WatchedFileHandler(folder / FILE, delay=True)  # reopens when the service rotates it
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _add_process,
                without_personal,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.raiseExceptions = False  # a full disk must not stop the service
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def configure_worker() -> None:
    """Set up a Ray worker's logs; Ray calls this by name in each new worker."""
    folder = os.environ.get("CRM_LOG_DIR")
    if folder is not None:
        configure(Path(folder))
        ray = logging.getLogger("ray")
        ray.handlers.clear()  # to the same file, as JSON
        ray.propagate = True


def rotate(folder: Path) -> None:
    """Put a large file aside and drop the oldest; only the service calls this, at its start."""
    current = folder / FILE
    if not current.exists() or current.stat().st_size < LARGEST_BYTES:
        return
    for number in range(KEPT, 0, -1):
        older = folder / f"{FILE}.{number}"
        if older.exists():
            older.replace(folder / f"{FILE}.{number + 1}")
    current.replace(folder / f"{FILE}.1")
    (folder / f"{FILE}.{KEPT + 1}").unlink(missing_ok=True)


def without_personal(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut query strings and e-mail addresses out of every text: the last net, not the first."""
    return {
        key: _EMAIL.sub("[email]", _QUERY.sub("", value)) if isinstance(value, str) else value
        for key, value in event.items()
    }


def _add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    return event
