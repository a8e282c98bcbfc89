"""The daemon's log: where it goes, what a line looks like, and that nothing said anywhere is lost.

Decided here: format, rotation, and that uncaught exceptions, Python warnings and fatal signals end up in the same
file as everything else. Not here: what is worth a line (each room logs for itself).
"""

from __future__ import annotations

import errno
import faulthandler
import logging
import logging.handlers
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from types import TracebackType

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_MAX_BYTES = 8 << 20
_KEPT = 3

log = logging.getLogger("volfs")


def start_logging(where: str, *, verbose: bool = False) -> None:
    """Log to a file, or to stderr for ``-``. SIGUSR1 writes the stacks of all threads to stderr, which is the same."""
    root = logging.getLogger()
    for earlier in list(root.handlers):
        root.removeHandler(earlier)
    handler: logging.Handler
    if where == "-":
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = _FollowedByStderr(where, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("pyfuse3").addFilter(_nobody_waits)
    logging.captureWarnings(True)
    warnings.simplefilter("default" if verbose else "ignore", DeprecationWarning)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _nobody_waits(record: logging.LogRecord) -> bool:
    """Drop what pyfuse3 reports when a reply finds no request: its program was killed, or the mount is gone."""
    gone = {os.strerror(number) for number in (errno.ENOENT, errno.ENODEV, errno.ENOTCONN)}
    return not ("fuse_reply_* failed" in str(record.msg) and isinstance(record.args, tuple) and gone & {*record.args})


def reopen_log() -> None:
    """Go on in a new file, after somebody else has moved the old one away."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _FollowedByStderr):
            handler.close()  # it opens again at the next line


class _FollowedByStderr(logging.handlers.RotatingFileHandler):
    """A rotating log that takes stderr along, so that what C libraries and the interpreter say stays in the log."""

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
