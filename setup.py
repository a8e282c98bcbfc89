"""How the C of ``volfs/native`` is built. Everything else about the package is in pyproject.toml."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.install import install
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
NATIVE = "volfs/native"
FILES = (
    "sums",
    "chunks",
    "payloads",
    "downsample",
    "pictures",
    "meter",
    "pulse",
    "files",
    "opens",
    "givers",
    "front",
    "session",
)


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


def readme() -> str:
    """README.md as a package index shows it, where links into the checkout lead nowhere: they lead to the address that
    `project.urls` has as `Source`. Without one they are their own words, and pictures stay out."""
    settings = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    base = settings["project"].get("urls", {}).get("Source")
    text = (HERE / "README.md").read_text(encoding="utf-8")

    def picture(found: re.Match[str]) -> str:
        return f"![{found[1]}]({base}/raw/main/{found[2]})\n" if base else ""

    def link(found: re.Match[str]) -> str:
        return f"[{found[1]}]({base}/blob/main/{found[2]})" if base else found[1]

    text = re.sub(r"!\[([^]]*)\]\((?![a-z]+:)([^)]+)\)\n", picture, text)
    return re.sub(r"(?<!!)\[([^]]*)\]\((?![a-z]+:|#)([^)]+)\)", link, text)


class Sdist(sdist):
    """A source distribution has the C that Cython made: who installs it needs no Cython."""

    def run(self) -> None:
        from Cython.Build import cythonize

        cythonize([f"{NATIVE}/core.pyx"], quiet=True)
        super().run()

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, [*files, f"{NATIVE}/core.c"])


class Install(install):
    """Manual pages, of the texts of --help, are installed where click is at hand to make them."""

    def run(self) -> None:
        sys.path.insert(0, str(HERE))
        try:
            from volfs.cli.manual import write
        except ImportError:
            pass
        else:
            pages = write(Path(self.get_finalized_command("build").build_base) / "man")
            self.distribution.data_files = [("share/man/man1", [str(page) for page in pages])]
        super().run()


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
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": BuildExt, "install": Install, "sdist": Sdist},
    ext_modules=[
        Extension(
            "volfs.native.core",
            [source(), *(f"{NATIVE}/{name}.c" for name in FILES)],
            depends=[f"{NATIVE}/{name}.h" for name in ("bytes", "replies", *FILES)],
            define_macros=[("_GNU_SOURCE", "1"), *sums[1]],
            extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden"],
            libraries=["zstd", "blosc", sums[0], "pthread", "dl"],
            # Without a compiler or these libraries volfs works all the same: see volfs/native/__init__.py.
            optional=True,
        )
    ],
)
