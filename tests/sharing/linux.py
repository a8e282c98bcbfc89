"""A Linux machine as a client of the servers: its kernel's NFS and SMB, in a process.

Decided here: how the guest is started, asked and ended. What it does is in :mod:`tests.sharing.guest`. It is a
User-Mode Linux, so it needs neither a hypervisor nor modules of the machine's own kernel, which may have no NFS.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.kits.user_mode_linux import KERNEL
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
        """Its memory lies in ``folder``, its console is logged there."""
        modules = max(_MODULES.iterdir())
        log = folder / "guest.log"
        process = Process(
            [
                *network.inside(
                    "env", f"TMPDIR={_memory(folder)}", KERNEL, "mem=400M", "root=/dev/root", "rootfstype=hostfs"
                ),
                *("rootflags=/", "ro", "quiet", "con=null", "con0=null,fd:1", "ssl=null", f"umid={folder.name}"),
                *(f"uml_dir={folder}", f"vec0:transport=tap,ifname={TAP},depth=128,gro=1"),
                *(f"init={sys.executable}", "--", guest.__file__, str(modules), GUEST),
            ],
            log,
            asked=False,
        )
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


def _memory(folder: Path) -> Path:
    """Where the file lies that is the guest's memory: deleted once it is open, and best on no disk."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else folder


def _connected() -> socket.socket:
    """A connection to the guest. Its network interface may lose the first packets, and TCP would wait for seconds."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            connection = socket.create_connection((GUEST, guest.PORT), 0.2)
            connection.settimeout(80)
            return connection
    raise TimeoutError("the guest does not answer")
