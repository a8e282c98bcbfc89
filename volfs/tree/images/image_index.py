"""Where the images of a snapshot appear: the hierarchy of ``zarr/`` as directories of levels.

Decided here: which groups lead to an image, and how long that is remembered. A node that cannot be read is left out and
takes nothing else with it. Not here: what makes an image (:mod:`volfs.volume.image`), and the names of directories
(:mod:`volfs.tree.nodes.snapshot`, :mod:`volfs.tree.nodes.level`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from volfs.errors import NotFound, ReadOnly, VolfsError
from volfs.tree.contract.attrs import FOREVER, SOON
from volfs.tree.core.ports import SnapshotState
from volfs.versions.snapshot import ArrayNode, GroupNode, Snapshot
from volfs.views.colour import Window
from volfs.views.slices import SliceGeometry
from volfs.views.volumes.volume_spec import LevelMeta
from volfs.volume.image import Image, image_at
from volfs.volume.level import Level
from volfs.volume.plan import leads_on, subdirectories

#: How long a walk through a branch's hierarchy is good while chunks change all the time.
_WALK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Walk:
    """The result of a walk through the hierarchy: paths of images, and below each group the names that lead to one."""

    generation: Hashable
    when: float
    held: bool
    images: frozenset[str]
    below: dict[str, tuple[str, ...]]
    #: Arrays that are levels: the image, and the level's name.
    levels: dict[str, tuple[str, str]]
    #: Those of them that follow s0.
    following: frozenset[str]


class Committed:
    """The state of a version, which never changes."""

    held = False
    writable = False

    def __init__(self, ref: str) -> None:
        self._ref = ref

    def walk_lost(self) -> None:
        """Nothing changes here."""

    def walk_made(self) -> None:
        """Nothing changes here."""

    def refusal(self) -> VolfsError:
        return ReadOnly(f"{self._ref} never changes: write into a branch")


class ImageIndex:
    """The images of one snapshot. ``path`` is the snapshot's own directory, ``state`` the mounted branch; None for a
    version.

    Thread-safe: walking happens in worker threads.
    """

    def __init__(self, snapshot: Snapshot, path: str, state: SnapshotState | None = None) -> None:
        self.snapshot = snapshot
        self.path = path
        #: Whether images have thumbnails. They are rendered to be listed, since that tells their size.
        self.pictured = True
        #: True if nothing here ever changes.
        self.lasting = state is None
        self.state: SnapshotState = state or Committed(snapshot.ref)
        #: How long (s) clients may keep names and attributes.
        self.timeout = FOREVER if self.lasting else SOON
        #: Of previews: by the path of an image, and the channel, with the generation that they are of; and when they
        #: changed last, by the path of an image.
        self.windows: dict[tuple[str, int], tuple[Hashable, Window]] = {}
        self.window_times: dict[str, int] = {}
        self._mutex = threading.Lock()
        self._walk: Walk | None = None
        #: Another with every forget().
        self._asked = object()
        self._geometries: dict[tuple[str, str], tuple[Level, SliceGeometry | None]] = {}
        self._metas: dict[tuple[str, str], tuple[Level, Walk, LevelMeta]] = {}

    @property
    def cold(self) -> bool:
        walk = self._walk
        if walk is None:
            return True
        if self.lasting or time.monotonic() - walk.when < _WALK_SECONDS:
            return False
        # The branch's only writer knows when metadata changes: see forget().
        if walk.held and self.state.held:
            return False
        return walk.generation != self.snapshot.generation()

    def load(self) -> None:
        with self._mutex:
            if self.cold:
                asked, walk = self._asked, self._look_around()
                self._walk = walk
                self.state.walk_made()
                if asked is not self._asked:  # looked at after it is stored: forget() goes the other way
                    self._walk = replace(walk, when=-math.inf, held=False)
                    self.state.walk_lost()

    def forget(self) -> None:
        """Record that metadata changed: the next question walks again, also if a walk under way has passed it
        already."""
        self._asked = object()
        self._walk = None
        self.state.walk_lost()

    # -- what there is ----------------------------------------------------------------------------------------------

    def image(self, path: str) -> Image | None:
        """The image at a hierarchy path; None if there is none that can be read."""
        try:
            return image_at(self.snapshot, path)
        except VolfsError:
            return None

    def below(self, path: str) -> tuple[str, ...]:
        """Names in a group that are images or lead to some."""
        return self._walked().below.get(path, ())

    def images(self) -> list[Image]:
        """All images, the root's first."""
        found = (self.image(path) for path in sorted(self._walked().images))
        return [image for image in found if image is not None]

    def following(self) -> Iterable[str]:
        """Paths of the arrays whose level follows s0: in a branch, those of the images that volfs manages."""
        return self._walked().following

    @property
    def certain(self) -> bool:
        """True if the last walk is right for as long as nobody says otherwise."""
        walk = self._walk
        return walk is not None and walk.held

    def is_known_to_follow(self, array: str | None) -> bool:
        """True if the level that has its array at a path follows s0, by the last walk: without another one."""
        walk = self._walk
        return walk is not None and array in walk.following

    def follower(self, array: str) -> Level | None:
        """The level that follows s0 and has its array at a path."""
        level = self.level_of(array) if array in self._walked().following else None
        return level if level is not None and level.derived else None

    def level_of(self, array: str) -> Level | None:
        """The level that has its array at a path."""
        found = self._walked().levels.get(array)
        image = self.image(found[0]) if found is not None else None
        return image.level(found[1]) if image is not None and found is not None else None

    def level(self, path: str, name: str) -> Level:
        """A level of an image. Raises NotFound."""
        image = self.image(path)
        level = image.level(name) if image is not None else None
        if level is None:
            raise NotFound(f"there is no level {name} of an image at {path or '/'}")
        return level

    def geometry(self, path: str, name: str) -> tuple[Level, SliceGeometry | None]:
        """A level and how its slices lie; None for the latter where it has none."""
        level = self.level(path, name)
        known = self._geometries.get((path, name))
        if known is None or known[0] is not level:
            image = self.image(path)
            known = self._geometries[path, name] = level, geometry_of(level, rgb=image is not None and image.rgb)
        return known

    def meta(self, path: str, name: str) -> LevelMeta | None:
        """The level's metadata, as format modules need it; None where it has no planes. Raises NotFound."""
        level, geometry = self.geometry(path, name)
        image = self.image(path)
        if geometry is None or image is None:
            return None
        known = self._metas.get((path, name))
        walk = self._walked()  # names of channels and the like change without the level
        if known is None or known[0] is not level or known[1] is not walk:
            finest, node = image.levels[0], self.snapshot.node(path)
            meta = LevelMeta(
                geometry,
                level.axes,
                level.scale,
                level.translation,
                finest.scale,
                finest.translation,
                node.attributes if isinstance(node, GroupNode) else finest.array.meta.attributes,
                is_label=image.is_label,
                title=image.name,
            )
            known = self._metas[path, name] = level, walk, meta
        return known[2]

    def relative(self, directory: str) -> str:
        """The path of a directory of the snapshot, from the snapshot on."""
        return directory[len(self.path) + 1 :]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _walked(self) -> Walk:
        while (walk := self._walk) is None:
            self.load()  # and somebody may forget it at once
        return walk

    def _look_around(self) -> Walk:
        generation, when = self.snapshot.generation(), time.monotonic()
        held = self.state.held
        images: set[str] = set()
        below: dict[str, tuple[str, ...]] = {}
        self._visit("", images, below)
        levels: dict[str, tuple[str, str]] = {}
        following: set[str] = set()
        for path in images:
            image = self.image(path)
            for level in image.levels if image is not None else ():
                levels[level.array.path] = path, level.name
                if level.derived:
                    following.add(level.array.path)
        return Walk(generation, when, held, frozenset(images), below, levels, frozenset(following))

    def _visit(self, path: str, images: set[str], below: dict[str, tuple[str, ...]]) -> bool:
        """Collect the images at and below a path. True if there is one."""
        try:
            node = self.snapshot.node(path)
        except VolfsError:
            return False
        if not isinstance(node, ArrayNode) and not leads_on(self.snapshot, path, node):
            return False
        if self.image(path) is not None:
            images.add(path)
        if isinstance(node, ArrayNode):
            return path in images
        prefix = f"{path}/" if path else ""
        names = [name for name in self._subdirectories(path) if self._visit(prefix + name, images, below)]
        if names:
            below[path] = tuple(names)
        return bool(names) or path in images

    def _subdirectories(self, path: str) -> list[str]:
        try:
            return subdirectories(self.snapshot, path)
        except VolfsError:
            return []


def geometry_of(level: Level, *, rgb: bool) -> SliceGeometry | None:
    """How the slices of a level lie."""
    return SliceGeometry.of(
        [axis.name for axis in level.axes],
        level.shape,
        level.dtype,
        scale=level.scale,
        units=[axis.unit for axis in level.axes],
        rgb=rgb,
    )
