"""A mount and the network on which servers share it; and how a test gets a client of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.sharing.clients import Client
from tests.sharing.private_network import PrivateNetwork
from volfs.fuse.launcher import mount, unmount
from volfs.fuse.processes import MountOptions
from volfs.testing.kit import take_away, unexpected
from volfs.testing.waiting import PATIENCE

Connect = Callable[[str], Client]


@dataclass
class Facility:
    """A mount and what shares it."""

    folder: Path
    store: Path
    mount: Path
    network: PrivateNetwork
    _daemon: subprocess.Popen[bytes] | None = None

    def share(self, path: str = "") -> Path:
        """The mount on the server itself."""
        return self.mount / path

    def start(self) -> None:
        """Mount."""
        self.mount.mkdir(exist_ok=True)
        options = MountOptions(allow_other=True, log=str(self.folder / "mnt.log"))
        self._daemon = mount(self.store, self.mount, options, patience=60)

    def stop(self) -> None:
        """Unmount; the daemon ends, and has had no trouble. Idempotent."""
        if self._daemon is not None:
            daemon, self._daemon = self._daemon, None
            assert not take_away(self.mount, daemon)
            assert daemon.returncode == 0
            assert not unexpected((self.folder / "mnt.log").read_text(errors="replace"), None)

    def break_down(self) -> None:
        """Kill the daemon, as the out-of-memory killer does: the mountpoint stays, broken. Then ``mend``."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(PATIENCE)
        self._daemon = None

    def mend(self) -> None:
        """Take what is broken away, and mount anew."""
        unmount(self.mount, force=True)
        self.start()
