"""A dataset in memory: versions and a branch as dictionaries of keys, for tests of what stands on snapshots."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from volfs.errors import Damaged, NotFound, VolfsError
from volfs.model import ngff
from volfs.model.metadata import ArrayMeta, GroupMeta, array_zarr_json, group_zarr_json, parse_node
from volfs.storage.codec import ChunkCodec
from volfs.versions.keys import json_key, node_key
from volfs.versions.snapshot import ArrayNode, GroupNode, KeyInfo, Snapshot

_clock = itertools.count(1)


@dataclass(frozen=True)
class Bytes:
    """A payload. `token` numbers its bytes; `bad` makes reading fail."""

    data: bytes
    token: int = field(default_factory=lambda: next(_clock))
    bad: bool = False

    @property
    def size(self):
        return len(self.data)


class Payload:
    def __init__(self, stored, snapshot, key):
        self.token, self.size, self._stored, self._snapshot, self._key = (
            stored.token,
            stored.size,
            stored,
            snapshot,
            key,
        )

    def read(self, offset=0, length=None):
        self._snapshot.reads[self._key] += 1
        if self._snapshot.gate is not None:
            self._snapshot.gate()
        if self._stored.bad:
            raise Damaged(f"{self._key}: checksum")
        return self._stored.data[offset:][:length]


class Array(ArrayNode):
    def __init__(self, snapshot, path, meta, mtime_ns):
        self.snapshot, self.path, self.meta, self.mtime_ns = snapshot, path, meta, mtime_ns

    def _keys(self, chunks):
        return {c: node_key(self.path, self.meta.chunk_key(c)) for c in self.meta.grid.iter(chunks)}

    def payloads(self, chunks):
        self.snapshot.looked_up.append((self.path, chunks))
        keys = self.snapshot.keys
        return {c: Payload(keys[k], self.snapshot, k) for c, k in self._keys(chunks).items() if k in keys}

    def changed(self):
        folder = node_key(self.path) + "/"
        dataset, number = self.snapshot.dataset, self.snapshot.number
        now, then = self.snapshot.keys, dataset.version(number).keys if number else {}
        differing = [k for k in now.keys() | then.keys() if k.startswith(folder) and now.get(k) != then.get(k)]
        return {c for k in differing if (c := self.meta.parse_chunk_key(k.removeprefix(folder))) is not None}

    def newest(self, axes):
        whole = np.zeros(self.meta.grid.grid_shape, np.int64)
        for c in np.ndindex(whole.shape):
            whole[c] = self.snapshot.time_of(node_key(self.path, self.meta.chunk_key(c)), self.mtime_ns)
        others = tuple(i for i in range(whole.ndim) if i not in axes)
        return whole.max(axis=others, initial=0)

    def newest_in(self, chunks):
        return max(self.snapshot.time_of(k, self.mtime_ns) for k in self._keys(chunks).values())


class MemorySnapshot(Snapshot):
    def __init__(self, dataset, ref, keys, number):
        self.dataset, self.ref, self.keys = dataset, ref, dict(keys)
        self.number = number
        self.changed = dict.fromkeys(keys, 1)
        self.reads: Counter = Counter()
        self.looked_up: list = []
        self.gate = None
        self.puts: list = []
        self._generation = 0
        self._lock = threading.Lock()

    @property
    def writable(self):
        return self.ref[0] != "v"

    def zarr_store(self):
        raise NotImplementedError

    @property
    def base(self):
        return SimpleNamespace(number=self.number) if self.number else None

    def generation(self):
        return self._generation

    def time_of(self, key, default):
        return max(default, self.changed.get(key, 0))

    def stat(self, key):
        if key in self.keys:
            return KeyInfo("file", self.keys[key].size, self.changed[key])
        return KeyInfo("dir", 0, 0) if any(k.startswith(f"{key}/") for k in self.keys) else None

    def list(self, key):
        names = sorted({k[len(key) + 1 :].split("/")[0] for k in self.keys if k.startswith(f"{key}/")})
        if not names:
            raise NotFound(key)
        return [(n, self.stat(f"{key}/{n}")) for n in names]

    def read(self, key, offset=0, length=None):
        if key not in self.keys:
            raise NotFound(key)
        return self.keys[key].data[offset:][:length]

    def node(self, path):
        key = json_key(path)
        if key not in self.keys:
            return None
        try:
            meta = parse_node(self.keys[key].data)
        except VolfsError:
            return None
        if isinstance(meta, GroupMeta):
            return GroupNode(path, meta.attributes, self.changed[key])
        return Array(self, path, meta, self.changed[key])

    # -- a branch
    def put(self, key, data, **more):
        assert self.writable
        with self._lock:
            self.keys[key] = Bytes(bytes(data), **more)
            self._touch(key)
            self.puts.append(key)

    def delete(self, key):
        assert self.writable
        with self._lock:
            if key not in self.keys:
                raise NotFound(key)
            del self.keys[key]
            self._touch(key)

    def _touch(self, key):
        self.changed[key] = 100 + next(_clock)
        self._generation += 1

    def commit(self):
        """The branch's state as a new version. Chunks outside a shrunk array go, as in a real commit."""
        for key in self._outside():
            self.delete(key)
        version = self.dataset.add(self.keys)
        self.number = version.number
        self._generation += 1
        return version

    def _outside(self):
        found = []
        for name in [key for key in self.keys if key.startswith("zarr/") and key.endswith("/zarr.json")]:
            array = self.node(name.removeprefix("zarr/").removesuffix("/zarr.json"))
            if isinstance(array, Array):
                folder = node_key(array.path) + "/"
                for key in self.keys:
                    coords = array.meta.parse_chunk_key(key.removeprefix(folder)) if key.startswith(folder) else None
                    if coords is not None and not array.meta.grid.holds(coords):
                        found.append(key)
        return found


class MemoryDataset:
    def __init__(self):
        self.store = SimpleNamespace()
        self.name = "cells"
        self.versions: list[MemorySnapshot] = []

    def add(self, keys):
        number = len(self.versions) + 1
        self.versions.append(MemorySnapshot(self, f"v{number}", keys, number))
        return self.versions[-1]

    def version(self, number):
        return self.versions[number - 1]

    def branch(self, ref="main"):
        last = self.versions[-1] if self.versions else None
        return MemorySnapshot(self, ref, last.keys if last else {}, last.number if last else 0)


def put_group(keys, path, attributes):
    keys[json_key(path)] = Bytes(group_zarr_json(attributes))


def put_array(keys, path, voxels, chunk_shape, **options):
    """Store a whole array, as a client that leaves out chunks of fill value."""
    raw = array_zarr_json(voxels.shape, voxels.dtype, chunk_shape, **options)
    keys[json_key(path)] = Bytes(raw)
    meta = parse_node(raw)
    assert isinstance(meta, ArrayMeta)
    codec = ChunkCodec.of(meta)
    for coords in np.ndindex(meta.grid.grid_shape):
        box = meta.grid.chunk_box(coords)
        chunk = codec.filled()
        chunk[box.relative_to(box.start).slices()] = voxels[box.slices()]
        if not codec.is_fill(chunk):
            keys[node_key(path, meta.chunk_key(coords))] = Bytes(codec.encode(chunk))
    return meta


def put_pyramid(keys, path, voxels, chunk_shape, levels=3, *, is_label=False, managed=True, factors=None, **options):
    """A multiscale image, all levels right."""
    from volfs.volume.pyramid import downsample, method_for

    axes = tuple(ngff.axis(n, "nm" if n in "zyx" else None) for n in "dtczyx"[-voxels.ndim :])
    scale = (1.0,) * voxels.ndim
    factors = factors or ngff.downsampling_factors(voxels.shape, scale, axes, levels)
    method = method_for(voxels.dtype, is_label)
    image = ngff.pyramid("cells", axes, scale, factors, method=method, is_label=is_label)
    attributes = ngff.ome_attributes(image)
    if not managed:
        del attributes["volfs"]
    put_group(keys, path, attributes)
    for index, level in enumerate(image.levels):
        if index:
            voxels = downsample(voxels, image.factors(index), method)
        put_array(keys, f"{path}/{level.path}" if path else level.path, voxels, chunk_shape, **options)
    return image


def json_of(snapshot, path):
    return json.loads(snapshot.read(json_key(path)))
