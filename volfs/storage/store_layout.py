"""The path of everything in a store. Nothing here touches the disk.

    STORE/
    ├── volfs.json                     {"format": 2, "id": UUID}
    ├── catalog.sqlite                 the index; may be kept elsewhere
    └── datasets/NAME/
        ├── dataset.json
        ├── refs/heads/BRANCH.json     {"version": 12}; 0 is a branch with no version yet
        ├── refs/tags/TAG.json
        ├── refs/remotes/NAME/BRANCH.json  a branch of a remote, as it was last seen there
        ├── lock                       held while versions and refs change
        ├── unfinished                 held by the import that makes the dataset
        ├── highest.json               the highest number that a version ever had
        ├── retired.json               the versions that were dropped
        ├── gc.lock, reclaim.json      held, and there, while bytes of dropped versions go
        ├── versions/00000012/         version.json, manifest.npy.zst, zarr/, files/
        ├── versions/.00000013.partial/    a version being written; ``lock`` inside is held by its writer
        ├── versions/.00000013.publish.json    the intent of giving it its place
        ├── incoming/CONTENT_ID/       a version arriving from another store
        └── working/BRANCH/
            ├── top/                   zarr/, files/, removed/: uncommitted changes
            ├── frozen-00000013/       the same, being committed as that version
            ├── staged/                slices being written that do not decode yet
            ├── lock                   held by the process that may write
            └── commit.json            the intent of a commit under way

Decided here: these names. Not here: who may write them, and in which order (:mod:`volfs.versions`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from volfs.model.refs import RefKind

FORMAT = 2
"""The format that this code writes. A store with a larger number is refused, one with a smaller brought up to date."""

DATASETS, VERSIONS = "datasets", "versions"
VOLFS_JSON, DATASET_JSON, VERSION_JSON, MANIFEST = "volfs.json", "dataset.json", "version.json", "manifest.npy.zst"
"""Names in a store, a dataset, and a version."""

RECLAIM_JSON = "reclaim.json"
"""Name in a dataset: the intent of taking away bytes of dropped versions (:mod:`volfs.versions.retention`)."""

RETIRED_JSON, ABSENT = "retired.json", "absent.npy.zst"
"""Names in a version that came later: that it was dropped, and which of its payloads are not here."""

PREVIOUS_REF = ".publish.ref"
"""Ending of the name under which the ref before a version is kept while that is published."""

_VERSION_DIR = re.compile(r"[0-9]{8,}")
_PARTIAL_DIR = re.compile(r"\.([0-9]{8,})\.partial")
_PUBLISH_INTENT = re.compile(r"\.([0-9]{8,})\.publish\.json")
_FROZEN_DIR = re.compile(r"frozen-([0-9]{8,})")


def version_dir_name(number: int) -> str:
    """ "00000012" for 12."""
    return f"{number:08d}"


def partial_dir_name(number: int) -> str:
    """ ".00000012.partial" for 12."""
    return f".{version_dir_name(number)}.partial"


def parse_version_dir(name: str) -> int | None:
    """The number of a version's directory; None for any other name."""
    if not _VERSION_DIR.fullmatch(name) or version_dir_name(int(name)) != name:
        return None
    return int(name)


def parse_partial_dir(name: str) -> int | None:
    """The number of a version being written, from its directory's name; None for any other name."""
    match = _PARTIAL_DIR.fullmatch(name)
    return parse_version_dir(match[1]) if match else None


def parse_publish_intent(name: str) -> int | None:
    """The number of the version that an intent to publish names, from the intent's name; None for any other name."""
    match = _PUBLISH_INTENT.fullmatch(name)
    return parse_version_dir(match[1]) if match else None


def parse_frozen_dir(name: str) -> int | None:
    """The version as which a frozen layer is being committed, from its directory's name; None for any other name."""
    match = _FROZEN_DIR.fullmatch(name)
    return parse_version_dir(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class WorkingLayer:
    """One layer of a working copy: keys put lie under ``root`` by their own name, keys hidden under ``removed``."""

    root: Path

    @property
    def zarr(self) -> Path:
        return self.root / "zarr"

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def removed(self) -> Path:
        return self.root / "removed"


@dataclass(frozen=True, slots=True)
class WorkingLayout:
    """The working copy of one branch."""

    root: Path

    @property
    def top(self) -> WorkingLayer:
        return WorkingLayer(self.root / "top")

    def frozen(self, number: int) -> WorkingLayer:
        return WorkingLayer(self.root / f"frozen-{version_dir_name(number)}")

    @property
    def staged(self) -> Path:
        return self.root / "staged"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def base(self) -> Path:
        """The version that uncommitted changes lie over: see :mod:`volfs.versions.working.base_file`."""
        return self.root / "base.json"

    @property
    def commit_intent(self) -> Path:
        return self.root / "commit.json"

    @property
    def rename_intent(self) -> Path:
        """There while the branch gets another name: see :mod:`volfs.versions.commit.branch_rename`."""
        return self.root / "rename.json"

    @property
    def pulse(self) -> Path:
        """Changes with every change of the working copy."""
        return self.root / "pulse"

    @property
    def rejected(self) -> Path:
        return self.root / "rejected.json"

    @property
    def refusals(self) -> Path:
        return self.root / "errors.txt"

    @property
    def message(self) -> Path:
        return self.root / "message"


@dataclass(frozen=True, slots=True)
class VersionLayout:
    """One version's directory, published or partial."""

    root: Path

    @property
    def lock(self) -> Path:
        """Only in a partial version."""
        return self.root / "lock"

    @property
    def retired(self) -> Path:
        """There once the version was dropped."""
        return self.root / RETIRED_JSON


@dataclass(frozen=True, slots=True)
class DatasetLayout:
    """The directory of one dataset."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held for moments: while a version number is reserved, a version published, a ref changed."""
        return self.root / "lock"

    @property
    def gc_lock(self) -> Path:
        """Held while bytes of dropped versions are looked for and taken away."""
        return self.root / "gc.lock"

    @property
    def unfinished(self) -> Path:
        """There, and held, while a dataset is being made that shall not stay if that fails: an import's."""
        return self.root / "unfinished"

    @property
    def ref_log(self) -> Path:
        """A line for every change of a ref: see :mod:`volfs.versions.ref_log`."""
        return self.root / "refs" / "log.jsonl"

    def refs(self, kind: RefKind) -> Path:
        """Where all refs of a kind lie."""
        return self.root / "refs" / kind.folder

    def ref(self, kind: RefKind, name: str) -> Path:
        return self.refs(kind) / f"{name}.json"

    @property
    def versions(self) -> Path:
        return self.root / VERSIONS

    def version(self, number: int) -> VersionLayout:
        return VersionLayout(self.versions / version_dir_name(number))

    def partial(self, number: int) -> VersionLayout:
        return VersionLayout(self.versions / partial_dir_name(number))

    def publish_intent(self, number: int) -> Path:
        """There while a complete version is being given its place: see :mod:`volfs.versions.commit.publish`."""
        return self.versions / f".{version_dir_name(number)}.publish.json"

    @property
    def highest(self) -> Path:
        """The highest number that a version ever had, which none has again."""
        return self.root / "highest.json"

    @property
    def retired(self) -> Path:
        """The versions that were dropped: see :mod:`volfs.versions.commit.retired_list`."""
        return self.root / "retired.json"

    def previous_ref(self, number: int) -> Path:
        """The ref as it was before version ``number``, kept beside the intent to publish it."""
        return self.versions / f".{version_dir_name(number)}{PREVIOUS_REF}"

    @property
    def incoming(self) -> Path:
        """Versions that are arriving from another store, each in a directory named by its content id. ``lock`` inside
        is held by the process that receives them."""
        return self.root / "incoming"

    def working(self, branch: str) -> WorkingLayout:
        return WorkingLayout(self.root / "working" / branch)

    @property
    def workings(self) -> Path:
        return self.root / "working"


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """A store's own directory."""

    root: Path

    @property
    def volfs_json(self) -> Path:
        return self.root / VOLFS_JSON

    @property
    def catalog(self) -> Path:
        """Where the catalog lies unless the caller keeps it elsewhere."""
        return self.root / "catalog.sqlite"

    @property
    def reserve(self) -> Path:
        """The file of reserved disk space: see :mod:`volfs.storage.reserve`."""
        return self.root / "reserve"

    @property
    def lock(self) -> Path:
        """Held while datasets come and go and while a store recovers from a crash."""
        return self.root / "lock"

    @property
    def datasets(self) -> Path:
        return self.root / DATASETS

    def dataset(self, name: str) -> DatasetLayout:
        return DatasetLayout(self.datasets / name)
