"""The HTTP status for each error of the tree, and what its client and the log are told.

Decided here: the one table. Not here: what is refused by HTTP's own rules, before the tree is asked (the modules of
each).
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from http import HTTPStatus

from volfs.errors import VolfsError

log = logging.getLogger(__name__)

#: By errno. What is not in it is 500.
STATUS = {
    errno.ENOENT: HTTPStatus.NOT_FOUND,
    errno.ENOTDIR: HTTPStatus.NOT_FOUND,
    errno.EACCES: HTTPStatus.FORBIDDEN,
    errno.EPERM: HTTPStatus.FORBIDDEN,
    errno.EROFS: HTTPStatus.FORBIDDEN,
    errno.EINVAL: HTTPStatus.UNPROCESSABLE_ENTITY,
    errno.ENOTSUP: HTTPStatus.UNPROCESSABLE_ENTITY,
    errno.EISDIR: HTTPStatus.CONFLICT,
    errno.EEXIST: HTTPStatus.CONFLICT,
    errno.ENOTEMPTY: HTTPStatus.CONFLICT,
    errno.EBUSY: HTTPStatus.CONFLICT,
    errno.EXDEV: HTTPStatus.CONFLICT,
    errno.ESTALE: HTTPStatus.GONE,
    errno.EFBIG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errno.ENAMETOOLONG: HTTPStatus.REQUEST_URI_TOO_LONG,
    errno.ELOOP: HTTPStatus.LOOP_DETECTED,
    errno.ETIMEDOUT: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.EMFILE: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.ENFILE: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.ENOMEM: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.ENOSPC: HTTPStatus.INSUFFICIENT_STORAGE,
    errno.EDQUOT: HTTPStatus.INSUFFICIENT_STORAGE,
    errno.EIO: HTTPStatus.INTERNAL_SERVER_ERROR,
}

#: Seconds after which a client may ask again for what took too long: what was read for it is kept.
RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a client is told it. ``number`` is its errno."""

    status: int
    line: str
    number: int

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("retry-after", str(RETRY_SECONDS))] if self.status == HTTPStatus.SERVICE_UNAVAILABLE else []


class Refusal(Exception):
    """A request that HTTP or WebDAV itself refuses: a status, a line for its client, and further headers."""

    def __init__(self, status: int, line: str = "", headers: list[tuple[str, str]] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.line = line or HTTPStatus(status).phrase
        self.headers = headers or []


def failure(request: str, error: Exception) -> Failure:
    """What answers ``error``, which is logged first if an operator should know of it. A client is not told which file
    of the store is damaged, nor where it lies."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # a nursery wraps even a single failure
    if isinstance(error, VolfsError | OSError) and error.errno:
        number = error.errno
    elif isinstance(error, MemoryError):
        number = errno.ENOMEM
    else:
        log.error("%s: unexpected %s, answered with 500", request, type(error).__name__, exc_info=error)
        return Failure(HTTPStatus.INTERNAL_SERVER_ERROR, "a defect in volfs; the server's log says more", errno.EIO)
    status = STATUS.get(number, HTTPStatus.INTERNAL_SERVER_ERROR)
    if status >= 500:
        log.log(logging.WARNING if number == errno.ETIMEDOUT else logging.ERROR, "%s: %s", request, error)
        return Failure(status, _SAID.get(number, "this failed; the server's log says why"), number)
    log.debug("%s: %s", request, error)
    return Failure(status, str(error) if isinstance(error, VolfsError) else HTTPStatus(status).phrase, number)


_SAID = {
    errno.ETIMEDOUT: "this takes longer than a client should wait; what was read is kept: ask again",
    errno.ENOSPC: "the disk is full; nothing was changed",
    errno.EDQUOT: "the disk's quota is used up; nothing was changed",
    errno.ELOOP: "these links lead to each other",
}
