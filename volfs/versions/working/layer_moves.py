"""Moves of layers: the top of a working copy is frozen for a commit, and later dropped or merged back.

Decided here: the renames by which layers come, merge and go, such that a reader in any process sees the same union
after every single one, and so that a crash between any two leaves a union that reads right. Not here: when this happens
(:mod:`volfs.versions.commit.protocol`, :mod:`volfs.versions.commit.recover`), and how readers notice
(:mod:`volfs.versions.working.union`, :mod:`volfs.versions.working.working_copy`).

Everything here works on directories alone, for recovery too. The caller holds the branch's lock; in a process with a
:class:`~volfs.versions.working.working_copy.WorkingCopy`, go through its methods, which keep writers out meanwhile.

    freeze      top → frozen-N under an empty top; files that are being written move back up (and stay open)
    merge_back  frozen-N → top again, where the top says nothing newer: a commit that did not happen
    drop        frozen-N is removed: a commit that is the head now
    forget      the top's part at and below a key is removed: a discard
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from volfs.errors import AlreadyThere
from volfs.model.graph import VersionInfo
from volfs.storage.files import fsync_dir, make_dirs, make_file, read_file
from volfs.storage.store_layout import WorkingLayout
from volfs.versions.working.base_file import Base, BaseFile, Pin
from volfs.versions.working.layer import (
    BLOCKED,
    SPACES,
    Layer,
    delete_tree,
    exchange,
    make_layer,
    scratch_dir,
    scratch_name,
)
from volfs.versions.working.union import Union


def prepare(layout: WorkingLayout) -> None:
    """Make the top and the scratch directory, and empty the scratch directory of a dead writer's files."""
    scratch = scratch_dir(layout)
    try:
        left = os.listdir(scratch)
    except FileNotFoundError:
        make_dirs(layout.root)
        Path(scratch).mkdir()
        left = []
    if left:
        settle_scratch(layout)
    if not layout.top.root.is_dir():
        os.rename(make_layer(layout), layout.top.root)
        fsync_dir(layout.root)


def settle_scratch(layout: WorkingLayout) -> None:
    """Finish whiteouts that were made in two steps and cut short between them, then empty the scratch directory."""
    scratch = scratch_dir(layout)
    for note in Path(scratch).glob("hide-*.path"):
        place = os.path.normpath(os.path.join(scratch, os.fsdecode(read_file(note))))
        if place.startswith(f"{layout.root}/") and not os.path.lexists(place):
            with suppress(FileNotFoundError):
                make_file(place)
        note.unlink()
    for name in os.listdir(scratch):
        delete_tree(f"{scratch}/{name}")


def freeze(layout: WorkingLayout, number: int, leave: Iterable[str] = ()) -> None:
    """Make the top the frozen layer of version ``number``, under a fresh top.

    ``leave``: keys, files or whole directories, that stay uncommitted: they move into the fresh top with the whiteouts
    on and below them. Open file descriptors stay valid.
    """
    frozen, top = Layer(str(layout.frozen(number).root)), Layer(str(layout.top.root))
    if os.path.lexists(frozen.root):
        raise AlreadyThere(f"{frozen.root} is there already: a commit of version v{number} has not been recovered")
    fresh = make_layer(layout)
    os.rename(top.root, frozen.root)
    os.rename(fresh, top.root)
    for key in sorted(set(leave)):
        move(frozen, top, key, scratch_dir(layout))
    fsync_dir(layout.root)


def rest_on(layout: WorkingLayout, base: BaseFile, head: VersionInfo | None) -> None:
    """Make the head the base of the working copy. No document is written if nothing lies over it."""
    if is_pristine(Layer(str(layout.top.root))):
        base.remove()
    else:
        base.write(Base(Pin.of(head)))


def is_pristine(top: Layer) -> bool:
    """Whether a top layer has nothing in it, and nothing was discarded from it: no time in it counts."""
    return top.empty() and not top.discards()


def merge_back(layout: WorkingLayout, number: int) -> None:
    """Undo :func:`freeze`: the frozen layer moves back into the top, except for keys that changed since.

    Nothing to do if there is no such layer. May be repeated after a crash.
    """
    frozen, top = Layer(str(layout.frozen(number).root)), Layer(str(layout.top.root))
    if not os.path.isdir(frozen.root):
        return
    prepare_scratch(layout)
    if not os.path.isdir(top.root):
        os.rename(frozen.root, top.root)
    elif top.empty():
        aside = scratch_name(layout)
        os.rename(top.root, aside)
        os.rename(frozen.root, top.root)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        for space in SPACES:
            move(frozen, top, space, scratch_dir(layout))
        for key, time_ns in frozen.discards():
            top.note_discard(key, time_ns)
        _bury(layout, frozen.root)
    fsync_dir(layout.root)


def drop(layout: WorkingLayout, number: int, in_head: Callable[[str], bool] | None = None) -> None:
    """Remove the frozen layer: the base holds all its content. Call once readers can see that version.

    Directories without files are no part of a version; those that ``in_head`` does not know move to the top, so that
    their makers find them again. Nothing to do if there is no such layer. May be repeated after a crash.
    """
    frozen, top = Layer(str(layout.frozen(number).root)), Layer(str(layout.top.root))
    if not os.path.isdir(frozen.root):
        return
    prepare_scratch(layout)
    if os.path.isdir(top.root):
        for key in _bare_directories(frozen):
            if top.stat(key) is None and not top.hides(key) and not (in_head is not None and in_head(key)):
                with suppress(FileExistsError, NotADirectoryError):
                    _make_folders(frozen, top, key)
    _bury(layout, frozen.root)
    fsync_dir(layout.root)


def forget(layout: WorkingLayout, top: Layer, key: str) -> None:
    """Throw away the top's files and whiteouts at and below ``key``."""
    for path in (top.path(key), top.whiteout_path(key)):
        if key not in SPACES:
            _bury(layout, path)
        else:
            with suppress(FileNotFoundError, NotADirectoryError):
                for name in os.listdir(path):
                    _bury(layout, f"{path}/{name}")


def uncover(layout: WorkingLayout, top: Layer, below: Union, key: str) -> None:
    """Where the top hides an ancestor of ``key``, have it hide everything there but the way to ``key``."""
    ancestor = key.rpartition("/")[0]
    while ancestor and not os.path.lexists(top.whiteout_path(ancestor)):
        ancestor = ancestor.rpartition("/")[0]
    if not ancestor or not stat.S_ISREG((found := os.lstat(top.whiteout_path(ancestor))).st_mode):
        return
    build = scratch_name(layout)
    os.mkdir(build)
    folder = ancestor
    for step in key[len(ancestor) + 1 :].split("/"):
        entry = below.entry(folder)
        for name in below.names(folder) if entry is not None and entry.kind == "dir" else ():
            if name != step:
                path = Path(f"{build}{folder[len(ancestor) :]}/{name}")
                make_file(path)
                os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))
        folder = f"{folder}/{step}"
        if folder != key:
            os.mkdir(f"{build}{folder[len(ancestor) :]}")
    exchange(build, top.whiteout_path(ancestor))
    delete_tree(build)


def prepare_scratch(layout: WorkingLayout) -> None:
    """Make the scratch directory if it is not there."""
    Path(scratch_dir(layout)).mkdir(exist_ok=True)


def move(lower: Layer, upper: Layer, key: str, scratch: str) -> None:
    """Move ``key`` and everything below it from a layer to the one right above, where newer keys stay.

    Files go before whiteouts: a whiteout left below hides nothing that a file above shows, the reverse would.
    """
    _move_put(lower, upper, key)
    _move_whiteouts(lower, upper, key, scratch)


def _move_put(lower: Layer, upper: Layer, key: str) -> None:
    mine = lower.stat(key)
    theirs = upper.stat(key)
    if mine is None or mine is BLOCKED or theirs is BLOCKED or upper.hides(key):
        return
    assert isinstance(mine, os.stat_result)
    folder = stat.S_ISDIR(mine.st_mode)
    # A directory moves whole only where the upper layer has no whiteouts in it: they hide the layers below, and would
    # not hide names that moved in beside them.
    if theirs is None and not (folder and os.path.lexists(upper.whiteout_path(key))):
        _make_folders(lower, upper, key.rpartition("/")[0])
        os.rename(lower.path(key), upper.path(key))
        return
    if not folder or (isinstance(theirs, os.stat_result) and not stat.S_ISDIR(theirs.st_mode)):
        return
    if theirs is None:
        _make_folders(lower, upper, key)
    for name in os.listdir(lower.path(key)):
        _move_put(lower, upper, f"{key}/{name}")


def _make_folders(lower: Layer, upper: Layer, key: str) -> None:
    """Make a directory in the upper layer, and those above it, with the permission bits they have in the lower one."""
    if not key or isinstance(upper.stat(key), os.stat_result):
        return
    _make_folders(lower, upper, key.rpartition("/")[0])
    os.mkdir(upper.path(key))
    mine = lower.stat(key)
    if isinstance(mine, os.stat_result):
        os.chmod(upper.path(key), stat.S_IMODE(mine.st_mode))


def _move_whiteouts(lower: Layer, upper: Layer, key: str, scratch: str) -> None:
    path = lower.whiteout_path(key)
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if upper.hides(key):
        return
    if not stat.S_ISDIR(found.st_mode):
        upper.hide(key, scratch, time_ns=found.st_mtime_ns)
        os.unlink(path)
        return
    for name in os.listdir(path):
        _move_whiteouts(lower, upper, f"{key}/{name}", scratch)


def _bare_directories(layer: Layer) -> Iterator[str]:
    """Directories with nothing at all below them."""
    for space in SPACES:
        for folder, folders, files in os.walk(layer.path(space)):
            if not folders and not files and folder != layer.path(space):
                yield f"{space}/{os.path.relpath(folder, layer.path(space))}"


def _bury(layout: WorkingLayout, path: str) -> None:
    """Gone at once under its name, then deleted."""
    grave = scratch_name(layout)
    with suppress(FileNotFoundError, NotADirectoryError):
        os.rename(path, grave)
        delete_tree(grave)
