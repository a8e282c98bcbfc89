"""How the C of ``volfs/native`` is built. Everything else about the package is in pyproject.toml."""

import os
import shutil
import subprocess

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

HERE = os.path.dirname(os.path.abspath(__file__))
NATIVE = "volfs/native"


def has(package: str) -> bool:
    """True if a C library is here to build with."""
    if shutil.which("pkg-config") is None:
        return False
    return subprocess.run(["pkg-config", "--exists", package], check=False).returncode == 0


def source() -> str:
    """Cython's source where Cython is at hand, else the C that it made, which source distributions carry."""
    try:
        import Cython  # noqa: F401
    except ImportError:
        return f"{NATIVE}/core.c"
    return f"{NATIVE}/core.pyx"


class Sdist(sdist):
    """A source distribution has the C that Cython made: who installs it needs no Cython."""

    def run(self) -> None:
        from Cython.Build import cythonize

        cythonize([f"{NATIVE}/core.pyx"], quiet=True)
        super().run()

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, [*files, f"{NATIVE}/core.c"])


class BuildExt(build_ext):
    """Cython's part is made when something is built, not when the package is merely looked at."""

    def finalize_options(self) -> None:
        if source().endswith(".pyx"):
            from Cython.Build import cythonize

            self.distribution.ext_modules = cythonize(self.distribution.ext_modules, quiet=True)
            for extension in self.distribution.ext_modules:
                extension.optional = True  # which Cython forgets
        super().finalize_options()


sums = ("isal", [("VOLFS_ISAL", "1")]) if has("libisal") else ("z", [])

setup(
    cmdclass={"build_ext": BuildExt, "sdist": Sdist},
    ext_modules=[
        Extension(
            "volfs.native.core",
            [source(), *(f"{NATIVE}/{name}.c" for name in ("sums", "chunks", "pictures", "front", "session"))],
            depends=[f"{NATIVE}/{name}.h" for name in ("bytes", "sums", "chunks", "pictures", "front", "session")],
            define_macros=[("_GNU_SOURCE", "1"), *sums[1]],
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden"],
            libraries=["zstd", "blosc", sums[0], "pthread"],
            # Without a compiler or these libraries volfs works all the same: see volfs/native/__init__.py.
            optional=True,
        )
    ],
)
