"""Payloads that are known and not here: where a version says so, and the error for who reads one.

Decided here: the object ``absent.npy.zst`` in a version's directory, and that it is asked only about what could not be
read. So a payload that is here costs nothing, and other processes see at once what came or went. Not here: what is
dropped (:mod:`volfs.versions.retention`) or left out of a clone, and the catalog, which goes on saying where payloads
belong and how long they are: names, sizes and histories are those of a whole store.

The object is one zstd frame (with checksum) holding one ``.npy`` array, ``uint8``, a :class:`Where` for each record of
the version's manifest. A version of which everything is here has none. Metadata of the hierarchy (``zarr.json``) is
never absent: all the rest is understood by it.
"""

from __future__ import annotations

import errno
import io
import shlex
import threading
from contextlib import suppress
from enum import IntEnum
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from volfs.errors import Absent, Damaged, NotFound, VolfsError
from volfs.model.bounded_map import BoundedMap
from volfs.model.box_name import axis_names
from volfs.model.metadata import ArrayMeta, parse_node
from volfs.model.ngff import parse_multiscale
from volfs.storage.backend import Backend, Tag
from volfs.storage.manifest import Manifest, Op, Record
from volfs.storage.payload import Payload
from volfs.storage.store_layout import ABSENT, parse_version_dir
from volfs.versions.committed.version_files import StoredVersion, VersionFiles, array_meta, read_manifest
from volfs.versions.keys import NODE_JSON, is_key, node_key, parents

_KEPT = 4
_HEADER = 4096
"""Bytes that the header of an array has at most."""

Codes = NDArray[np.uint8]
"""A :class:`Where` for each record of a manifest."""


class Where(IntEnum):
    """Where a payload is: the codes of the object."""

    HERE = 0
    DROPPED = 1
    LEFT_OUT = 2


def read_codes(files: VersionFiles, manifest: Manifest) -> Codes:
    """Where the payload of each record of a version's manifest is. Raises Damaged."""
    try:
        raw = files.read(ABSENT)
    except NotFound:
        return np.zeros(len(manifest), np.uint8)
    return parse_codes(raw, len(manifest), files.where(ABSENT))


def write_codes(files: VersionFiles, codes: Codes) -> None:
    """Say where the payload of each record is, durably and in one step."""
    if not codes.any():
        files.objects.remove([files.key(ABSENT)])
        return
    files.put(ABSENT, dump_codes(codes))


def dump_codes(codes: Codes) -> bytes:
    """The bytes of the object."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(codes, np.uint8), version=(1, 0), allow_pickle=False)
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(out.getvalue())


def may_be_absent(manifest: Manifest) -> NDArray[np.bool_]:
    """For each record, whether its payload lies in the version's own directory and may go."""
    return _no_metadata(manifest, Op.PUT)


def may_be_taken(manifest: Manifest) -> NDArray[np.bool_]:
    """For each record, whether it takes a payload that may be absent."""
    return _no_metadata(manifest, Op.TAKE)


def _no_metadata(manifest: Manifest, op: Op) -> NDArray[np.bool_]:
    """For each record, whether it is of this kind, and not of the metadata of the hierarchy."""
    records = manifest.records
    found: NDArray[np.bool_] = records["op"] == op
    for row in np.flatnonzero(found & (records["ndim"] == 0)).tolist():
        key = manifest.strings[records["name"][row]]
        found[row] = not (key.startswith("zarr/") and key.rpartition("/")[2] == NODE_JSON)
    return found


def array_note(stored: StoredVersion, path: str, lacks: bool) -> dict[str, object]:
    """What a version's own ``zarr.json`` of an array says of how it is stored. ``lacks``: chunks that the version puts
    are absent."""
    array = stored.arrays.get(path)
    whole, parent = array is not None and array.complete, next(iter(stored.info.parents), None)
    note: dict[str, object] = {
        "version": stored.info.number,
        "complete": whole and not lacks,
        "inherits_from": None if whole and lacks else parent,
    }
    return note | ({"dropped": True} if lacks else {})


def check_taken(objects: Backend, manifest: Manifest) -> None:
    """Raise Absent if a version takes a payload that went with a dropped one. Called when it is given its place, with
    the dataset's lock held."""
    records = manifest.records
    taken = np.flatnonzero(records["op"] == Op.TAKE)
    absences = Absences(objects, "")
    for number in sorted(set(records["file"][taken].tolist())):
        file = manifest.strings[number]
        if objects.stat(f"{file.partition('/')[0]}/{ABSENT}") is None:
            continue
        for row in taken[records["file"][taken] == number].tolist():
            error = absences.why(manifest.payload(row))
            if error is not None and error.errno == errno.ESTALE:
                raise Absent(f"{file} was dropped while it was being taken: nothing was committed", errno=errno.ESTALE)


def left_out(dataset: str, ident: str, count: int) -> Absent:
    """The error for a version that is not pushed: the clone that it comes from lacks so many payloads of it, and the
    other store does, too."""
    payloads = f"{count:,} payload{'s' if count > 1 else ''}"
    return Absent(
        f"{payloads} of version {ident[:12]}… that the other store lacks were left out of this clone, too:"
        f" `volfs fetch {dataset} --whole` brings them, then push again"
    )


class Absences:
    """What is absent in the versions of one dataset. Thread-safe."""

    def __init__(self, objects: Backend, dataset: str) -> None:
        self._objects = objects
        self._dataset = dataset
        self._lock = threading.Lock()
        self._known: BoundedMap[int, tuple[Tag, Manifest, Codes]] = BoundedMap(_KEPT)

    def why(self, payload: Payload) -> Absent | None:
        """The error for a payload that is absent; None for any other. Raises Damaged."""
        number = parse_version_dir(payload.file.partition("/")[0])
        known = None if number is None else self._of(number)
        if number is None or known is None:
            return None
        manifest, codes = known
        if payload.file not in manifest.strings:
            return None
        records = manifest.records
        at = (records["file"] == manifest.strings.index(payload.file)) & (records["offset"] == payload.offset)
        rows = np.flatnonzero(at & (codes != Where.HERE))
        return None if not len(rows) else self._error(number, manifest, int(rows[0]), Where(int(codes[rows[0]])))

    def _error(self, number: int, manifest: Manifest, row: int, where: Where) -> Absent:
        record = manifest.record(row)
        chunk = "" if record.chunk is None else f" chunk {'/'.join(map(str, record.chunk))}"
        what = f"{record.name or 'the root array'}{chunk} of {self._dataset}@v{number}"
        if where is Where.DROPPED:
            said = f"{what} went when versions were dropped, which `volfs log {self._dataset}` marks"
            return Absent(f"{said}: only another store that has it can show it", errno=errno.ESTALE)
        return Absent(f"{what} was left out of this clone: `{self._fetching(number, record)}` brings it")

    def _fetching(self, number: int, record: Record) -> str:
        """The command that brings in what was left out."""
        words = ["volfs", "fetch", self._dataset, "--path", record.name]
        if record.chunk is not None:
            words[-1] = node_key(record.name) if not record.name or is_key(record.name) else record.name
            with suppress(VolfsError):
                meta = array_meta(VersionFiles.of(self._objects, number), record.name)
                shape = zip(record.chunk, meta.chunk_shape, meta.shape, strict=True)
                spans = [(at * size, min((at + 1) * size, end)) for at, size, end in shape]
                names = self._axes(number, record.name, meta)
                if spans:
                    words += ["--box", "_".join(f"{name}{a}-{b}" for name, (a, b) in zip(names, spans, strict=True))]
        return shlex.join(words)

    def _axes(self, number: int, path: str, meta: ArrayMeta) -> tuple[str, ...]:
        """Names of an array's axes: those of the image that it is a level of, else its own. Metadata of the groups
        above an array lies beside it."""
        files = VersionFiles.of(self._objects, number)
        for folder in parents(node_key(path)):
            with suppress(VolfsError):
                group = parse_node(files.read(f"{folder}/{NODE_JSON}"))
                image = parse_multiscale(group.attributes)
                inside = node_key(path).removeprefix(f"{folder}/")
                if (
                    image is not None
                    and len(image.axes) == meta.ndim
                    and inside in {each.path for each in image.levels}
                ):
                    return tuple(axis.name for axis in image.axes)
        return axis_names(meta.dimension_names, meta.ndim)

    def _of(self, number: int) -> tuple[Manifest, Codes] | None:
        """Manifest and codes of a version; None if nothing of it is absent."""
        files = VersionFiles.of(self._objects, number)
        with self._lock:
            known: Any = self._known.get(number)
        try:
            found = self._objects.get(files.key(ABSENT), None if known is None else known[0])
        except NotFound:
            return None
        if found is None:
            return known[1], known[2]
        raw, tag = found
        manifest = known[1] if known is not None else read_manifest(files)
        codes = parse_codes(raw, len(manifest), files.where(ABSENT))
        with self._lock:
            self._known.put(number, (tag, manifest, codes))
        return manifest, codes


def parse_codes(raw: bytes, records: int, where: str) -> Codes:
    """The codes that the bytes of the object say, for a manifest of so many records. Damaged, beginning with ``where``,
    if they are none."""
    try:
        if zstandard.frame_content_size(raw) > records + _HEADER:  # before memory is taken
            raise Damaged(f"{where}: not one byte for each of the {records} records of the manifest beside it")
        decoder = zstandard.ZstdDecompressor().decompressobj()
        data = decoder.decompress(raw)
        if not decoder.eof or decoder.unused_data:
            raise Damaged(f"{where}: not one whole zstd frame")
        stream = io.BytesIO(data)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise Damaged(f"{where}: not in .npy format 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        at = stream.tell()
    except (zstandard.ZstdError, ValueError, OverflowError, SyntaxError, MemoryError) as error:
        raise Damaged(f"{where}: {error}") from None
    if dtype != np.uint8 or shape != (records,) or len(data) - at != records:
        raise Damaged(f"{where}: not one byte for each of the {records} records of the manifest beside it")
    codes = np.frombuffer(data, np.uint8, records, at)
    if records and codes.max() > max(Where):
        raise Damaged(f"{where}: says what this volfs does not know")
    return codes
