"""How fast a share is, as a part of the mount itself: ``python -m tests.sharing.throughput``.

Decided here: what is read. A volume of 256 MiB, whole, as ``volume.raw`` of a version, and 200 of its slices, through
the mount and by each client that can run at full speed on this machine, in turn, three rounds, the best of each. Before
each reading the server's and the client's pages are dropped, so the bytes come from volfs every time; volfs's own
cache of chunks is warm for all alike. Clients are on the server's own machine, so this is the price of the protocol,
with no network in it. The kernel's clients are not measured: here they run in a Linux that is itself a process.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

import volfs
from tests.sharing.libnfs import NfsClient
from tests.sharing.private_network import PrivateNetwork
from tests.sharing.servers import PASSWORD, SHARE, USER, Ganesha, Samba
from volfs.model.ngff import axis, ome_attributes, pyramid
from volfs.testing.kit import mounted

SHAPE = (256, 1024, 1024)
ROUNDS = 3
SLICES = 200
VOLUME = "cells/versions/v1/s0/volume.raw"


def make_store(path: Path) -> Path:
    with volfs.init_store(path) as store:
        branch = store.create_dataset("cells").branch("main")
        image = pyramid("cells", tuple(axis(name, "nm") for name in "zyx"), (40.0, 4.0, 4.0), [(1, 1, 1)])
        group = zarr.create_group(branch.zarr_store(), attributes=ome_attributes(image))
        array = group.create_array("s0", shape=SHAPE, chunks=(64, 128, 128), dtype="u1")
        random = np.random.default_rng(0)
        for z in range(0, SHAPE[0], 64):
            array[z : z + 64] = random.integers(0, 16, (64, *SHAPE[1:]), "u1")
        branch.commit("noise")
    return path


def local(path: Path) -> int:
    total = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            total += len(piece)
    return total


def measure(read: Callable[[], int]) -> float:
    """MB/s of one reading, with nothing in the page cache."""
    Path("/proc/sys/vm/drop_caches").write_text("1")
    began = time.perf_counter()
    total = read()
    return total / (time.perf_counter() - began) / 1e6


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="volfs-sharing-")))
        network = stack.enter_context(PrivateNetwork.made(folder))
        mount = stack.enter_context(mounted(make_store(folder / "store"), folder / "mnt", allow_other=True))
        stack.enter_context(Ganesha(network, mount, folder / "ganesha").running())
        stack.enter_context(Samba(network, mount, folder / "samba").running())
        slices = [f"cells/versions/v1/s0/xy/z{index:05}.png" for index in range(SLICES)]
        clients = {version: stack.enter_context(NfsClient(f"/{SHARE}", version, network.enter)) for version in (3, 4)}

        def smb(command: str) -> int:
            done = network.run("smbclient", f"//127.0.0.1/{SHARE}", "-U", f"{USER}%{PASSWORD}", "-c", command)
            assert done.returncode == 0, done.stdout
            return 0

        def smb_volume() -> int:
            smb(f"get {VOLUME.replace('/', chr(92))} /dev/null")
            return int(np.prod(SHAPE))

        def smb_slices() -> int:
            smb("; ".join(f"get {path.replace('/', chr(92))} /dev/null" for path in slices))
            return sum((mount / path).stat().st_size for path in slices)

        readers: dict[str, tuple[Callable[[], int], Callable[[], int]]] = {
            "the mount itself": (lambda: local(mount / VOLUME), lambda: sum(local(mount / path) for path in slices)),
            "NFS 3, libnfs": (
                lambda: len(clients[3].read(VOLUME)),
                lambda: sum(len(clients[3].read(path)) for path in slices),
            ),
            "NFS 4, libnfs": (
                lambda: len(clients[4].read(VOLUME)),
                lambda: sum(len(clients[4].read(path)) for path in slices),
            ),
            "SMB 3, smbclient": (smb_volume, smb_slices),
        }
        for volume, _ in readers.values():
            volume()  # chunks are decoded
        best = {name: [0.0, 0.0] for name in readers}
        for _ in range(ROUNDS):
            for name, pair in readers.items():
                for at, read in enumerate(pair):
                    best[name][at] = max(best[name][at], measure(read))
        print("| client | a volume, MB/s | of the mount | slices, MB/s | of the mount |\n|---|---|---|---|---|")
        base = best["the mount itself"]
        for name, (volume_speed, slices_speed) in best.items():
            print(
                f"| {name} | {volume_speed:.0f} | {volume_speed / base[0]:.2f} "
                f"| {slices_speed:.0f} | {slices_speed / base[1]:.2f} |"
            )


if __name__ == "__main__":
    main()
