"""A server from start to end: the store, the tree, the listener, the signals.

Decided here: the order of steps, as :mod:`volfs.fuse.session` does it for a mount. At the end requests under way are
answered first, then the tree finishes: what was written is interpreted and branches are given back.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from volfs.errors import VolfsError
from volfs.tree.contract.api import TreeOptions
from volfs.tree.tree import Tree
from volfs.versions.store import Store
from volfs.volume.volume_context import store_context
from volfs.web.application import Application
from volfs.web.credentials import Gate
from volfs.web.listener import Listener

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What is served, and to whom. ``public``: whoever does not log in may read. ``cache_size``: bytes of decoded
    voxels that are kept."""

    addresses: Sequence[str] = ("127.0.0.1:8000",)
    token: str | None = None
    users: Path | None = None
    public: bool = False
    read_only: bool = False
    cache_size: int | None = None

    @property
    def writes(self) -> bool:
        """True if anybody may change anything."""
        return not self.read_only and (self.token is not None or self.users is not None)


def run(store: Store, service: Service, *, on_ready: Callable[[list[str]], None]) -> None:
    """Serve a store until SIGINT or SIGTERM. Raises BadInput if nothing can listen there, or users cannot be read."""
    gate = Gate(service.token, service.users, public=service.public)
    try:
        trio.run(_serve, store, service, gate, on_ready)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


async def _serve(store: Store, service: Service, gate: Gate, on_ready: Callable[[list[str]], None]) -> None:
    if service.cache_size is not None:
        store_context(store).cache.resize(service.cache_size)
    listener = Listener(service.addresses)
    options = TreeOptions(
        uid=os.getuid(),
        gid=os.getgid(),
        read_only=not service.writes,
        mountpoint=listener.urls[0],
    )
    tree = Tree(store, options)
    application = Application(tree, gate, writable=service.writes)
    ending = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(tree.run)
            try:
                async with trio.open_nursery() as serving:
                    serving.start_soon(_heed, signals, ending, serving.cancel_scope)
                    on_ready(listener.urls)
                    await listener.serve(application, ending)
                    serving.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True), suppress(VolfsError, OSError):
                    await tree.close()
            nursery.cancel_scope.cancel()


async def _heed(signals: AsyncIterator[int], ending: trio.Event, scope: trio.CancelScope) -> None:
    """The first signal lets answers finish; the second does not wait."""
    async for number in signals:
        if ending.is_set():
            scope.cancel()
            return
        log.info("%s: finishing", signal.Signals(number).name)
        ending.set()
