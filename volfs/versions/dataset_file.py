"""The document ``dataset.json``: the dataset's id, the time it was made, and the branch that is meant when none is
named.

Decided here: the document and its bounds. Who may do what with a dataset stands in it too and is read by
:mod:`volfs.versions.access`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volfs.errors import BadInput, Damaged
from volfs.model.graph import is_time
from volfs.model.names import is_ref_name, is_remote_name
from volfs.storage.backend import Backend, change_document, read_document
from volfs.storage.json_document import dump_document
from volfs.storage.store_layout import DATASET_JSON

DEFAULT_BRANCH = "main"

REMOTES_KEY = "remotes"
"""The member that holds the addresses of remotes."""

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """``id`` distinguishes datasets that have the same name one after the other; "" in a dataset made before there were
    ids, until it is next opened for writing."""

    name: str
    id: str
    created_ns: int
    default_branch: str

    @classmethod
    def read(cls, dataset: Backend, name: str) -> DatasetFile:
        """That of the dataset called ``name``. Raises NotFound, or Damaged. A member that an older volfs did not write
        has its default."""
        return cls.parse(read_document(dataset, DATASET_JSON), name, dataset.where(DATASET_JSON))

    @classmethod
    def parse(cls, document: dict[str, Any], called: str, path: str) -> DatasetFile:
        """See :meth:`read`."""
        name, ident = document.get("name", called), document.get("id", "")
        created, branch = document.get("created_ns", 0), document.get("default_branch", DEFAULT_BRANCH)
        if not isinstance(name, str):
            raise Damaged(f"{path}: its name is not text")
        if not isinstance(ident, str) or not (ident == "" or _ID.fullmatch(ident)):
            raise Damaged(f"{path}: its id is not the id of a dataset")
        if not is_time(created):
            raise Damaged(f"{path}: created_ns is not a time")
        if not isinstance(branch, str) or not is_ref_name(branch):
            raise Damaged(f"{path}: its default branch is not the name of a branch")
        return cls(name, ident, created, branch)

    def is_of(self, created_ns: int, ident: str) -> bool:
        """Whether this is the document of the dataset that was made then and has that id; "": it had none yet."""
        return self.created_ns == created_ns and ident in ("", self.id)

    def write(self, dataset: Backend) -> None:
        """Make the document of a new dataset."""
        facts = {"name": self.name, "id": self.id, "created_ns": self.created_ns, "default_branch": self.default_branch}
        dataset.put(DATASET_JSON, dump_document(facts))


def new_id() -> str:
    """An id that no dataset has."""
    return str(uuid.uuid4())


def checked_dataset_id(ident: str) -> str:
    """An id. BadInput if it cannot be one."""
    if not _ID.fullmatch(ident):
        raise BadInput(f"{ident[:60]!r} cannot be the id of a dataset")
    return ident


def give_id(dataset: Backend, name: str) -> None:
    """Give the dataset called ``name`` an id, if it has none."""

    def with_id(document: dict[str, Any]) -> dict[str, Any] | None:
        made = DatasetFile.parse(document, name, dataset.where(DATASET_JSON))
        return None if made.id else {**document, "id": new_id()}

    change_document(dataset, DATASET_JSON, with_id)


def remotes_in(document: Mapping[str, Any], where: str) -> dict[str, str]:
    """The addresses of a dataset's remotes, by name, in its document. Damaged, beginning with ``where``, if they are
    none."""
    found = document.get(REMOTES_KEY, {})
    if not isinstance(found, dict) or not all(is_remote_name(name) for name in found):
        raise Damaged(f"{where}: its remotes have no names")
    if not all(isinstance(address, str) for address in found.values()):
        raise Damaged(f"{where}: a remote's address is not text")
    return dict(found)
