"""The file of a branch or a tag: the version that it names, by number and by content id.

Decided here: the document, and that a ref which names something other than the version of its number is damaged. Not
here: when a ref moves (:mod:`volfs.versions.commit.publish`), and which refs a dataset has
(:mod:`volfs.versions.dataset`).

A number alone would let one flipped bit show another version. A ref without content id was written by an older volfs or
by a person, ``{"version": 12}``, and is taken at its word; that is also how a damaged one is mended by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from volfs.errors import Damaged
from volfs.model.names import MAX_VERSION
from volfs.storage.files import read_document, write_json
from volfs.versions.ledger import RefRecord

_CONTENT_ID = re.compile("[0-9a-f]{64}")


def read_ref(path: Path) -> RefRecord:
    """Read a ref. Raises NotFound, or Damaged with how to mend it."""
    try:
        document, summed = read_document(path)
    except Damaged as error:
        raise Damaged(f"{error}; {how_to_mend(path)}") from None
    version, content_id = document.get("version"), document.get("content_id")
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= MAX_VERSION:
        raise Damaged(f"{path} does not name a version; {how_to_mend(path)}")
    if content_id is not None and not (isinstance(content_id, str) and _CONTENT_ID.fullmatch(content_id)):
        raise Damaged(f"the content id in {path} is not 64 hexadecimal digits; {how_to_mend(path)}")
    return RefRecord(version, content_id, sealed=summed and (content_id is not None or not version))


def write_ref(path: Path, record: RefRecord) -> None:
    """Make a ref name a version, durably and atomically. Only a branch without a version has no ``content_id``."""
    write_json(path, {"version": record.version} | ({"content_id": record.content_id} if record.version else {}))


def how_to_mend(where: str | Path) -> str:
    """How a person mends a damaged ref: the end of an error message."""
    path = Path(where)
    return f'to mend it, write {{"version": 12}} into it, with the right number ({path.parent.name}/{path.name})'
