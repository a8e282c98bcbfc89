"""Histories for the tests of the catalog: versions indexed one after the other, and a walk over what each holds."""

from __future__ import annotations

from collections.abc import Mapping

from volfs.catalog import Catalog, NodeShape
from volfs.model.graph import At, VersionInfo
from volfs.model.refs import RefKind
from volfs.storage.manifest import Manifest, ManifestBuilder
from volfs.storage.payload import Payload

SHA = bytes(32)
SHAPE = NodeShape((2, 2))


class History:
    """A catalog with one dataset, and versions added in a line or from any parent."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.dataset = catalog.add_dataset("cells", 0)
        self.number = 0

    def commit(
        self,
        builder: ManifestBuilder | Manifest,
        nodes: Mapping[str, NodeShape] | None = None,
        parent: int | None = None,
    ) -> int:
        parent = self.number if parent is None else parent
        number = self.number + 1
        manifest = builder.build() if isinstance(builder, ManifestBuilder) else builder
        info = VersionInfo(number, (parent,) if parent else (), 0, 0, number, "me", "", f"id{number}")
        self.catalog.index_version(self.dataset, info, manifest, nodes or {})
        self.number = number
        return number

    def at(self, number: int) -> At:
        return self.catalog.graph(self.dataset).at(number)

    def keys(self, number: int, directory: str = "") -> set[str]:
        """All objects a version holds, by walking its directories."""
        entry = self.catalog.entry(self.dataset, self.at(number), directory)
        assert entry is not None
        found = set()
        for name, child in self.catalog.list_entries(self.dataset, self.at(number), entry.dir_id):
            key = f"{directory}/{name}" if directory else name
            found |= {key} if child.kind == "object" else self.keys(number, key)
        return found

    def node(self, number: int, key: str) -> int:
        entry = self.catalog.entry(self.dataset, self.at(number), key)
        assert entry is not None and entry.kind == "dir"
        return entry.dir_id

    def chunk(self, number: int, key: str, cell: int) -> Payload | None:
        found = self.catalog.chunk(self.node(number, key), self.at(number), (0, 0), cell)
        return found.payload if found else None


def payload(number: int, length: int = 5) -> Payload:
    return Payload(f"{number:08d}/some/file", number, length, number)


def put(*keys: str, builder: ManifestBuilder | None = None) -> ManifestBuilder:
    builder = builder or ManifestBuilder()
    for key in keys:
        builder.put(key, payload(1), SHA)
    return builder


def commit(catalog: Catalog, dataset: int, number: int, keys: int = 1) -> None:
    builder = ManifestBuilder()
    for i in range(keys):
        builder.put(f"files/{number}/{i}", Payload(f"{number:08d}/files/{i}", 0, 1, i), bytes(32))
    parents = (number - 1,) if number > 1 else ()
    info = VersionInfo(number, parents, 0, 0, number, "", "", f"id{number}")
    catalog.index_version(dataset, info, builder.build(), {}, {RefKind.BRANCH: {"main": number}})
