"""``mount.fuse.volfs`` and ``mount.volfs``: what mount(8) calls for the types ``fuse.volfs`` and ``volfs``.

Decided here: the command line of a mount helper, ``STORE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]``,
and its exit status, both as mount(8) has them. Not here: what the options mean (:mod:`volfs.fuse.fstab`).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from volfs.errors import VolfsError

_WRONG_USAGE = 1
_MOUNT_FAILED = 32


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]  # it does not return
        self.print_usage(sys.stderr)
        self.exit(_WRONG_USAGE, f"{self.prog}: {message}\n")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="mount.volfs",
        description="Show a volfs store at a directory. Called by mount(8); people use `volfs mount`.",
    )
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS", help="as in /etc/fstab")
    parser.add_argument("-t", dest="kind", metavar="TYPE", help="taken, and without effect: it is volfs in any case")
    parser.add_argument("-r", dest="read_only", action="store_true", help="the same as -o ro")
    parser.add_argument("-w", dest="_w", action="store_true", help="the same as -o rw")
    parser.add_argument("-v", dest="verbose", action="store_true", help="log more")
    parser.add_argument("-f", dest="fake", action="store_true", help="read the options, mount nothing")
    parser.add_argument("-s", dest="sloppy", action="store_true", help="say nothing of options that are not known")
    parser.add_argument("-n", dest="_n", action="store_true", help="taken: no /etc/mtab is written in any case")
    parser.add_argument("-N", dest="namespace", metavar="NAMESPACE", help="not supported")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Mount; returns the exit status."""
    from volfs.cli.frame import defect, start_no_blas_threads
    from volfs.cli.mounts import run, say_unknown
    from volfs.fuse.fstab import parse_options

    start_no_blas_threads()
    given = _arguments(argv)
    if given.namespace:
        print("mount.volfs: -N is not supported; enter the namespace with nsenter first", file=sys.stderr)
        return _WRONG_USAGE
    os.environ.setdefault("HOME", "/root" if os.geteuid() == 0 else "/")  # at boot there may be none
    try:
        words = [*given.options, *(["ro"] if given.read_only else []), *(["verbose"] if given.verbose else [])]
        parsed = parse_options(",".join(words))
        if not given.sloppy:
            say_unknown(parsed.unknown)
        if not given.fake:
            run(Path(given.store), Path(given.mountpoint), parsed.options, parsed.wait, parsed.foreground)
    except VolfsError as error:
        print(f"volfs: {error}", file=sys.stderr)
        return _MOUNT_FAILED
    except OSError as error:
        print(f"volfs: {error.filename or given.mountpoint}: {error.strerror}", file=sys.stderr)
        return _MOUNT_FAILED
    except Exception as error:
        print(f"volfs: {defect(error)}", file=sys.stderr)
        return _MOUNT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
