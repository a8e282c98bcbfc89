"""The record of a stage, in front of the bytes of a file that is being written over a slice or chunk.

Decided here: how the record lies in the stage's own file, ``working/B/staged/DIRECTORY/NAME``, and how a record that is
damaged, or of an older volfs, is told. One file, so there is never a stage without a record. Not here: when a stage is
decoded, dropped or shown (``tree/``); whether what it holds is newer than the voxels (the same).

The first :data:`HEADER` bytes of the file are a document (:mod:`volfs.storage.json_document`) after a magic line,
filled up with zeros; the bytes as the client wrote them follow. Stages of volfs 0.1 have no record: their bytes begin
at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from volfs.errors import Damaged
from volfs.storage.json_document import dump_document, load_document

HEADER = 4096
"""Bytes before those of the client."""
_MAGIC = b"volfs stage\n"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """``began_ns``: when, on the branch's clock (:mod:`volfs.versions.working.clock`), the bytes began to be what they
    are: a change of voxels with a later time is newer. ``over``: the number of the version that the working copy lay
    over then. ``target``: digest of what the file would become, a box of an array; "" for a temporary name.

    ``storing_ns``: when its voxels began to be stored, on the same clock; 0 while it is written. ``reason``: why it is
    no slice yet, for people; "" once it is, and merely still open. ``refused``: as it is it can never be one.
    """

    began_ns: int
    over: int
    target: str
    storing_ns: int = 0
    reason: str = "it is being written"
    refused: bool = False

    def pack(self) -> bytes:
        """The first bytes of the file. A reason that does not fit is cut."""
        plain = {name: getattr(self, name) for name in _TYPES}
        while len(text := _MAGIC + dump_document(plain)) > HEADER:
            plain["reason"] = plain["reason"][: len(plain["reason"]) // 2]
        return text.ljust(HEADER, b"\0")


_TYPES = {
    "began_ns": int,
    "over": int,
    "target": str,
    "storing_ns": int,
    "reason": str,
    "refused": bool,
}


def read_record(fd: int) -> StageRecord | None:
    """The record of an open stage; None where there is none, in a stage of an older volfs. Damaged if it is damaged."""
    raw = os.pread(fd, HEADER, 0)
    if not raw.startswith(_MAGIC):
        return None
    value, checked = load_document(raw[len(_MAGIC) :].rstrip(b"\0"), "the stage's record")
    if not checked or any(type(value.get(name)) is not kind for name, kind in _TYPES.items()):
        raise Damaged("the stage's record is not one that volfs writes")
    return StageRecord(**{name: value[name] for name in _TYPES})


def stage_files(root: Path) -> Iterator[tuple[str, str, Path]]:
    """(directory from the snapshot on, name, path) of every stage of a branch. Only ordinary files are stages."""
    for folder, _, names in os.walk(root):
        within = os.path.relpath(folder, root)
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield within, name, path


def has_stages(root: Path) -> bool:
    """Whether there is any."""
    return next(stage_files(root), None) is not None
