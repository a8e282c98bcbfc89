"""Files in a ZIP, as readers of slices see them.

Nothing is unpacked to a place that a name in the archive says, so names cannot lead anywhere. A member is opened as a
stream, or as a whole: in memory if it is small, else in a temporary file without a name. How large it is is known and
checked before either; zipfile stops there, and compares the checksum. What macOS adds (``__MACOSX/``, ``._name``) and
hidden files are left aside.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from volfs.errors import BadInput
from volfs.ingest.readers.packed_voxels import scratch_folder
from volfs.ingest.source import unreadable
from volfs.storage.files import no_space

_DEFLATE_AT_BEST = 1032
_IN_MEMORY = 64 << 20
_LARGEST = 16 << 30


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, with as much of :class:`pathlib.Path` as readers of pictures need."""

    archive: Archive
    info: zipfile.ZipInfo

    def __str__(self) -> str:
        return f"{self.archive.path}:{self.info.filename}"

    @property
    def name(self) -> str:
        return PurePosixPath(self.info.filename).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.info.filename).suffix

    @property
    def folder(self) -> str:
        """The directory it is in, "" for the top."""
        found = str(PurePosixPath(self.info.filename).parent)
        return "" if found == "." else found

    @property
    def size(self) -> int:
        return self.info.file_size

    def open(self, mode: str = "rb") -> IO[bytes]:
        """A stream of what it holds."""
        return self.archive.open(self)

    def read_bytes(self) -> bytes:
        """All it holds."""
        with self.open() as file:
            return file.read()

    @contextmanager
    def whole(self) -> Iterator[IO[bytes]]:
        """All it holds, as a file that can be read anywhere."""
        if self.size <= _IN_MEMORY:
            yield io.BytesIO(self.read_bytes())
            return
        with no_space("for unpacking a slice"), tempfile.TemporaryFile(dir=scratch_folder()) as target:
            with self.open() as file:
                shutil.copyfileobj(file, target, 1 << 20)
            target.seek(0)
            yield target


class Archive:
    """A ZIP file. BadInput if it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise unreadable(path, error) from error

    def members(self) -> list[Member]:
        """Its files, without those that nobody put there on purpose."""
        return [Member(self, info) for info in self._files() if not _is_aside(info)]

    def aside(self) -> list[str]:
        """The names of the files that are no members."""
        return [info.filename for info in self._files() if _is_aside(info)]

    def _files(self) -> list[zipfile.ZipInfo]:
        return [info for info in self._zip.infolist() if not info.is_dir()]

    def check(self, member: Member) -> None:
        """Raise BadInput for a member that is encrypted, or larger than anything that could be in it."""
        info = member.info
        if info.flag_bits & 1:
            raise BadInput(f"{member} is encrypted: unpack {self.path} and import the directory")
        most = {
            zipfile.ZIP_STORED: info.compress_size,
            zipfile.ZIP_DEFLATED: (info.compress_size + 1024) * _DEFLATE_AT_BEST,
        }
        if info.file_size > min(_LARGEST, most.get(info.compress_type, _LARGEST)):
            raise BadInput(
                f"{member} would be {info.file_size} bytes out of {info.compress_size}: not a slice, or a trap"
            )

    def open(self, member: Member) -> IO[bytes]:
        self.check(member)
        try:
            return self._zip.open(member.info)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
            raise unreadable(str(member), error) from error

    def close(self) -> None:
        self._zip.close()


def _is_aside(info: zipfile.ZipInfo) -> bool:
    """Whether a file is hidden, of a system's own, or would lie outside of where the archive is unpacked."""
    return any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(info.filename).parts)
