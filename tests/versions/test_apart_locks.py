"""Machines that do not see each other's locks: what one of them is making is not taken for dead by another."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kits.other_machine import elsewhere, running
from tests.kits.stores import START, new_store, volume, write_version
from volfs import open_store
from volfs.errors import Busy, ReadOnly
from volfs.fuse.checkup import Finding, examine
from volfs.storage import claim
from volfs.storage.claim import Claim, Fate
from volfs.storage.mount_table import Locks, Mounted, locks_on
from volfs.versions.check.fsck import fsck
from volfs.versions.commit import publish
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.ledger import RefRecord
from volfs.versions.ref_file import write_ref
from volfs.versions.store import Store

OPENS = "volfs.open_store(root, **options).close()"
OPENS_AT_ONCE = "volfs.open_store(root, **options, dead_after=0).close()"


@pytest.fixture(autouse=True)
def dataset(dataset: Dataset) -> Dataset:
    write_version(dataset, volume((16, 16, 16)), time_ns=START)
    return dataset


def age(root: Path, seconds: float) -> None:
    """Have nothing at and below a directory have changed for that long."""
    when = time.time() - seconds
    for folder, _, names in os.walk(root, topdown=False):
        for name in (*names, ""):
            os.utime(os.path.join(folder, name), (when, when))


@pytest.mark.parametrize("boot", [True, False], ids=["another machine", "another mount of this machine"])
def test_opening_a_store_leaves_a_live_version_of_another_machine_alone(
    tmp_path: Path, dataset: Dataset, boot: bool
) -> None:
    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/a", b"a")
        elsewhere(OPENS, dataset.store.path, locks=tmp_path / "locks", boot=boot)
        writer.put("files/b", b"b")
        elsewhere(OPENS, dataset.store.path, locks=tmp_path / "locks", boot=boot)
        assert writer.publish("alive").number == 2
    assert [dataset.version(2).read(f"files/{name}") for name in "ab"] == [b"a", b"b"]
    assert fsck(dataset.store).findings == []


def test_a_version_of_another_machine_is_dead_after_a_day_without_growth(tmp_path: Path, dataset: Dataset) -> None:
    partial = dataset.layout.partial(2)
    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/a", b"a")
        age(partial.root, 23 * 3600)
        elsewhere(OPENS, dataset.store.path, locks=tmp_path / "locks")
        assert partial.root.is_dir()
        age(partial.root, 25 * 3600)
        (partial.root / "grows").write_bytes(b"x")
        elsewhere(OPENS, dataset.store.path, locks=tmp_path / "locks")
        assert partial.root.is_dir()
        age(partial.root, 25 * 3600)
        elsewhere(OPENS, dataset.store.path, locks=tmp_path / "locks")
        assert not partial.root.exists()
        with pytest.raises(Busy, match="another machine took the version for abandoned"):
            writer.put("files/b", b"b")
        with pytest.raises(Busy, match="another machine took the version for abandoned"):
            writer.publish("half")
        assert not partial.root.exists()
    assert dataset.branches() == {"main": 1}
    assert fsck(dataset.store).findings == []
    with VersionWriter(dataset, "main", 1) as again:
        again.put("files/a", b"a")
        assert again.publish("whole").number == 2


def test_dead_after_says_how_long(tmp_path: Path, dataset: Dataset) -> None:
    with VersionWriter(dataset, "main", 1):
        elsewhere(OPENS_AT_ONCE, dataset.store.path, locks=tmp_path / "locks")
        assert not dataset.layout.partial(2).root.exists()


def test_what_a_machine_was_publishing_is_not_undone_by_another(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def late(path: Path, record: RefRecord) -> None:
        looks.append(elsewhere(OPENS, dataset.store.path, locks=tmp_path / "locks"))
        write_ref(path, record)
        looks.append(elsewhere(OPENS, dataset.store.path, locks=tmp_path / "locks"))

    monkeypatch.setattr(publish, "write_ref", late)
    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/a", b"a")
        assert writer.publish("seen half way").number == 2
    assert len(looks) == 2
    assert dataset.version(2).read("files/a") == b"a"
    assert fsck(dataset.store).findings == []


@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_a_ref_moves_only_when_every_file_of_the_version_is_there_with_its_size(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    def lose(source: Path, target: Path) -> None:
        os.rename(source, target)
        if target.name.startswith("."):
            return  # what becomes of it afterwards
        if harm == "removed":
            (target / "files/a").unlink()
        else:
            os.truncate(target / "files/a", 2)

    monkeypatch.setattr(publish, "replace_durably", lose)
    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/a", b"a whole file")
        with pytest.raises(Busy, match="files/a"):
            writer.publish("not whole")
    monkeypatch.undo()
    assert dataset.branches() == {"main": 1}
    assert fsck(dataset.store).findings == []


def test_a_file_that_went_before_it_was_synced_stops_the_version(dataset: Dataset) -> None:
    with VersionWriter(dataset, "main", 1) as writer:
        writer.put("files/a", b"a")
        (dataset.layout.partial(2).root / "files/a").unlink()
        with pytest.raises(Busy, match="files/a"):
            writer.publish("not whole")
    assert dataset.branches() == {"main": 1}


@pytest.mark.parametrize("gone", ["files/a", "files/with a space"])
def test_a_file_that_goes_while_it_is_synced_is_named(
    tmp_path: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_store(tmp_path / "a store") as store, VersionWriter(store.create_dataset("cells"), "main", 0) as writer:
        writer.put(gone, b"a")
        listed = os.walk

        def walk(*args: Any, **options: Any) -> Any:
            for found in listed(*args, **options):
                (writer.dataset.layout.partial(1).root / gone).unlink(missing_ok=True)
                yield found

        monkeypatch.setattr(os, "walk", walk)
        with pytest.raises(Busy, match=f"00000001/{Path(gone).name} is gone"):
            writer.sync()
        monkeypatch.undo()


def test_a_dataset_that_another_machine_is_making_stays(tmp_path: Path, store: Store) -> None:
    with store.new_dataset("made") as made:
        elsewhere(OPENS, store.path, locks=tmp_path / "locks")
        assert made.layout.root.is_dir()
        age(made.layout.root, 25 * 3600)
        elsewhere(OPENS, store.path, locks=tmp_path / "locks")
        assert not made.layout.root.exists()


def test_two_machines_that_reserve_a_version_at_once_get_two_numbers(tmp_path: Path, dataset: Dataset) -> None:
    code = (
        "from volfs.versions.commit.version_writer import VersionWriter\n"
        "with volfs.open_store(root, **options) as store:\n"
        "    with VersionWriter(store['cells'], 'main', 1) as writer:\n"
        "        writer.put('files/b', b'b')\n"
        "        print(writer.number)\n"
    )
    with VersionWriter(dataset, "main", 1) as writer:
        assert isinstance(dataset.ledger, publish.DirectoryLedger)
        assert dataset.ledger._make_partial(writer.number) is None
        assert elsewhere(code, dataset.store.path, locks=tmp_path / "locks") == f"{writer.number + 1}\n"


def test_a_branch_that_a_mount_of_another_machine_writes_is_read_only_though_its_lock_seems_free(
    tmp_path: Path, dataset: Dataset
) -> None:
    code = (
        "from volfs.errors import VolfsError\n"
        "with volfs.open_store(root, **options) as store:\n"
        "    branch = store['cells'].branch('main')\n"
        "    try:\n"
        "        branch.put('files/theirs', b'theirs')\n"
        "        print('written')\n"
        "    except VolfsError as error:\n"
        "        print(type(error).__name__, error)\n"
        "    print(branch.status().writer)\n"
    )
    branch = dataset.branch("main")
    branch.acquire("/mnt/here")
    branch.put("files/ours", b"ours")
    said = elsewhere(code, dataset.store.path, locks=tmp_path / "locks")
    assert said.startswith("ReadOnly branch 'main' is being written by the mount at /mnt/here")
    assert "mount at /mnt/here" in said.splitlines()[1]
    age(branch.working.layout.root, 25 * 3600)
    branch.working.lock.keep_fresh()
    assert "ReadOnly" in elsewhere(code, dataset.store.path, locks=tmp_path / "locks")
    branch.release()
    assert elsewhere(code, dataset.store.path, locks=tmp_path / "locks").startswith("written\nNone")


def test_where_locks_are_shared_a_lock_that_is_free_tells_that_its_holder_is_gone(dataset: Dataset) -> None:
    code = (
        "store = volfs.open_store(root, **options)\n"
        "branch = store['cells'].branch('main')\n"
        "branch.acquire('/mnt/there')\n"
        "branch.put('files/theirs', b'theirs')\n"
        "import os\n"
        "os._exit(0)\n"
    )
    elsewhere(code, dataset.store.path)
    branch = dataset.branch("main")
    branch.put("files/ours", b"ours")
    assert branch.read("files/theirs") == b"theirs"


# -- what is known of a process ------------------------------------------------------------------------------------


def test_what_a_claim_tells_of_its_process() -> None:
    mine = Claim.mine()
    assert Claim.parse(mine.facts()) == mine
    assert Claim.parse({}) is Claim.parse(None) is Claim.parse({"pid": 7, "host": "a"}) is None
    assert mine.fate() is Fate.GONE  # asked of a lock that is free
    assert replace(mine, pid=1, started=mine.started + 1).fate() is Fate.GONE  # another process had that number
    assert replace(mine, pid=1, started=claim._started(1)).fate() is Fate.LIVE
    assert replace(mine, boot_id="another", machine="m", host="elsewhere").fate() is Fate.UNKNOWN
    assert replace(mine, boot_id="another", machine="", host=mine.host).fate() is Fate.UNKNOWN
    if mine.machine:
        assert replace(mine, boot_id="before").fate() is Fate.GONE


def mounted(kind: str, *options: str) -> Mounted:
    return Mounted(Path("/data"), "host:/data", kind, "0:40", frozenset(options))


@pytest.mark.parametrize(
    ("mount", "locks"),
    [
        (mounted("ext4", "rw"), Locks.LOCAL),
        (mounted("nfs4", "rw", "local_lock=none"), Locks.SHARED),
        (mounted("nfs", "rw", "nolock"), Locks.APART),
        (mounted("nfs4", "rw", "local_lock=flock"), Locks.APART),
        (mounted("nfs", "rw", "local_lock=all"), Locks.APART),
        (mounted("lustre", "rw", "localflock"), Locks.APART),
        (mounted("cifs", "rw", "nobrl"), Locks.APART),
        (mounted("cifs", "rw"), Locks.UNKNOWN),
        (mounted("fuse.sshfs"), Locks.APART),
        (mounted("fuse.rclone"), Locks.APART),
        (mounted("fuse.s3fs"), Locks.APART),
        (mounted("fuse.mountpoint-s3"), Locks.APART),
        (mounted("fuse.something"), Locks.UNKNOWN),
        (None, Locks.UNKNOWN),
    ],
)
def test_which_filesystems_share_locks(mount: Mounted | None, locks: Locks) -> None:
    assert locks_on(mount) is locks


def test_a_store_that_this_process_left_is_mended_at_once(store: Store, dataset: Dataset) -> None:
    writer = VersionWriter(dataset, "main", 1)
    dataset.ledger._alive.pop(writer.draft.token).release()
    with open_store(store.path):
        assert not dataset.layout.partial(2).root.exists()


def test_a_held_branch_is_refused_by_name(dataset: Dataset) -> None:
    branch = dataset.branch("main")
    branch.acquire("/mnt/here")
    with open_store(dataset.store.path) as other, pytest.raises(ReadOnly, match="/mnt/here"):
        other["cells"].branch("main").put("files/a", b"a")


# -- what doctor says ----------------------------------------------------------------------------------------------

HOLDS = (
    "store = volfs.open_store(root, **options)\n"
    "store['cells'].branch('main').acquire('/mnt/there')\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


def locks_told(store: Store) -> Finding:
    (finding,) = [finding for finding in examine(store.path) if finding.name == "locks"]
    return finding


@pytest.mark.parametrize("apart", [False, True], ids=["shared", "apart"])
def test_doctor_tries_whether_the_lock_of_another_machine_is_seen(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    monkeypatch.setattr("volfs.fuse.checkup.mount_holding", lambda _: mounted("fuse.something"))
    with running(HOLDS, store.path, locks=tmp_path / "locks" if apart else None) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        found = locks_told(store)
        assert found.state == ("bad" if apart else "ok")
        assert ("is not seen here" if apart else "is seen here") in found.detail and "elsewhere" in found.detail
    monkeypatch.undo()
    assert "its process died, or locks are not shared" in locks_told(store).detail
    age(store["cells"].layout.workings, 3600)
    assert locks_told(store).detail == "flock works"


@pytest.mark.parametrize(
    ("mount", "state", "words"),
    [
        (mounted("fuse.sshfs"), "note", "fuse.sshfs keeps locks on each machine"),
        (mounted("fuse.rclone"), "note", "keeps locks on each machine"),
        (mounted("fuse.s3fs"), "note", "keeps locks on each machine"),
        (mounted("fuse.mountpoint-s3"), "note", "keeps locks on each machine"),
        (mounted("nfs", "nolock"), "note", "keeps locks on each machine"),
        (mounted("nfs4", "local_lock=none"), "ok", "nfs4 shares locks"),
        (mounted("cifs"), "note", "not known"),
    ],
)
def test_doctor_says_whether_the_filesystem_shares_locks(
    store: Store, monkeypatch: pytest.MonkeyPatch, mount: Mounted, state: str, words: str
) -> None:
    monkeypatch.setattr("volfs.fuse.checkup.mount_holding", lambda _: mount)
    found = locks_told(store)
    assert found.state == state and words in found.detail
