"""How long a request that only looks may keep its client waiting.

Decided here: the limit, and which requests it is for. On Linux no program can be killed while a request of its is
with the daemon, so each of these must end: one that waits for a disk that does not answer, for a lock whose holder
waits for that disk, or for a million chunks. Requests that change something end when that is done: their answer says
whether it was.

A protocol adapter says of each request whether it only looks. :meth:`volfs.tree.core.context.TreeContext.in_time` keeps
to the limit wherever one waits; an answer that needs no waiting costs nothing more."""

from __future__ import annotations

from contextvars import ContextVar

SECONDS = 30.0
"""Seconds after which a request that only looks is answered with ETIMEDOUT."""

only_looks: ContextVar[bool] = ContextVar("only_looks", default=False)
"""Whether the request that is being answered changes nothing, so that it may be given up."""
