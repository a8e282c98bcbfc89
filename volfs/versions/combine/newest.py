"""Several versions laid over each other: each chunk and each key is that of the highest version that changed it.

Decided here: what counts as the version that changed a key or a chunk, removals included, and that an array whose
versions read their chunks differently is taken from one of them. There are no conflicts, and no bases: it is not a
merge of lines of work but of parts that were written apart (HPC DataStore's *mixedLatest*, as a version). Not here: how
the outcome is written (:mod:`volfs.versions.combine.combined_version`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from volfs.storage.manifest import Op
from volfs.versions.combine.array_merge import ArrayOutcome, alike
from volfs.versions.combine.candidates import candidates, union_rows
from volfs.versions.combine.chunk_states import ChunkStates
from volfs.versions.combine.combination import Combination, Put, follows
from volfs.versions.combine.decisions import UNDECIDED
from volfs.versions.combine.digests import Digests
from volfs.versions.combine.key_merge import KeyMerge, state_of, taken
from volfs.versions.commit.movement import versions_between
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.history import History
from volfs.versions.keys import covers, json_key, node_path_of_json


def combine_newest(dataset: History[Version], ours: int, others: Sequence[int], put: Put) -> Combination:
    """Lay ``others`` over ``ours``. Metadata is given to ``put``; the chunks are in the outcome."""
    versions = [dataset.version(number) for number in (ours, *others)]
    removals = _Removals(dataset, versions)
    digests = Digests(dataset)
    states = ChunkStates(digests)
    found = Combination(versions[0], None, digests)
    found.others = tuple(versions[1:])
    keys: set[str] = set()
    rows: defaultdict[str, list[np.ndarray[tuple[int, int], np.dtype[np.int64]]]] = defaultdict(list)
    for number in others:
        each = candidates(dataset, ours, number)
        keys |= each.keys
        for path, some in each.chunks.items():
            rows[path].append(some)
    for key in sorted(keys):
        newest = max(versions, key=lambda version: removals.changed(version, key))
        outcome = taken(state_of(newest, key))
        same = KeyMerge((), versions[0], newest, digests, UNDECIDED).same
        if same(state_of(versions[0], key), state_of(newest, key)):
            continue
        found.keys[key] = outcome
        if node_path_of_json(key) is not None:
            put(key, None if outcome.theirs is None else outcome.theirs.read())
    for path in sorted({*rows, *filter(None, map(node_path_of_json, keys))}):
        _lay_chunks(found, versions, states, removals, path, rows.get(path, []))
    return found


def _lay_chunks(
    found: Combination,
    versions: Sequence[Version],
    states: ChunkStates,
    removals: _Removals,
    path: str,
    rows: Sequence[np.ndarray[tuple[int, int], np.dtype[np.int64]]],
) -> None:
    described = max(versions, key=lambda version: removals.changed(version, json_key(path)))
    array = described.array(path)
    if array is None:
        return
    if follows(versions, path):
        found.levels.add(path)
        return
    arrays = [
        each for version in versions if (each := version.array(path)) is not None and alike(each.meta, array.meta)
    ]
    ours = versions[0].array(path)
    kept = ours is not None and alike(ours.meta, array.meta)
    chosen = union_rows([*rows, *([] if kept else [each.stored_rows() for each in arrays])])
    if not len(chosen) or chosen.shape[1] != array.meta.ndim:
        return
    every = [states.of(each, chosen) for each in arrays]
    changed = np.stack([each["changed"] for each in every])
    winner = changed.argmax(axis=0)
    at = np.arange(len(chosen))
    best = np.stack(every)[winner, at]
    here = states.of(ours if kept else None, chosen)
    other = ~states.same(path, chosen, here, best)
    there = best["file"] >= 0
    take, gone = other & there, other & ~there & (here["file"] >= 0)
    found.arrays[path] = ArrayOutcome(chosen[take], best["changed"][take], chosen[gone])


class _Removals:
    """When keys were removed, on the lines of some versions, as far as these differ."""

    def __init__(self, dataset: History[Version], versions: Sequence[Version]) -> None:
        numbers = {
            n for version in versions[1:] for n in versions_between(dataset.graph, versions[0].number, version.number)
        }
        self._removed: list[tuple[int, str, bool]] = []
        self._dataset = dataset
        for number in sorted(numbers, reverse=True):
            manifest = read_manifest(VersionFiles.of(dataset.objects, number))
            ops = manifest.records["op"]
            for i in manifest.keys().tolist():
                if ops[i] in (Op.REMOVE, Op.REMOVE_SUBTREE):
                    key = manifest.strings[manifest.records["name"][i]]
                    self._removed.append((number, key, bool(ops[i] == Op.REMOVE_SUBTREE)))

    def changed(self, version: Version, key: str) -> int:
        """The version that changed a key last, on the line of ``version``; 0 if none has."""
        entry = version.entry(key)
        if entry is not None and entry.payload is not None:
            return entry.version
        for number, gone, whole in self._removed:
            if gone == key or (whole and covers(gone, key)):
                info = self._dataset.info(number)
                if version.at.sees(info.lineage, info.position):
                    return number
        return 0
