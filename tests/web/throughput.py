"""How fast a tree is by HTTP, as a part of the mount itself: ``python -m tests.web.throughput``.

Decided here: what is read. A volume of 256 MiB, whole, as ``volume.raw`` of a version, 200 of its slices, and 200 of
its chunks, through the mount, by nginx on that mount (the example's configuration), and by ``volfs serve`` of the same
store; in turn, five rounds, the best of each. curl reads by HTTP, over one connection. As in
:mod:`tests.sharing.throughput` the kernel's pages are dropped before each reading, volfs's own cache is warm, and
server and client are one machine.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.kits.http_servers import http_server
from tests.kits.web_servers import serving
from tests.sharing.throughput import VOLUME, local, make_store, measure
from volfs.testing.kit import mounted

ROUNDS = 5
SLICES = [f"cells/versions/v1/s0/xy/z{index:05}.png" for index in range(200)]
CHUNKS = [f"cells/versions/v1/zarr/s0/c/{index // 64}/{index // 8 % 8}/{index % 8}" for index in range(200)]
SETS = {"a volume": [VOLUME], "slices": SLICES, "chunks": CHUNKS}


def fetch(address: str, paths: list[str]) -> int:
    """Read files over one connection; their bytes."""
    lines = "\n".join(f'url = "{address}/{path}"\noutput = "/dev/null"' for path in paths)
    done = subprocess.run(
        ["curl", "-sf", "-w", "%{size_download}\n", "-K", "-"], input=lines, capture_output=True, text=True, check=True
    )
    return sum(map(int, done.stdout.split()))


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="volfs-web-")))
        folder.chmod(0o755)  # nginx is another user
        store = make_store(folder / "store")
        mount = stack.enter_context(mounted(store, folder / "mnt", allow_other=True))
        nginx = stack.enter_context(serving("nginx", folder, mount))
        server = stack.enter_context(http_server(store, folder / "log", "--log-level", "warning"))

        def reader(address: str) -> Callable[[list[str]], int]:
            return lambda paths: fetch(address, paths)

        readers: dict[str, Callable[[list[str]], int]] = {
            "the mount itself": lambda paths: sum(local(mount / path) for path in paths),
            "HTTP, nginx on the mount": reader(nginx.address),
            "HTTP, `volfs serve`": reader(server.url),
        }
        best = {name: dict.fromkeys(SETS, 0.0) for name in readers}
        for turn in range(ROUNDS + 1):
            for name, read in readers.items():
                for what, paths in SETS.items():
                    speed = measure(lambda read=read, paths=paths: read(paths))  # type: ignore[misc]
                    if turn:  # in the first round chunks are decoded
                        best[name][what] = max(best[name][what], speed)
        print(f"| client | {' | '.join(f'{what}, MB/s | of the mount' for what in SETS)} |")
        print("|---" * (1 + 2 * len(SETS)) + "|")
        base = best["the mount itself"]
        for name, speeds in best.items():
            print(
                f"| {name} | {' | '.join(f'{speeds[what]:.0f} | {speeds[what] / base[what]:.2f}' for what in SETS)} |"
            )


if __name__ == "__main__":
    main()
