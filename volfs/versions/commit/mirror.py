"""The catalog as a mirror of one dataset's files: what has been done there, by whomever, and is not in it yet.

Decided here: what the catalog is told when the dataset's ledger has changed: versions that nobody indexed here, refs
that others moved. Not here: what decides about a ref, which is its file, read under the dataset's lock
(:mod:`volfs.versions.dataset`).

Several machines may work on one store, each with a catalog of its own, and some with that in the store. What one of
them commits, the others learn from the store's directories alone. Whoever takes the dataset's lock catches up first, so
that it decides about what is, and so that whoever was refused because it was late is late no more.
"""

from __future__ import annotations

from typing import Protocol

from volfs.errors import Busy, NoSpace, VolfsError
from volfs.model.refs import Refs
from volfs.versions.commit.writable_history import Progress, WritableHistory
from volfs.versions.committed.version_files import VersionFiles, read_manifest, read_version


class MirroredHistory(WritableHistory, Protocol):
    """A dataset, with what its object remembers of the mirror."""

    @property
    def unindexed(self) -> dict[int, str]:
        """Versions that lie in the store and are not in the catalog, with the reason."""

    def ref_files(self) -> Refs:
        """Branches and tags as their files say, without those that are damaged."""

    def filed_refs(self, mirrored: Refs) -> Refs:
        """Branches and tags as their files say, as far as the catalog knows the versions that they name."""

    def tell_once(self, defect: str) -> None:
        """Log, once, a defect that keeps the catalog from knowing all of the dataset."""


def catch_up(dataset: MirroredHistory, progress: Progress | None = None) -> list[int]:
    """Index the versions that the catalog does not know, settle what dead processes were publishing, and mirror the
    refs and which versions were dropped if they differ. Call with the dataset's lock held. Returns the numbers indexed.

    A version whose files are damaged is left out, with all that descends from it, and the rest is indexed: one bad
    version harms no other.
    """
    done = index_missing(dataset, progress)  # first, since what was being published stands on versions before it
    try:
        done += dataset.ledger.settle(dataset.index_stored)
    except VolfsError as error:
        dataset.tell_once(f"a version that a dead process was publishing can be neither finished nor undone: {error}")
    try:
        if dataset.ref_files() != dataset.refs():
            dataset.mirror_refs()
        retired = dataset.ledger.retired()
        if retired != dataset.catalog.retired(dataset.id):
            dataset.catalog.set_retired(dataset.id, retired)
    except VolfsError as error:
        dataset.tell_once(f"the catalog cannot take over its branches, tags and dropped versions: {error}")
    return done


def missing(dataset: MirroredHistory) -> list[int]:
    """Versions on disk that the catalog does not know, in order; without those that are being published."""
    known = dataset.graph.versions
    return [n for n in dataset.ledger.versions() if n not in known and dataset.ledger.is_version(n)]


def index_missing(dataset: MirroredHistory, progress: Progress | None = None) -> list[int]:
    """Index what the catalog does not know; the numbers."""
    numbers = missing(dataset)
    done = []
    for at, number in enumerate(numbers):
        if progress is not None:
            progress(at, len(numbers), dataset.name)
        try:
            files = VersionFiles.of(dataset.objects, number)
            dataset.index(read_version(files), read_manifest(files))
            done.append(number)
            dataset.unindexed.pop(number, None)
        except (NoSpace, Busy):
            raise
        except Exception as error:  # whatever it is, it is this version's
            dataset.unindexed[number] = (
                str(error) if isinstance(error, VolfsError) else f"{type(error).__name__}: {error}"
            )
            dataset.tell_once(f"v{number} cannot be added to the catalog: {dataset.unindexed[number]}")
    return done
