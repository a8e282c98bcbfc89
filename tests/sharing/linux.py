"""A Linux machine as a client of the servers: its kernel's NFS and SMB, in a process.

Decided here: how the guest is started, asked and ended. What it does is in :mod:`tests.sharing.guest`. It is a
User-Mode Linux, so it needs neither a hypervisor nor modules of the machine's own kernel, which may have no NFS.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.kits.user_mode_linux import command
from tests.sharing import guest
from tests.sharing.private_network import GUEST, TAP, PrivateNetwork, Process
from volfs.testing.waiting import PATIENCE

_MODULES = Path("/usr/lib/uml/modules")


class Linux:
    """The machine. Any thread may ask; each has a connection of its own. Make it with :meth:`booted`."""

    def __init__(self, network: PrivateNetwork, process: Process) -> None:
        self._network = network
        self._process = process
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(4, "guest", initializer=network.enter)

    @classmethod
    @contextlib.contextmanager
    def booted(cls, network: PrivateNetwork, folder: Path) -> Iterator[Linux]:
        """Its console is logged in ``folder``."""
        modules = max(_MODULES.iterdir())
        log = folder / "guest.log"
        network_card = f"vec0:transport=tap,ifname={TAP},depth=128,gro=1"
        init = (f"init={sys.executable}", "--", guest.__file__, str(modules), GUEST)
        booting = command(folder, network_card, *init, megabytes=400)
        process = Process(network.inside(*booting), log, asked=False)
        machine = cls(network, process)
        try:
            process.wait_until(lambda: "guest: ready" in log.read_text(errors="replace"), "the guest")
            yield machine
        finally:
            machine._pool.shutdown(cancel_futures=True)
            process.stop()

    def ask(self, function: str, *arguments: Any) -> Any:
        """Call a function of :mod:`tests.sharing.guest` over there; raises what it raises."""
        return self._pool.submit(self._ask, function, arguments).result(PATIENCE)

    def _ask(self, function: str, arguments: tuple[Any, ...]) -> Any:
        stream = getattr(self._local, "stream", None)
        if stream is None:
            stream = self._local.stream = _connected().makefile("rwb")
        stream.write(pickle.dumps((function, arguments)))
        stream.flush()
        result, error = pickle.load(stream)
        if error is not None:
            raise error
        return result


def _connected() -> socket.socket:
    """A connection to the guest. Its network interface may lose the first packets, and TCP would wait for seconds."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            connection = socket.create_connection((GUEST, guest.PORT), 0.2)
            connection.settimeout(80)
            return connection
    raise TimeoutError("the guest does not answer")
