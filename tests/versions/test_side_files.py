"""Side files as git keeps files: permission bits, links and times, in the working copy, through a commit and read back.

What programs do with them through a mount is in ``tests/fuse/test_side_files.py``.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.mounts import answer, volfs
from tests.kits.stores import tree_of
from volfs import open_store
from volfs.errors import AlreadyThere, NotAllowed, NotFound, NothingToCommit, VolfsError, WrongKind
from volfs.storage.manifest import Op, Record
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.dataset import Dataset
from volfs.versions.snapshot import Snapshot
from volfs.versions.store import Store

LONG_AGO = 1_234_567_890_123_456_789

pytestmark = pytest.mark.usefixtures("stays_whole")


def make(branch: Branch, key: str, data: bytes = b"data", mode: int = 0o644, mtime_ns: int | None = None) -> None:
    with branch.writing():
        branch.put(key, data)
        branch.working.chmod(key, mode)
        if mtime_ns is not None:
            branch.working.utimens(key, mtime_ns, mtime_ns)


def mode(snapshot: Snapshot, key: str) -> int:
    info = snapshot.stat(key)
    assert info is not None
    return info.mode


def records(dataset: Dataset, number: int) -> list[Record]:
    return list(read_manifest(VersionFiles.of(dataset.objects, number)))


# -- permission bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o755, 0o600, 0o444, 0o555, 0o400, 0o640, 0o666, 0o777])
def test_permission_bits_are_those_that_were_given_in_the_branch_and_in_the_version(
    dataset: Dataset, branch: Branch, bits: int
) -> None:
    make(branch, "files/f", mode=bits)
    branch.commit("f")
    assert branch.is_clean()
    assert mode(branch, "files/f") == bits == mode(dataset.version(1), "files/f")


@pytest.mark.parametrize(
    ("given", "kept"), [(0o4755, 0o755), (0o2711, 0o711), (0o1666, 0o666), (0, 0o400), (0o44, 0o444)]
)
def test_the_owner_can_always_read_and_bits_beyond_the_nine_are_not_kept(
    dataset: Dataset, branch: Branch, given: int, kept: int
) -> None:
    make(branch, "files/f", mode=given)
    assert mode(branch, "files/f") == kept
    branch.commit("f")
    assert mode(branch, "files/f") == kept == mode(dataset.version(1), "files/f")


def test_what_says_nothing_new_is_recorded_as_it_always_was(dataset: Dataset, branch: Branch) -> None:
    make(branch, "files/f")
    branch.commit("f")
    (record,) = records(dataset, 1)
    assert (record.op, record.mode) == (Op.PUT, 0)


def test_a_change_of_bits_alone_is_a_change_and_copies_no_bytes(dataset: Dataset, branch: Branch) -> None:
    make(branch, "files/f", b"large" * 1000)
    one = branch.commit("f")
    make(branch, "files/f", b"large" * 1000, mode=0o755)
    two = branch.commit("runs")
    (record,) = records(dataset, 2)
    assert (record.op, record.owner, record.mode) == (Op.TAKE, 1, 0o755)
    assert not (dataset.layout.version(2).root / "files").exists()
    assert mode(dataset.version(1), "files/f") == 0 and dataset.version(2).read("files/f") == b"large" * 1000
    make(branch, "files/f", b"large" * 1000)
    branch.commit("does not")
    assert [mode(dataset.version(n), "files/f") for n in (1, 2, 3)] == [0, 0o755, 0]
    assert one.content_id != two.content_id


def test_content_ids_tell_modes_and_links_apart_and_not_times(store: Store) -> None:
    def made(name: str, **options: int) -> str:
        branch = store.create_dataset(name).branch("main")
        make(branch, "files/f", b"same", **options)
        return tree(branch)

    def tree(branch: Branch) -> str:
        from volfs.versions.committed.content_id import tree_root
        from volfs.versions.committed.version_files import changes

        branch.commit("f")
        return tree_root(changes(read_manifest(VersionFiles.of(branch.dataset.objects, 1)), {})).hex()

    link = store.create_dataset("link").branch("main")
    link.working.symlink("files/f", "same")
    ids = [made("a"), made("b", mode=0o755), made("c", mode=0o600), tree(link)]
    assert len(set(ids)) == 4
    assert made("d", mtime_ns=LONG_AGO) == ids[0]


def test_private_directories_stay_private_where_files_come_go_and_are_committed(
    dataset: Dataset, branch: Branch
) -> None:
    working = branch.working
    working.mkdir("files/private", 0o700)
    working.mkdir("files/private/deep", 0o750)
    make(branch, "files/private/deep/x")
    make(branch, "files/private/y")
    branch.commit("private")
    version = dataset.version(1)
    for snapshot in (version, branch):
        assert (mode(snapshot, "files/private"), mode(snapshot, "files/private/deep")) == (0o700, 0o750)
    make(branch, "files/private/deep/new")  # which brings its directories up
    assert (mode(branch, "files/private"), mode(branch, "files/private/deep")) == (0o700, 0o750)
    branch.commit("more")
    assert [record.name for record in records(dataset, 2)] == ["files/private/deep/new"]
    assert mode(dataset.version(2), "files/private/deep") == 0o750
    working.chmod("files/private", 0o755)
    branch.commit("open")
    assert [(record.op, record.name) for record in records(dataset, 3)] == [(Op.DIRECTORY, "files/private")]
    assert stat.S_IMODE(mode(dataset.version(3), "files/private")) == 0o755
    branch.delete_tree("files/private")
    make(branch, "files/private/again")
    branch.commit("made anew")
    assert mode(dataset.version(4), "files/private") == 0


def test_what_stays_behind_stays_in_a_private_directory(branch: Branch) -> None:
    branch.working.mkdir("files/private", 0o700)
    branch.working.mkdir("files/empty", 0o700)
    make(branch, "files/private/done")
    with branch.working.open("files/private/open", os.O_WRONLY | os.O_CREAT, 0o600) as file:
        file.pwrite(b"x", 0)
        branch.commit("the rest")
        assert mode(branch, "files/private") == 0o700 == mode(branch, "files/empty")
    assert mode(branch, "files/private/open") == 0o600


def test_what_is_private_is_so_in_the_store_itself(dataset: Dataset, branch: Branch) -> None:
    make(branch, "files/secret", mode=0o600)
    make(branch, "files/ours", mode=0o640)
    branch.working.mkdir("files/private", 0o700)
    make(branch, "files/private/x")
    make(branch, "files/open")
    branch.commit("all")
    root = dataset.layout.version(1).root
    others = {
        name: stat.S_IMODE((root / f"files/{name}").stat().st_mode) & 0o044
        for name in ("secret", "ours", "private/x", "open")
    }
    assert others == {"secret": 0, "ours": 0o040, "private/x": 0, "open": 0o044}


# -- times --------------------------------------------------------------------------------------------------------


def test_times_are_kept_to_the_nanosecond(dataset: Dataset, branch: Branch) -> None:
    make(branch, "files/f", mtime_ns=LONG_AGO)
    make(branch, "files/old", mtime_ns=-5)
    branch.working.symlink("files/l", "f")
    branch.working.utimens("files/l", 1, LONG_AGO)
    branch.commit("f")
    for snapshot in (branch, dataset.version(1)):
        assert [snapshot.stat(f"files/{name}").mtime_ns for name in ("f", "l", "old")] == [LONG_AGO, LONG_AGO, -5]  # type: ignore[union-attr]
    branch.put("files/g", b"g")
    written = branch.stat("files/g")
    branch.commit("g")
    assert written is not None
    assert branch.stat("files/g").mtime_ns == written.mtime_ns  # type: ignore[union-attr]
    assert branch.stat("files/f").mtime_ns == LONG_AGO  # type: ignore[union-attr]


def test_a_time_that_was_given_is_a_change_and_the_same_bytes_written_again_are_none(
    dataset: Dataset, branch: Branch
) -> None:
    make(branch, "files/f", mtime_ns=LONG_AGO)
    branch.commit("f")
    branch.put("files/f", b"data")
    with pytest.raises(NothingToCommit):
        branch.commit("nothing")
    branch.working.utimens("files/f", 1, LONG_AGO + 1)
    branch.commit("another time")
    assert [dataset.version(n).stat("files/f").mtime_ns - LONG_AGO for n in (1, 2)] == [0, 1]  # type: ignore[union-attr]


# -- links --------------------------------------------------------------------------------------------------------


def test_a_link_is_kept_and_never_followed(dataset: Dataset, branch: Branch, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    working = branch.working
    for target in ("a", "nowhere/at/all", str(tmp_path / "outside"), "b" * 1000, "\udcff"):
        working.symlink("files/l", target)
        assert working.readlink("files/l") == target
        branch.commit(repr(target))
        version = dataset["latest"]
        for snapshot in (branch, version):
            info = snapshot.stat("files/l")
            assert info is not None and info.is_link and info.size == len(os.fsencode(target))
            assert snapshot.read("files/l") == os.fsencode(target)
            for below in ("files/l/secret", "files/l/outside/secret"):
                assert snapshot.stat(below) is None
                with pytest.raises(VolfsError):
                    snapshot.read(below)
        branch.delete("files/l")
    branch.commit("none")
    assert dataset["latest"].stat("files/l") is None


@pytest.mark.parametrize("committed", [False, True])
def test_a_link_within_a_key_is_no_directory(branch: Branch, tmp_path: Path, committed: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    working = branch.working
    working.symlink("files/l", str(outside))
    if committed:
        branch.commit("l")
    with branch.writing():
        for act in (
            lambda: branch.put("files/l/new", b"x"),
            lambda: working.open("files/l/new", os.O_WRONLY | os.O_CREAT),
            lambda: working.open("files/l/secret", os.O_RDONLY),
            lambda: working.open("files/l", os.O_RDWR),
            lambda: working.open("files/l", os.O_RDONLY),
            lambda: working.mkdir("files/l/new"),
            lambda: working.unlink("files/l/secret"),
            lambda: working.rename("files/l/secret", "files/here"),
            lambda: working.link("files/l/secret", "files/here"),
            lambda: working.chmod("files/l/secret", 0o777),
            lambda: working.utimens("files/l/secret", 1, 1),
            lambda: branch.list("files/l"),
            lambda: working.truncate("files/l/secret", 0),
            lambda: working.symlink("files/l/new", "x"),
        ):
            with pytest.raises(VolfsError) as refused:
                act()  # type: ignore[no-untyped-call]
            assert refused.value.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        working.remove_tree("files/l/secret")
        assert list(working.union().changes("files/l/secret")) == []
    assert os.listdir(outside) == ["secret"] and (outside / "secret").read_bytes() == b"secret"
    assert stat.S_IMODE((outside / "secret").stat().st_mode) != 0o777
    assert branch.working.readlink("files/l") == str(outside)


def test_a_link_in_the_place_of_a_directory_hides_what_the_directory_held(dataset: Dataset, branch: Branch) -> None:
    make(branch, "files/d/x")
    branch.commit("d")
    with branch.writing():
        assert branch.stat("files/d/x") is not None  # seen once, through a directory
        branch.delete_tree("files/d")
        branch.working.symlink("files/d", "/etc")
        assert branch.stat("files/d/x") is None and branch.stat("files/d/passwd") is None
    branch.commit("l")
    assert tree_of(dataset.version(2)) == {"files/d": b"/etc"}
    branch.delete("files/d")
    make(branch, "files/d/y")
    branch.commit("d again")
    assert tree_of(dataset.version(3)) == {"files/d/y": b"data"}


def test_renames_hard_links_and_times_of_links_are_those_of_the_links(branch: Branch) -> None:
    working = branch.working
    make(branch, "files/f")
    working.symlink("files/l", "f")
    branch.commit("l")
    working.rename("files/l", "files/m")
    working.utimens("files/m", 1, LONG_AGO)
    working.link("files/m", "files/n")
    assert working.readlink("files/m") == "f" == working.readlink("files/n")
    assert [branch.stat(f"files/{name}").mtime_ns for name in "mn"] == [LONG_AGO] * 2  # type: ignore[union-attr]
    assert branch.stat("files/f").mtime_ns != LONG_AGO  # type: ignore[union-attr]
    with pytest.raises(VolfsError) as refused:
        working.chmod("files/m", 0o600)
    assert refused.value.errno == errno.EOPNOTSUPP
    assert mode(branch, "files/f") in (0, 0o644)
    for wrong, kind in (("files/f", WrongKind), ("files/absent", NotFound)):
        with pytest.raises(kind):
            working.readlink(wrong)
    with pytest.raises(AlreadyThere):
        working.symlink("files/f", "x")


def test_a_hierarchy_has_no_links(branch: Branch) -> None:
    with pytest.raises(NotAllowed):
        branch.working.symlink("zarr/l", "x")


def test_the_command_lists_links_as_such(dataset: Dataset, branch: Branch) -> None:
    branch.working.symlink("files/l", "f")
    branch.commit("l")
    root = dataset.store.path
    assert volfs(root, "ls", "cells:files").stdout.split() == ["l@"]
    assert [one["kind"] for one in answer(root, "ls", "cells:files")] == ["link"]


def test_discarding_brings_modes_times_and_links_back(dataset: Dataset, branch: Branch) -> None:
    make(branch, "files/f", mode=0o755, mtime_ns=LONG_AGO)
    branch.working.symlink("files/l", "f")
    branch.commit("f")
    make(branch, "files/f", b"other", mode=0o600)
    branch.delete("files/l")
    branch.discard()
    assert mode(branch, "files/f") == 0o755 and branch.stat("files/f").mtime_ns == LONG_AGO  # type: ignore[union-attr]
    assert branch.working.readlink("files/l") == "f"


def test_a_lost_catalog_comes_back_with_modes_times_and_links(store: Store, branch: Branch) -> None:
    branch.working.mkdir("files/p", 0o700)
    make(branch, "files/p/f", mode=0o755, mtime_ns=LONG_AGO)
    branch.working.symlink("files/l", "p/f")
    branch.commit("all")
    make(branch, "files/p/f", mode=0o500, mtime_ns=LONG_AGO)
    branch.commit("less")
    keys = ("files/p", "files/p/f", "files/l")
    before = [[store["cells"].version(n).stat(key) for key in keys] for n in (1, 2)]
    store.close()
    for path in store.path.glob("catalog.sqlite*"):
        path.unlink()
    with open_store(store.path) as store:
        assert [[store["cells"].version(n).stat(key) for key in keys] for n in (1, 2)] == before
        assert fsck(store).findings == []


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users can write into: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="volfs-side-") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def test_a_daemon_that_is_no_root_reads_and_writes_what_its_own_bits_deny(open_place: Path) -> None:
    """The kernel lets root, and NFS the owner, through what the bits on disk would deny to volfs itself."""
    program = (
        "import os\n"
        "from volfs import open_store\n"
        "def work(place):\n"
        "    with open_store(place, create=True) as store:\n"
        "        branch = store.create_dataset('cells').branch('main')\n"
        "        branch.put('files/f', b'one')\n"
        "        for bits in (0o444, 0o400, 0o000):\n"
        "            branch.working.chmod('files/f', bits)\n"
        "            with branch.working.open('files/f', os.O_RDWR) as file: file.pwrite(b'two', 0)\n"
        "            assert branch.stat('files/f').mode == bits | 0o400, bits\n"
        "        branch.commit('f')\n"
        "        reader = branch.working.open('files/f', os.O_RDONLY)\n"
        "        with branch.working.open('files/f', os.O_RDWR) as file: file.pwrite(b'three', 0)\n"
        "        assert reader.pread(9, 0) == b'three' and branch.stat('files/f').mode == 0o400\n"
        "        branch.commit('again')\n"
        f"work({str(open_place / 'first')!r})\n"  # as whoever may read the interpreter's modules
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"work({str(open_place / 'second')!r})\n"
    )
    fork_server.run([sys.executable, "-c", program], check=True, cwd="/")
