"""What a store, a dataset, a snapshot, an image and a level show of themselves to Python.

Decided here: that ``dir()`` names what programs outside of volfs may rely on, and nothing else; and that an object
which holds others by name is a mapping of them. Not here: what is in them (:mod:`volfs.versions`,
:mod:`volfs.volume`), and how notebooks show them (:mod:`volfs.python.html`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from volfs.errors import BadInput, NotFound

T = TypeVar("T")
V_co = TypeVar("V_co", covariant=True)


class Public:
    """An object of the public surface. Rooms of volfs use more of it than it shows."""

    #: The names that `docs/python.md` describes. A subclass adds its own.
    PUBLIC: ClassVar[tuple[str, ...]] = ()

    def __dir__(self) -> Iterable[str]:
        named = (name for kind in type(self).__mro__ for name in vars(kind).get("PUBLIC", ()))
        return {*named, *(name for name in super().__dir__() if name.startswith("__"))}

    @abstractmethod
    def _repr_html_(self) -> str:
        """The object as notebooks show it: HTML in which all that comes from the store is escaped."""


class PublicMapping(Public, Mapping[str, V_co]):
    """A mapping that can only be read, of the things in an object by their names.

    It may know more names than it lists: ``dataset["main~3"]``, ``version["labels/nuclei/s1"]``. A name that leads
    nowhere is a NotFound, which is no KeyError, with a word on what there is. Unlike a dictionary it equals only
    itself, and is true when it is empty: it stands for a place in a store.
    """

    PUBLIC: ClassVar[tuple[str, ...]] = ("get", "items", "keys", "values")

    def get(self, key: object, default: Any = None) -> Any:
        """What has that name, or ``default``."""
        try:
            return self[key]  # type: ignore[index]
        except (NotFound, BadInput):
            return default

    def __contains__(self, key: object) -> bool:
        try:
            self[key]  # type: ignore[index]
        except (NotFound, BadInput):
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __bool__(self) -> bool:
        return True

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)
