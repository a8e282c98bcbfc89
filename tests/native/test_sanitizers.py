"""The C code under AddressSanitizer and UndefinedBehaviorSanitizer: by fuzzers, and by the tests beside this file."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numcodecs import blosc, zstd

from tests.kits.paths import ROOT

NATIVE = ROOT / "volfs" / "native"
FUZZ = Path(__file__).parent / "fuzz"
#: What each fuzzer is linked with.
SOURCES = {
    "chunks": ("chunks", "sums"),
    "payloads": ("payloads", "chunks", "sums"),
    "pictures": ("pictures", "chunks", "sums", "payloads", "meter", "pulse", "files", "opens", "givers", "front"),
    "front": ("pictures", "chunks", "sums", "payloads", "meter", "pulse", "files", "opens", "givers", "front"),
    "files": ("files", "meter", "pulse"),
}
IN_SUITE, IN_CHECKS, IN_SOAK = 1, 5, 900
"""Seconds for which a fuzzer looks."""
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fno-sanitize-recover=undefined", f"-I{NATIVE}", f"-I{FUZZ}"]
LIBRARIES = ["-lzstd", "-lblosc", "-lz", "-lpthread", "-ldl"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where the object of a source lies, which is compiled once for all fuzzers."""
    folder = tmp_path_factory.mktemp("objects")

    def object_of(name: str) -> Path:
        made = folder / f"{name}.o"
        if not made.exists():
            clang("-fsanitize=fuzzer-no-link,address,undefined", "-c", "-o", made, NATIVE / f"{name}.c")
        return made

    return object_of


def clang(*arguments: str | Path) -> None:
    done = subprocess.run(["clang", *FLAGS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def payloads() -> list[bytes]:
    """What a fuzzer may begin with: forms of chunks, each with a payload that fits it."""
    found = []
    voxels = (np.arange(17 * 9 * 5) % 251).astype("u1")
    for compressor, payload in enumerate(
        (
            voxels.tobytes(),
            zstd.compress(voxels.tobytes(), 3),
            blosc.compress(voxels.tobytes(), b"lz4", 5, 1, 0, 1),
        )
    ):
        for flags in (0, 0x80, 1):
            head = np.array([3, 0], "<u2").tobytes() + bytes([flags | compressor << 3])
            found.append(head + np.array([17, 9, 5, 0, 1], "<u2").tobytes() + payload)
    return found


@pytest.mark.parametrize(
    "target", [name if name == "chunks" else pytest.param(name, marks=pytest.mark.checks) for name in SOURCES]
)
def test_fuzzers_find_nothing(
    tmp_path: Path, target: str, compiled: Callable[[str], Path], soak: bool, checks: bool
) -> None:
    """In the suite only, and shortly, the decoder of chunks: through it come all bytes from elsewhere."""
    program, corpus = tmp_path / f"fuzz_{target}", tmp_path / "corpus"
    objects = [compiled(name) for name in SOURCES[target]]
    clang("-fsanitize=fuzzer,address,undefined", "-o", program, FUZZ / f"fuzz_{target}.c", *objects, *LIBRARIES)
    corpus.mkdir()
    if target == "chunks":
        for payload in payloads():
            (corpus / f"{zlib.crc32(payload):08x}").write_bytes(payload)
    ran = subprocess.run(
        [
            program,
            f"-max_total_time={IN_SOAK if soak else IN_CHECKS if checks else IN_SUITE}",
            "-timeout=20",
            "-rss_limit_mb=0",  # the peak that it sees begins with that of the process which started it
            "-malloc_limit_mb=256",
            "-verbosity=0",
            "-seed=1",
            corpus,
        ],
        cwd=tmp_path,
        # What is freed is kept for a while, to find out who still uses it: a fuzzer frees gigabytes in seconds.
        env={**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=16:allocator_release_to_os_interval_ms=200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-6000:]


RUN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("volfs.native.core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
sys.modules["volfs.native.core"] = core
spec.loader.exec_module(core)
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.checks
def test_the_tests_of_c_pass_under_sanitizers(tmp_path: Path) -> None:
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -g -O1"
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path / "objects"],
        cwd=ROOT,
        env={**os.environ, "CFLAGS": flags, "LDFLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    (library,) = tmp_path.glob("volfs/native/core*.so")
    assert built.returncode == 0, built.stderr
    preload = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    tests = [f"tests/native/test_{name}.py" for name in ("chunks", "payloads", "pictures", "front", "files")]
    ran = subprocess.run(
        [sys.executable, "-c", RUN, library, *tests],
        cwd=ROOT,
        # Python itself keeps memory to its end.
        env={**os.environ, "LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
