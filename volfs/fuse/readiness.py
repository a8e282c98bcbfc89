"""Notices to the process that waits for a mount: that it answers, why it does not, that it is about to end.

Decided here: the ways of giving them: a pipe to the process that started the daemon, stderr in the foreground, and the
datagrams of sd_notify(3) to a service manager. Not here: when the mount is ready (:mod:`volfs.fuse.session`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket


class Readiness:
    """Gives each notice once: to ``pipe`` or to stderr as it is now, and to a service manager."""

    def __init__(self, pipe: int | None) -> None:
        self._pipe = pipe
        self._terminal = os.dup(2)
        self._manager = os.environ.pop("NOTIFY_SOCKET", "")  # popped: it is not for programs that we start
        self.said = False

    def ready(self, mountpoint: str, note: str = "") -> None:
        """Report that the mount has answered, with a ``note`` for whoever mounts, if there is one."""
        self._say({"pid": os.getpid(), "note": note})
        self._notify("READY=1", f"MAINPID={os.getpid()}", f"STATUS=serving {mountpoint}")

    def stopping(self) -> None:
        """Report that the mount takes no new work."""
        self._notify("STOPPING=1", "STATUS=unmounting")

    def failed(self, message: str, errno: int | None) -> None:
        """Report that the mount will not be ready, and why."""
        if self._pipe is None:
            os.write(self._terminal, f"volfs: {message}\n".encode(errors="replace"))
        self._say({"error": message, "errno": errno})
        self._notify(f"STATUS={message}", *([f"ERRNO={errno}"] if errno else []))

    def _say(self, answer: dict[str, object]) -> None:
        if self._pipe is not None and not self.said:
            with contextlib.suppress(BrokenPipeError):  # the starter was interrupted
                os.write(self._pipe, json.dumps(answer).encode())
            os.close(self._pipe)
        self.said = True

    def _notify(self, *lines: str) -> None:
        """Send a datagram to the service manager, as sd_notify(3). An address that begins with @ is of Linux's abstract
        names."""
        if not self._manager.startswith(("/", "@")):
            return
        address = self._manager.replace("@", "\0", 1) if self._manager.startswith("@") else self._manager
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto("\n".join(line.replace("\n", " ") for line in lines).encode(), os.fsencode(address))
