"""Sockets and connections: hypercorn serves each, below a guard of ours.

Decided here: how many connections there may be, how long a client may take nothing, and how they end. In hypercorn's
own ``serve`` a defect that one client finds ends all others, and a client that reads nothing keeps the server from
stopping: so each connection is one task here, that can be ended alone. Not here: HTTP (hypercorn), and the requests
(:mod:`volfs.web.application`).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import wrap_app

from volfs.errors import BadInput
from volfs.web.application import Application

log = logging.getLogger(__name__)

#: Connections at a time; more wait until one ends.
CONNECTIONS = 4000
#: Connections that wait to be taken, in the kernel.
_BACKLOG = 1024
#: A client that takes nothing of an answer for so long is given up.
_STALL_SECONDS = 120
#: The head of an answer is sent together with so much of its body.
_TOGETHER = 64 << 10
#: A connection without a whole request is closed.
_IDLE_SECONDS = 30
#: How long answers may go on when the server is to end.
GRACE_SECONDS = 5.0
#: A connection that is closed has so long to notice.
_UNWIND_SECONDS = 5.0


class _Connection(trio.abc.HalfCloseableStream):
    """A client's stream, as hypercorn uses it. It does not wait for ever, and closing it ends its task soon."""

    def __init__(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        self._stream = stream
        self._scope = scope
        self._holding = False
        self._held = b""

    def hold(self) -> None:
        """Send the next bytes together with those after them: the head of an answer with the beginning of its body."""
        self._holding = True

    @property
    def socket(self) -> trio.socket.SocketType:
        return self._stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._holding:
            self._holding, self._held = False, bytes(data)
            return
        if self._held:
            held, self._held = self._held, b""
            if len(data) <= _TOGETHER:
                data = held + data
            else:
                await self._send(held)
        if data:
            await self._send(data)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(_STALL_SECONDS) as patience:
            await self._stream.send_all(data)
        if patience.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + _UNWIND_SECONDS)
        await self._stream.aclose()


class Listener:
    """Listens at some addresses, from when it is made, and serves an application there until it is told to end."""

    def __init__(self, addresses: Sequence[str]) -> None:
        config = Config()
        config.bind = list(addresses)
        config.accesslog = None
        config.errorlog = logging.getLogger("volfs.web.hypercorn")
        config.include_server_header = False
        config.keep_alive_timeout = _IDLE_SECONDS
        config.keep_alive_max_requests = 1 << 30
        config.max_app_queue_size = 4
        self._config = config
        self._context = WorkerContext(None)
        self._streams: set[_Connection] = set()
        self._limit = trio.Semaphore(CONNECTIONS)
        try:
            self._sockets = config.create_sockets().insecure_sockets
            for one in self._sockets:
                one.listen(_BACKLOG)
        except (OSError, OverflowError) as error:
            raise BadInput(f"nothing can listen at {', '.join(addresses)}: {_reason(error)}") from None

    @property
    def urls(self) -> list[str]:
        """Where it answers."""
        found = []
        for one in self._sockets:
            where: Any = one.getsockname()
            if one.family == socket.AF_UNIX:
                found.append(f"http://unix:{where}")
            else:
                host = f"[{where[0]}]" if one.family == socket.AF_INET6 else where[0]
                found.append(f"http://{host}:{where[1]}/")
        return found

    async def serve(self, application: Application, ending: trio.Event) -> None:
        """Take connections until ``ending``; then those that are in the middle of an answer may finish it."""
        serve_one = partial(self._serve_one, wrap_app(application, 0, "asgi"))  # type: ignore[arg-type]
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(one)) for one in self._sockets]
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, connections, serve_one)
                    await ending.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    await listener.aclose()
                await self._context.terminated.set()  # those without a request end now, the others with their answer
                nursery.start_soon(self._end_late, connections.cancel_scope)
            nursery.cancel_scope.cancel()

    async def _end_late(self, scope: trio.CancelScope) -> None:
        """End what has not ended in time. Closing comes first: hypercorn does not let a cancellation end a send."""
        await trio.sleep(GRACE_SECONDS)
        for stream in [*self._streams]:
            await trio.aclose_forcefully(stream)
        scope.deadline = trio.current_time() + _UNWIND_SECONDS
        await trio.sleep_forever()

    async def _accept(
        self,
        listener: trio.SocketListener,
        connections: trio.Nursery,
        serve_one: Callable[[trio.SocketStream], Awaitable[None]],
    ) -> None:
        while True:
            await self._limit.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:  # out of descriptors: others will close some
                log.error("a connection could not be taken: %s", error.strerror)
                self._limit.release()
                await trio.sleep(0.1)
                continue
            connections.start_soon(serve_one, stream)

    async def _serve_one(self, app: AppWrapper, stream: trio.SocketStream) -> None:
        try:
            with trio.CancelScope() as scope:
                connection = _Connection(stream, scope)
                self._streams.add(connection)
                try:
                    state = ConnectionState({"hold": connection.hold})
                    await TCPServer(app, self._config, self._context, state, cast(Any, connection))
                except Exception as error:
                    log.warning("a connection ended with %s: %s", type(error).__name__, error)
                finally:
                    self._streams.discard(connection)
        finally:
            self._limit.release()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
