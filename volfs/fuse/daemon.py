"""The process behind a mount: ``python -m volfs.fuse.daemon [OPTIONS] -- STORE MOUNTPOINT``.

Decided here: the options, log, limits and exit status of the process, and how it reports that the mount answers, or why
not. Not here: the mount itself (:mod:`volfs.fuse.session`), its contents (``volfs.tree``), starting and stopping a
daemon (:mod:`volfs.fuse.launcher`).
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
from pathlib import Path

import trio

import volfs
from volfs.catalog.inode_table import ORDINAL_BITS
from volfs.errors import VolfsError
from volfs.fuse.checkup import CATALOG_ELSEWHERE, far_catalog
from volfs.fuse.dump import block_signal
from volfs.fuse.front import make_front
from volfs.fuse.limits import tune_process
from volfs.fuse.logs import FORMATS, LEVELS, start_logging
from volfs.fuse.notify import KernelNotifier
from volfs.fuse.processes import default_log
from volfs.fuse.readiness import Readiness
from volfs.fuse.session import mount_options, serve
from volfs.storage.claim import DAY_SECONDS
from volfs.storage.compressors import load_libraries
from volfs.tree.contract.api import TreeOptions
from volfs.tree.contract.time_limit import SECONDS
from volfs.tree.tree import Tree
from volfs.versions.store import Store
from volfs.volume.volume_context import store_context

log = logging.getLogger("volfs.fuse.daemon")  # __name__ is __main__ here


async def _serve_store(store: Store, options: argparse.Namespace, readiness: Readiness) -> None:
    if options.cache_size is not None:
        store_context(store).cache.resize(options.cache_size)
    notifier = KernelNotifier()
    presented = TreeOptions(
        uid=os.getuid() if options.uid is None else options.uid,
        gid=os.getgid() if options.gid is None else options.gid,
        umask=options.umask,
        read_only=options.read_only,
        mountpoint=str(options.mountpoint),
        answer_seconds=options.answer_within,
    )
    kernel = mount_options(
        options.store,
        read_only=options.read_only,
        allow_other=options.allow_other,
        default_permissions=options.default_permissions,
        more=options.kernel,
    )

    note = far_catalog(store.catalog_path)
    if note:
        note += f"; keep it on a disk of this machine: {CATALOG_ELSEWHERE}"
        log.warning("%s", note)

    def on_ready() -> None:
        # A session of its own, so that no terminal ends it; and not before now: to a directory where an automounter
        # (autofs, systemd) waits for this very mount, the kernel lets only the automounter's process group through.
        if options.ready_fd is not None and os.getpgrp() != os.getpid():
            os.setsid()
        readiness.ready(str(options.mountpoint), note)
        threading.Thread(target=load_libraries, name="volfs-libraries", daemon=True).start()

    front = make_front(ORDINAL_BITS)
    await serve(
        Tree(store, presented, notifier, front),
        notifier,
        options.mountpoint,
        kernel,
        on_ready=on_ready,
        on_leaving=readiness.stopping,
        read_only=options.read_only,
        foreground=options.foreground,
        front=front,
    )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="volfs.fuse.daemon", description="Serve one mount of a volfs store.")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--allow-other", action="store_true")
    parser.add_argument("--default-permissions", action="store_true")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--umask", type=lambda text: int(text, 8), default=0, metavar="OCTAL")
    parser.add_argument("--cache-size", type=int, metavar="BYTES")
    parser.add_argument("--log", metavar="FILE", help="- is stderr")
    parser.add_argument("--catalog", type=Path, metavar="FILE")
    parser.add_argument("--dead-after", type=float, default=DAY_SECONDS, metavar="SECONDS")
    parser.add_argument("--answer-within", type=float, default=SECONDS, metavar="SECONDS")
    parser.add_argument("--log-level", choices=LEVELS, default="info")
    parser.add_argument("--log-format", choices=FORMATS, default="text")
    parser.add_argument("--kernel", type=lambda text: text.split(","), default=[], metavar="OPTIONS")
    parser.add_argument("--foreground", action="store_true", help="a terminal or a service manager watches")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="where to say that the mount answers")
    parser.add_argument("store")
    parser.add_argument("mountpoint", type=Path)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run a daemon to its end; returns the exit status."""
    options = _arguments(argv)
    readiness = Readiness(options.ready_fd)
    block_signal()
    try:
        where = options.log or str(default_log(options.mountpoint))
        start_logging(where, level=options.log_level, style=options.log_format)
        os.chdir("/")  # so that no other filesystem is kept busy
        tune_process()
        log.info("volfs %s, process %d: %s at %s", volfs.__version__, os.getpid(), options.store, options.mountpoint)
        with volfs.open_store(
            options.store, catalog=options.catalog, read_only=options.read_only, dead_after=options.dead_after
        ) as store:
            trio.run(_serve_store, store, options, readiness)
        log.info("%s: unmounted, store closed", options.mountpoint)
    except BaseException as error:
        return _failed(error, readiness)
    return 0


def _failed(error: BaseException, readiness: Readiness) -> int:
    """Report a failure in one line to a process that waits for the mount; a defect is logged with its traceback."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if readiness.said:
        log.critical("serving ended; the mount is left broken", exc_info=error)
    elif isinstance(error, VolfsError | OSError):
        log.info("not mounted: %s", error)
        readiness.failed(str(error), error.errno)
    else:
        log.critical("not mounted", exc_info=error)
        readiness.failed(f"{type(error).__name__}: {error} (a defect; the log tells more)", None)
    return 1


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # threads that hang on a dead disk must not keep a daemon that has nothing left to do
