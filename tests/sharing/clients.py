"""Every kind of client, behind the same few calls.

Decided here: what the tests can ask of any client (:class:`Client`), and how the kernel's own clients in the guest
answer it. The others are :class:`tests.sharing.libnfs.NfsClient` and :class:`tests.sharing.smb.SmbClient`.
"""

from __future__ import annotations

import os
from typing import Protocol

from tests.sharing.linux import Linux
from tests.sharing.private_network import GUEST, SERVER
from tests.sharing.servers import PASSWORD, SHARE, USER

#: Mount options of each kernel client: what docs/sharing.md says.
_MOUNTS = {
    "linux-nfs3": (
        f"{SERVER}:/{SHARE}",
        "nfs",
        f"vers=3,proto=tcp,mountproto=tcp,addr={SERVER},mountaddr={SERVER},actimeo=2",
    ),
    "linux-nfs4": (f"{SERVER}:/{SHARE}", "nfs", f"vers=4.2,proto=tcp,addr={SERVER},clientaddr={GUEST},actimeo=2"),
    "linux-smb": (
        f"//{SERVER}/{SHARE}",
        "cifs",
        f"ip={SERVER},unc=\\\\{SERVER}\\{SHARE},user={USER},pass={PASSWORD},vers=3.1.1,cache=none,noperm",
    ),
}


class Client(Protocol):
    """Paths are relative to the share. Errors are OSErrors."""

    def names(self, path: str) -> list[str]:
        """What is in a directory, as often as the server says it; sorted."""

    def exists(self, path: str) -> bool: ...

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes) -> None:
        """Make or empty the file, write, close."""

    def create(self, path: str, data: bytes) -> None:
        """The same with a new file; FileExistsError if there is one."""

    def append(self, path: str, data: bytes) -> None: ...

    def truncate(self, path: str, size: int) -> None: ...

    def rename(self, old: str, new: str) -> None:
        """Over whatever has the new name."""

    def unlink(self, path: str) -> None: ...

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None: ...


class KernelClient:
    """A mount in the guest: Linux's own NFS or SMB."""

    def __init__(self, machine: Linux, kind: str) -> None:
        self.machine = machine
        self.kind = kind
        self.top = f"/mnt/{kind}"

    def mount(self) -> None:
        source, kind, options = _MOUNTS[self.kind]
        self.machine.ask("mount", source, self.kind, kind, options)

    def umount(self) -> None:
        self.machine.ask("umount", self.kind)

    def at(self, path: str) -> str:
        return f"{self.top}/{path}"

    def names(self, path: str) -> list[str]:
        return sorted(self.machine.ask("names", self.at(path)))

    def exists(self, path: str) -> bool:
        try:
            self.machine.ask("look", self.at(path))
        except FileNotFoundError:
            return False
        return True

    def read(self, path: str) -> bytes:
        return bytes(self.machine.ask("read", self.at(path)))

    def write(self, path: str, data: bytes) -> None:
        self.machine.ask("write", self.at(path), data)

    def create(self, path: str, data: bytes) -> None:
        self.machine.ask("write", self.at(path), data, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def append(self, path: str, data: bytes) -> None:
        self.machine.ask("write", self.at(path), data, os.O_WRONLY | os.O_APPEND)

    def truncate(self, path: str, size: int) -> None:
        self.machine.ask("truncate", self.at(path), size)

    def rename(self, old: str, new: str) -> None:
        self.machine.ask("rename", self.at(old), self.at(new))

    def unlink(self, path: str) -> None:
        self.machine.ask("unlink", self.at(path))

    def mkdir(self, path: str) -> None:
        self.machine.ask("mkdir", self.at(path))

    def rmdir(self, path: str) -> None:
        self.machine.ask("rmdir", self.at(path))

    def readlink(self, path: str) -> str:
        return str(self.machine.ask("readlink", self.at(path)))
