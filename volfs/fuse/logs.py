"""The daemon's log.

Decided here: levels, format, rotation, and that uncaught exceptions, Python warnings and fatal signals end up in the
same file as everything else. Not here: the messages (each room logs its own).
"""

from __future__ import annotations

import datetime
import errno
import faulthandler
import json
import logging
import logging.handlers
import os
import sys
import threading
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

from volfs.model.display import printable, printable_json, printable_lines

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_MAX_BYTES = 8 << 20
_KEPT = 3

log = logging.getLogger("volfs")


def start_logging(where: str, *, level: str = "info", style: str = "text") -> None:
    """Log to a file, or to stderr for ``-``. ``level`` is one of :data:`LEVELS`, ``style`` one of :data:`FORMATS`."""
    root = logging.getLogger()
    for earlier in list(root.handlers):
        root.removeHandler(earlier)
    handler: logging.Handler
    if where == "-":
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = _FollowedByStderr(where, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8")
    handler.setFormatter(_Json() if style == "json" else _Text(FORMAT))
    root.addHandler(handler)
    chosen = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(chosen, logging.INFO))  # what other libraries say for their own developers helps nobody here
    log.setLevel(chosen)
    logging.getLogger("pyfuse3").addFilter(_nobody_waits)
    logging.captureWarnings(True)
    warnings.simplefilter("default" if level == "debug" else "ignore", DeprecationWarning)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    faulthandler.enable()


class _Text(logging.Formatter):
    """Formats a message in one line, whatever names of files are in it; a traceback follows as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(printable_lines(super().formatException(ei)))


class _Json(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, ``pid``; perhaps ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, object] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(line, ensure_ascii=False, default=str))


def _nobody_waits(record: logging.LogRecord) -> bool:
    """Drop what pyfuse3 reports when a reply finds no request: its program was killed, or the mount is gone."""
    gone = {os.strerror(number) for number in (errno.ENOENT, errno.ENODEV, errno.ENOTCONN)}
    return not ("fuse_reply_* failed" in str(record.msg) and isinstance(record.args, tuple) and gone & {*record.args})


def reopen_log() -> None:
    """Go on in a new file, after another program has moved the old one away."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _FollowedByStderr):
            handler.close()  # it opens again at the next line


class _FollowedByStderr(logging.handlers.RotatingFileHandler):
    """A rotating log that takes stderr along, so that messages of C libraries and the interpreter stay in it."""

    def _open(self):  # type: ignore[no-untyped-def]  # the type is private to typeshed
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        stream = super()._open()
        os.dup2(stream.fileno(), 2)
        return stream


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))


def _uncaught_in_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        name = failure.thread.name if failure.thread else "a thread"
        log.critical("uncaught in %s", name, exc_info=(failure.exc_type, failure.exc_value, failure.exc_traceback))
