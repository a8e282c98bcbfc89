"""Random operations on one file, each compared with what memory says of it: the exercise of fsx.

    python -m tests.suites.exerciser FILE OPERATIONS [SEED]

Writes, reads, truncations, mapped reads and writes, syncs, and closing and opening again, up to 256 KiB.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from pathlib import Path

LIMIT = 256 << 10


class Exerciser:
    """A file and what it must hold."""

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.expected = bytearray()
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def step(self) -> None:
        """One operation."""
        acts = (self.write, self.read, self.truncate, self.write_mapped, self.read_mapped, self.reopen, self.sync)
        self.random.choices(acts, weights=(30, 30, 10, 10, 10, 5, 1))[0]()
        assert os.fstat(self.fd).st_size == len(self.expected)

    def finish(self) -> None:
        """The whole file is what it must be."""
        os.close(self.fd)
        assert self.path.read_bytes() == bytes(self.expected)

    def write(self) -> None:
        at, size = self._range(LIMIT)
        data = self.random.randbytes(size)
        if len(self.expected) < at:
            self.expected.extend(bytes(at - len(self.expected)))
        self.expected[at : at + size] = data
        assert os.pwrite(self.fd, data, at) == size

    def read(self) -> None:
        at, size = self._range(LIMIT)
        assert os.pread(self.fd, size, at) == bytes(self.expected[at : at + size])

    def truncate(self) -> None:
        size = self.random.randrange(LIMIT)
        os.ftruncate(self.fd, size)
        del self.expected[size:]
        self.expected.extend(bytes(size - len(self.expected)))

    def write_mapped(self) -> None:
        if self.expected:
            at, size = self._range(len(self.expected))
            size = min(size, len(self.expected) - at)
            data = self.random.randbytes(size)
            with mmap.mmap(self.fd, len(self.expected)) as mapped:
                mapped[at : at + size] = data
                mapped.flush()
            self.expected[at : at + size] = data

    def read_mapped(self) -> None:
        if self.expected:
            at, size = self._range(len(self.expected))
            with mmap.mmap(self.fd, len(self.expected), prot=mmap.PROT_READ) as mapped:
                assert mapped[at : at + size] == bytes(self.expected[at : at + size])

    def reopen(self) -> None:
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def sync(self) -> None:
        os.fsync(self.fd)

    def _range(self, limit: int) -> tuple[int, int]:
        return self.random.randrange(limit), self.random.randrange(1, 16 << 10)


def main(path: str, operations: str, seed: str = "0") -> None:
    exerciser = Exerciser(Path(path), int(seed))
    for _ in range(int(operations)):
        exerciser.step()
    exerciser.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
