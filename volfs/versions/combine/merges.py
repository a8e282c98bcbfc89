"""Merge, cherry-pick, revert, rebase, restore, mv and resolve, on a branch.

Decided here: which versions are bases and which is theirs, when a branch is merely moved forward, the messages, and
that a repeat of what was done does nothing. Each is a call of one engine (:mod:`volfs.versions.combine.combination`).
Not here: who may act on the branch (:mod:`volfs.versions.branch_actions`), and the words of a request
(:mod:`volfs.versions.combine.requests`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from volfs.errors import AlreadyThere, BadInput, Conflict, MergeConflict, NotFound
from volfs.model.graph import VersionInfo
from volfs.model.names import check_key, check_ref_name
from volfs.model.refs import RefKind
from volfs.versions.combine.combination import Progress
from volfs.versions.combine.combined_version import Change, Words, combined, combined_newest, sides_of
from volfs.versions.combine.decisions import OpenConflict, Orders
from volfs.versions.combine.key_selection import Selection, parse_box
from volfs.versions.combine.rebase import rebased
from volfs.versions.combine.relocation import check_move, write_move
from volfs.versions.combine.requests import Request
from volfs.versions.combine.resolution import resolve
from volfs.versions.commit.movement import base_of, moved
from volfs.versions.commit.overlap import CommittedSide, Overlap, WorkingSide, named, overlap
from volfs.versions.commit.placement import publish_prepared
from volfs.versions.commit.protocol import settle_own
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.committed.version_files import VersionFiles, read_version
from volfs.versions.working.union import Union

_TRIES = 5
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Combined:
    """What came of a request. ``version``: where the branch stands now, None if it has no version. ``made``: whether it
    has moved. ``conflicts``: what is in the way; then nothing has changed. ``left_open``: what ``version``, made on a
    branch of its own, leaves to be decided. ``notes``: what the user should know."""

    version: VersionInfo | None
    made: bool = False
    conflicts: tuple[OpenConflict, ...] = ()
    left_open: tuple[OpenConflict, ...] = ()
    notes: tuple[str, ...] = ()


def carry_out(branch: WritableBranch, request: Request, progress: Progress = lambda done, total: None) -> Combined:
    """Do what is asked. The caller holds the branch's lock.

    BadInput, NotFound, or Conflict (the branch moved, or uncommitted changes are in the way); nothing has changed then.
    """
    with branch.turn:
        settle_own(branch)
        branch.follow()
    if request.on is not None:
        check_ref_name(request.on)
        if request.kind == "rebase":
            _check_free(branch, request.on)
    for left in range(_TRIES - 1, -1, -1):
        head = branch.head
        try:
            match request.kind:
                case "merge":
                    return _merge(branch, head, request, progress)
                case "cherry-pick" | "revert":
                    return _pick(branch, head, request, progress)
                case "restore":
                    return _restore(branch, head, request, progress)
                case "rebase":
                    return _rebase(branch, head, request, progress)
                case "mv":
                    return _mv(branch, head, request)
                case "resolve":
                    return _resolve(branch, request)
        except Conflict as error:
            # Threads of this process that hold the lock too may have moved it.
            if not left or isinstance(error, MergeConflict) or branch.head == head:
                raise
    raise AssertionError("unreachable")


def combine_onto(branch: WritableBranch, change: Change, words: Words, orders: Orders) -> Combined:
    """Make a version of what a change does to the branch's head, whatever its bases are. The caller holds the branch's
    lock. Raises as :func:`carry_out`."""
    with branch.turn:
        settle_own(branch)
        branch.follow()
    head = branch.head
    if head is None:
        raise NotFound(f"branch {branch.ref!r} has no version yet")
    for number in (*change.bases, change.theirs):
        _check_closed(branch, head, number)
    with combined(branch, head.number, change, orders) as changes:
        if changes.found.conflicts:
            return Combined(head, conflicts=tuple(changes.found.conflicts))
        if changes.empty:
            return Combined(head, notes=("there is nothing to change",))
        return Combined(changes.commit(words), made=True)


def refused(request: Request, branch: str, conflicts: Sequence[OpenConflict]) -> MergeConflict:
    """The error that names what is in conflict."""
    listed = "; ".join(map(str, conflicts[:_NAMED]))
    more = f"; and {len(conflicts) - _NAMED:,} more" if len(conflicts) > _NAMED else ""
    return MergeConflict(
        f"{request.kind} onto {branch!r}: both sides changed the same, and nothing was changed: {listed}{more}; decide"
        " with --ours or --theirs, for all or by key or box, or keep them on a branch with --on"
    )


def _merge(branch: WritableBranch, head: VersionInfo | None, request: Request, progress: Progress) -> Combined:
    if request.newest:
        return _lay(branch, head, request)
    dataset = branch.dataset
    ref = request.refs[0]
    theirs = dataset.resolve(ref)
    graph = dataset.graph
    _check_closed(branch, head, theirs)
    if head is None or graph.is_ancestor(head.number, theirs):
        if head is not None and head.number == theirs:
            return Combined(head, notes=(f"{branch.ref} is at v{theirs} already",))
        if head is None or not (request.no_ff or request.squash or request.on):
            return _forward(branch, head, theirs, f"merge {ref}: fast-forward")
    elif graph.is_ancestor(theirs, head.number):
        return Combined(head, notes=(f"{branch.ref} has v{theirs} already",))
    bases = graph.merge_bases(head.number, theirs)
    if not bases and not request.allow_unrelated:
        raise BadInput(
            f"v{theirs} and branch {branch.ref!r} have no version in common: to merge them all the same, say"
            " --allow-unrelated"
        )
    message = request.message or f"{'squash' if request.squash else 'merge'} {ref}"
    words = Words(message, request.author, what="merge")
    extra = () if request.squash else (theirs,)
    return _make(branch, head, Change(bases, theirs), words, request, progress, extra=extra)


def _lay(branch: WritableBranch, head: VersionInfo | None, request: Request) -> Combined:
    """Each chunk and key from the highest version that changed it, of the branch and of any number of others."""
    dataset, graph = branch.dataset, branch.dataset.graph
    if head is None:
        raise NotFound(f"branch {branch.ref!r} has no version yet")
    numbers = dict.fromkeys(map(dataset.resolve, request.refs))
    for number in numbers:
        _check_closed(branch, head, number)
        if not request.allow_unrelated and not graph.merge_bases(head.number, number):
            raise BadInput(
                f"v{number} and branch {branch.ref!r} have no version in common: to merge them all the same, say"
                " --allow-unrelated"
            )
    others = [number for number in numbers if not graph.is_ancestor(number, head.number)]
    if not others:
        return Combined(head, notes=(f"{branch.ref} has all of it already",))
    message = request.message or f"merge the newest of {', '.join(request.refs)}"
    words = Words(message, request.author, what="merge --newest")
    with combined_newest(branch, head.number, others) as changes:
        return Combined(changes.commit(words, () if request.squash else others), made=True)


def _forward(branch: WritableBranch, head: VersionInfo | None, number: int, why: str) -> Combined:
    """Have the branch name another version that exists. Conflict if uncommitted changes are in the way."""
    dataset, there = branch.dataset, head.number if head is not None else 0

    def see(union: Union) -> Overlap:
        base = base_of(union)
        movement = moved(dataset, union.base_number, number)
        return overlap(
            base, WorkingSide(union, branch.interpreter), CommittedSide(base, dataset.version(number), movement)
        )

    keys = sorted(branch.working.look(see).keys)
    if keys:
        raise Conflict(f"branch {branch.ref!r} has uncommitted changes to keys that v{number} changes: {named(keys)}")
    with branch.turn:
        dataset.forward_branch(branch.ref, number, there, why)
        branch.follow()
    return Combined(dataset.info(number), made=True)


def _rebase(branch: WritableBranch, head: VersionInfo | None, request: Request, progress: Progress) -> Combined:
    dataset = branch.dataset
    onto = dataset.resolve(request.refs[0])
    _check_closed(branch, head, onto)
    aside = request.on is not None and head is not None
    if not aside and (head is None or dataset.graph.is_ancestor(head.number, onto)):
        if head is not None and head.number == onto:
            return Combined(head, notes=(f"{branch.ref} is at v{onto} already",))
        return _forward(branch, head, onto, f"rebase: onto {request.refs[0]}")
    assert head is not None, "a branch without versions has moved forward"
    if not aside and dataset.graph.is_ancestor(onto, head.number):
        return Combined(head, notes=(f"{branch.ref} stands on v{onto} already",))
    if not dataset.graph.merge_bases(head.number, onto):
        raise BadInput(f"v{onto} and branch {branch.ref!r} have no version in common")

    def move(tip: int) -> None:
        if request.on is None:
            _forward(branch, head, tip, f"rebase: onto {request.refs[0]}")
        else:
            dataset.create_branch(request.on, tip)

    tip, conflicts = rebased(branch, head, onto, request, progress, move)
    if request.on is not None:
        return Combined(dataset.info(tip), made=True, left_open=conflicts)
    return Combined(head, conflicts=conflicts) if conflicts else Combined(branch.head, made=True)


def _mv(branch: WritableBranch, head: VersionInfo | None, request: Request) -> Combined:
    if head is None:
        raise NotFound(f"branch {branch.ref!r} has no version yet")
    _check_closed(branch, head, head.number)
    old, new = (key.strip("/") for key in request.keys)
    version = branch.dataset.version(head.number)
    if version.entry(old) is None and version.entry(new) is not None and head.message == f"mv {old} {new}":
        return Combined(head, notes=("there is nothing to change",))  # a repeat
    check_move(version, old, new)
    with VersionWriter(branch.dataset, branch.ref, head.number) as writer:
        write_move(writer, version, old, new)
        writer.prepare(request.message or f"mv {old} {new}", request.author)
        info = publish_prepared(branch, writer.number, writer.draft.token, "mv")
        writer.placed()
    return Combined(info, made=True)


def _pick(branch: WritableBranch, head: VersionInfo | None, request: Request, progress: Progress) -> Combined:
    dataset = branch.dataset
    if head is None:
        raise NotFound(f"branch {branch.ref!r} has no version yet")
    number = dataset.resolve(request.refs[0])
    _check_closed(branch, head, number)
    info = dataset.info(number)
    before = _mainline(info, request.mainline)
    meta: Mapping[str, str] | None = None
    if request.kind == "revert":
        if not dataset.graph.is_ancestor(number, head.number):
            raise BadInput(f"branch {branch.ref!r} does not have v{number}: there is nothing to revert")
        change = Change((number,), before)
        title = info.message.partition("\n")[0]
        message = f'Revert "{title}"\n\nThis reverts v{number}.'
    else:
        change = Change((before,) if before else (), number)
        message = f"{info.message}\n\n(cherry picked from v{number})"
        meta = read_version(VersionFiles.of(dataset.objects, number)).meta
    author = request.author or (info.author if request.kind == "cherry-pick" else None)
    return _make(branch, head, change, Words(request.message or message, author, meta, request.kind), request, progress)


def _done_aside(
    branch: WritableBranch, head: VersionInfo, words: Words, request: Request, extra: Sequence[int]
) -> Combined | None:
    """What a request with ``--on`` answers that is repeated: the branch is there, as it has left it. AlreadyThere for
    any other of that name."""
    dataset = branch.dataset
    number = 0 if request.on is None else dataset.refs().heads.get(request.on, 0)
    if request.on is None or not number:
        if request.on is not None:
            _check_free(branch, request.on)
        return None
    info = dataset.info(number)
    same = info.parents[1:] == tuple(extra) if extra else True
    if info.parents[:1] != (head.number,) or info.message != words.message or not same:
        _check_free(branch, request.on)
    left = tuple(map(OpenConflict.of_json, dataset.conflicts(info.number)))
    return Combined(info, left_open=left, notes=(f"branch {request.on!r} has it already",))


def _check_free(branch: WritableBranch, name: str) -> None:
    if any(branch.dataset.ledger.has_ref(kind, name) for kind in RefKind):
        raise AlreadyThere(f"there is a branch or a tag {name!r} already: --on makes a new branch")


def _mainline(info: VersionInfo, mainline: int | None) -> int:
    """The parent that a version's changes are counted from; 0 for one without parents."""
    if mainline is None:
        if len(info.parents) > 1:
            raise BadInput(
                f"v{info.number} is a merge of {', '.join(f'v{n}' for n in info.parents)}: say with -m 1, 2, … from"
                " which of them its changes count"
            )
        return next(iter(info.parents), 0)
    if not 1 <= mainline <= len(info.parents):
        raise BadInput(f"v{info.number} has {len(info.parents)} parents: there is no -m {mainline}")
    return info.parents[mainline - 1]


def _restore(branch: WritableBranch, head: VersionInfo | None, request: Request, progress: Progress) -> Combined:
    assert request.source is not None
    if head is None:
        raise NotFound(f"branch {branch.ref!r} has no version yet")
    number = branch.dataset.resolve(request.source)
    _check_closed(branch, head, number)
    keys = tuple(key.strip("/") for key in request.keys)
    for key in keys:
        if key not in ("zarr", "files"):
            check_key(key)
    box = None if request.box is None else parse_box(request.box)
    if request.box is not None and box is None:
        raise BadInput(f"{request.box!r} is no box: write one such as z10-40_y0-64_x128-192")
    versions = [branch.dataset.version(each) for each in (head.number, number)]
    for key in keys:
        if not any(version.stat(key) for version in versions):
            raise NotFound(f"{key} is neither in v{number} nor in branch {branch.ref!r}")
    change = Change((head.number,), number, Selection(keys, box))
    where = "" if request.box is None else f" {request.box}"
    message = request.message or f"restore {' '.join(keys)}{where} from v{number}"
    words = Words(message, request.author, what="restore")
    return _make(branch, head, change, words, request, progress)


def _resolve(branch: WritableBranch, request: Request) -> Combined:
    assert request.choice is not None
    head = branch.head
    if head is not None and not branch.dataset.conflicts(head.number):
        return Combined(head, notes=(f"v{head.number} of branch {branch.ref!r} has no open conflicts",))
    info, left = resolve(branch, request.choice, request.keys)
    return Combined(info, made=True, left_open=left)


def _check_closed(branch: WritableBranch, head: VersionInfo | None, theirs: int) -> None:
    """Raise BadInput if either side is a version with open conflicts."""
    if head is not None and branch.dataset.is_open(head.number):
        raise BadInput(f"branch {branch.ref!r} has open conflicts: close them first with `volfs resolve`")
    if branch.dataset.conflicts(theirs):
        raise BadInput(f"v{theirs} has open conflicts: close them first with `volfs resolve`, on its branch")


def _make(
    branch: WritableBranch,
    head: VersionInfo,
    change: Change,
    words: Words,
    request: Request,
    progress: Progress,
    *,
    extra: Sequence[int] = (),
) -> Combined:
    """Make the version. One that would be the same as the head is made only to have its parents."""
    orders: Orders = request.decided
    if (done := _done_aside(branch, head, words, request, extra)) is not None:
        return done
    ids = "ignore" if request.kind == "restore" else request.ids
    with combined(branch, head.number, change, orders, progress, ids) as changes:
        found = changes.found
        notes = tuple(
            f"volfs does not keep the coarser levels of {path or 'the image at the root'}: they were merged as arrays"
            for path in sorted(found.unmanaged)
        )
        notes += tuple(
            f"labels of {path} that both sides have made have other ids now: "
            + ", ".join(f"{old} became {new}" for old, new in sorted(fresh.items()))
            for path, fresh in sorted(found.renumbered.items())
        )
        conflicts = tuple(sorted(found.conflicts, key=lambda each: (each.key, str(each))))
        if request.on is not None:
            if request.kind != "merge":  # whose parents are both sides
                sides = sides_of(branch.dataset, change, head.number)
                conflicts = tuple(replace(each, of=sides) for each in conflicts)
                extra = (change.theirs or change.bases[0],) if conflicts else ()
            made = changes.commit_aside(words, extra, request.on, conflicts)
            return Combined(made, made=True, left_open=conflicts, notes=notes)
        if conflicts:
            return Combined(head, conflicts=conflicts)
        if changes.empty and not extra:
            return Combined(head, notes=("there is nothing to change",))
        return Combined(changes.commit(words, extra), made=True, notes=notes)
