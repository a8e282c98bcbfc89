"""Owner and mode of every inode, by its dataset's settings and the options of the mount.

Decided here: how a dataset's mode becomes the modes of everything in it, and how soon a change of it is seen. Nodes say
only which of them are directories and can be written. Not here: the stored settings (:mod:`volfs.versions.access`), and
the refusing itself: that is done by the kernel (``default_permissions``).

The dataset's own directory is the door: its attributes are never kept longer than a second, so whoever may not enter
any more is kept out at once, whatever the kernel remembers of the inside. For those who may enter anew, restricted
attributes are remembered for moments only.
"""

from __future__ import annotations

import stat
from collections.abc import Hashable, Iterable

from volfs.errors import VolfsError
from volfs.storage.backend import Tag
from volfs.storage.json_document import load_document
from volfs.storage.store_layout import DATASET_JSON
from volfs.tree.contract.api import TreeOptions
from volfs.tree.contract.attrs import Attr
from volfs.versions.access import CLOSED, Access, access_in
from volfs.versions.store import Store

#: How long the kernel may remember owner and mode of something restricted.
_RESTRICTED = 10.0
_OPEN = Access()


class Ownership:
    """Owner and mode of each dataset. :meth:`look_at` and :meth:`look_again` block, and may run in threads; the others
    answer from what these have read."""

    def __init__(self, store: Store, options: TreeOptions) -> None:
        self._store = store
        self._umask = options.umask
        self._known: dict[str, tuple[Tag | None, Access]] = {}

    def owned(self, attr: Attr, dataset: str) -> Attr:
        """Attributes of an inode in ``dataset`` ("": in none), with the owner and mode that clients see."""
        if self.plain(dataset) or not attr.ino:
            return attr
        access = self.of(dataset)
        mode = attr.mode
        if not stat.S_ISLNK(mode):
            bits = stat.S_IMODE(mode)
            if access.mode is not None:
                bits = _held(bits, access.mode, folder=stat.S_ISDIR(mode))
            mode = stat.S_IFMT(mode) | bits & ~self._umask
        return attr._replace(
            mode=mode,
            uid=attr.uid if access.owner is None else access.owner,
            gid=attr.gid if access.group is None else access.group,
            attr_timeout=min(attr.attr_timeout, _RESTRICTED),
        )

    def plain(self, dataset: str) -> bool:
        """True if nodes of a dataset keep the owner and mode that they say themselves."""
        return not self._umask and self.of(dataset) is _OPEN

    def of(self, dataset: str) -> Access:
        """The settings of a dataset. One whose settings cannot be read is closed to all but its owner."""
        if not dataset:
            return _OPEN
        known = self._known.get(dataset)
        return CLOSED if known is None else known[1]

    def seen(self, dataset: str) -> Hashable:
        """Which state of a dataset's ``dataset.json`` is known: another one after a change of it that was seen."""
        known = self._known.get(dataset)
        return None if known is None else known[0]

    def unseen(self, datasets: Iterable[str]) -> list[str]:
        """Those datasets that :meth:`look_at` has not read yet."""
        return [dataset for dataset in datasets if dataset and dataset not in self._known]

    def look_at(self, datasets: Iterable[str]) -> None:
        """Read the settings of datasets."""
        for dataset in datasets:
            self._known[dataset] = self._read(dataset)

    def look_again(self, dataset: str) -> None:
        """Read the settings of a dataset that was seen before again, if another process has changed them."""
        known = self._known.get(dataset)
        if known is not None:
            self._known[dataset] = self._read(dataset, *known)

    def _read(self, dataset: str, tag: Tag | None = None, access: Access = CLOSED) -> tuple[Tag | None, Access]:
        """What a dataset says: ``access`` if it still has this tag."""
        try:
            backend = self._store.backend_of(dataset)
            found = backend.get(DATASET_JSON, tag)
            if found is None:
                return tag, access
            access = access_in(load_document(found[0], backend.where(DATASET_JSON))[0])
            return found[1], _OPEN if access == _OPEN else access
        except VolfsError:
            return None, CLOSED


def _held(bits: int, mode: int, *, folder: bool) -> int:
    """The permissions of an inode with ``bits`` in a dataset of ``mode``: nobody gets more than ``bits`` allow the
    owner."""
    allowed = mode if folder else mode & 0o666
    if not folder and bits & 0o100:
        allowed |= (mode & 0o444) >> 2  # a program may be run by whoever may read it
    for others in (0o040, 0o004):
        if not bits & others:
            allowed &= ~(others | others >> 1 | others >> 2)  # a private side file stays private
    if not bits & 0o200:
        allowed &= ~0o222
    if not bits & 0o400:
        allowed &= ~0o444
    return allowed
