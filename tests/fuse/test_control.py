"""Control files as shells and other programs write them, in a real mount: one message, an error that shows, a user."""

from __future__ import annotations

import io
import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import volfs
from tests.kits import fork_server
from tests.kits.mounts import volfs as command
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE
from volfs.versions.author import author_of, default_author


@dataclass
class Share:
    """A mounted branch, used by files alone, and a count that makes something to commit."""

    store: Path
    top: Path
    count: int = 0

    @property
    def branch(self) -> Path:
        return self.top / "a/branches/main"

    @property
    def commit(self) -> Path:
        return self.branch / ".volfs/commit"

    def change(self) -> None:
        self.count += 1
        (self.branch / "files/count").write_text(str(self.count))

    def latest(self) -> dict[str, str]:
        return dict(json.loads((self.top / "a/versions/latest/version.json").read_text()))

    def status(self) -> dict[str, list[dict[str, str]]]:
        return dict(json.loads((self.branch / ".volfs/status.json").read_text()))

    def shell(self, script: str, shell: str = "bash") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "C": str(self.commit), "B": str(self.branch)}
        return subprocess.run(
            [shell, "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def volfs(self, *args: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return command(self.store, *args, ok=ok)


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Share]:
    root = tmp_path_factory.mktemp("control")
    source = root / "a.npy"
    np.save(source, np.zeros((16, 24, 32), "u2"))
    store = root / "store"
    volfs.init_store(store).close()
    with mounted(store, root / "mnt", expect="is not an array|held") as top:
        share = Share(store, top)
        share.volfs("import", "a", str(source), "--chunks", "8,16,16")
        yield share


MESSAGE = "Subject\n\nBody äöü\nlast"
WAYS = {
    "printf in bash, line by line": ("bash", r"printf 'Subject\n\nBody äöü\nlast\n' > $C"),
    "several builtins": ("bash", "{ echo Subject; echo; echo 'Body äöü'; echo last; } > $C"),
    "appended": ("bash", r"printf 'Subject\n\nBody äöü\nlast\n' >> $C"),
    "a here document": ("bash", "cat > $C <<X\nSubject\n\nBody äöü\nlast\nX"),
    "several programs": ("bash", r"(/bin/echo Subject; sleep 0.1; /bin/echo; /usr/bin/printf 'Body äöü\nlast') > $C"),
    "several programs, appending": ("bash", r"(/bin/echo Subject; /bin/echo; /usr/bin/printf 'Body äöü\nlast') >> $C"),
    "an open descriptor": ("bash", "exec 3> $C; echo Subject >&3; echo >&3; echo 'Body äöü' >&3; echo last >&3"),
    "dash, at once": ("dash", r"printf 'Subject\n\nBody äöü\nlast\n' > $C"),
    "cp": ("dash", r"printf 'Subject\n\nBody äöü\nlast\n' > $B/files/.m; cp $B/files/.m $C; rm $B/files/.m"),
    "dd, byte by byte": ("bash", r"printf 'Subject\n\nBody äöü\nlast\n' | dd bs=1 of=$C status=none conv=notrunc"),
    "the message file": ("bash", r"printf 'Subject\n\nBody äöü\nlast\n' > $B/.volfs/message && echo - > $C"),
}


@pytest.mark.parametrize("way", WAYS)
def test_however_a_message_is_written_it_is_one_version(share: Share, way: str) -> None:
    shell, script = WAYS[way]
    share.change()
    before = int(share.latest()["version"][1:])
    done = share.shell(script, shell)
    assert (done.returncode, done.stderr) == (0, "")
    latest = share.latest()
    assert (latest["version"], latest["message"]) == (f"v{before + 1}", MESSAGE)
    if "files/" not in script:  # said again with nothing changed
        again = share.shell(script, shell)
        assert (again.returncode, again.stderr) == (0, "")
        assert share.latest() == latest


def test_python_may_flush_each_line_and_a_longer_message_may_come_after_nothing_changed(share: Share) -> None:
    share.change()
    with share.commit.open("w") as file:
        for line in MESSAGE.splitlines():
            print(line, file=file, flush=True)
    assert share.latest()["message"] == MESSAGE
    with share.commit.open("w") as file:
        print("Subject", file=file, flush=True)  # may be the same again
        with pytest.raises(OSError, match="Invalid argument"):
            print("and something else", file=file, flush=True)
            file.flush()
            os.fsync(file.fileno())


@pytest.mark.parametrize("script", ["echo Subject > $C", r"printf 'Subject\n\nBody\n' > $C", "echo Subject | cat > $C"])
@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_what_a_commit_refuses_is_told_by_a_write_whose_error_every_shell_reports(
    share: Share, script: str, shell: str
) -> None:
    folder = share.branch / "zarr/early/c/0"
    folder.mkdir(parents=True)
    (folder / "0").write_bytes(b"no array yet")
    try:
        before = share.latest()
        done = share.shell(script, shell)
        assert done.returncode != 0 and done.stderr
        assert share.latest() == before
        errors = (share.branch / ".volfs/errors.txt").read_text()
        assert "zarr/early/c/0/0" in errors.splitlines()[-1]
    finally:
        share.shell("rm -r $B/zarr/early")


def test_a_message_that_is_too_long_is_refused_whole(share: Share) -> None:
    """However many writes it takes until that shows: the version would have half a message, and its writer an error."""
    share.change()
    before = share.latest()
    for script in (
        "head -c 70000 /dev/zero | tr '\\0' a | dd bs=512 of=$C",
        "head -c 65537 /dev/zero | tr '\\0' a > $C",
    ):
        assert share.shell(f"set -o pipefail; {script}").returncode != 0
        assert share.latest() == before
    assert share.shell("head -c 65536 /dev/zero | tr '\\0' a > $C").returncode == 0
    assert share.latest()["message"] == "a" * 65536


def test_lines_may_end_as_those_of_windows_do(share: Share) -> None:
    share.change()
    assert share.shell(r"printf 'Subject\r\n\r\nBody\r\n\r\nAuthor: Ada <a@b>\r\n' > $C").returncode == 0
    assert (share.latest()["message"], share.latest()["author"]) == ("Subject\n\nBody", "Ada <a@b>")


def test_lines_after_a_refused_one_make_no_version_of_their_own(share: Share) -> None:
    """Where a write fails the next comes at its place: it must not pass for another message."""
    share.change()
    fd = os.open(share.commit, os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            os.pwrite(fd, b"\n", 0)
        with pytest.raises(OSError, match="Invalid argument"):
            os.pwrite(fd, b"Body\n", 0)
    finally:
        os.close(fd)
    assert share.latest()["message"] != "Body"


def test_who_else_has_the_file_open_or_that_of_another_mount_does_not_keep_a_message_open(
    share: Share, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two stores with equal names: a close that has returned has made its version, whatever the other's users do."""
    root = tmp_path_factory.mktemp("other")
    volfs.init_store(root / "store").close()
    with mounted(root / "store", root / "mnt") as top:
        other = Share(root / "store", top)
        np.save(root / "a.npy", np.zeros((16, 24, 32), "u2"))
        other.volfs("import", "a", str(root / "a.npy"), "--chunks", "8,16,16")
        for commit in (other.commit, share.commit):
            with commit.open("w"):
                share.change()
                fd = os.open(share.commit, os.O_WRONLY)
                os.write(fd, b"closed %d\n" % share.count)
                os.close(fd)
                assert share.latest()["message"] == f"closed {share.count}"


def test_the_author_is_who_writes_or_whom_the_last_line_names(share: Share) -> None:
    share.change()
    share.shell("echo mine > $C")
    assert share.latest()["author"] == default_author()
    share.change()
    share.shell(r"printf 'of a share\n\nAuthor: Ada Lovelace <ada@example.org>\n' > $C")
    assert (share.latest()["message"], share.latest()["author"]) == ("of a share", "Ada Lovelace <ada@example.org>")
    share.change()
    share.volfs("commit", "a", "-m", "asked for", "--author", "Grace Hopper")
    assert (share.latest()["message"], share.latest()["author"]) == ("asked for", "Grace Hopper")
    share.change()
    environment = {**os.environ, "VOLFS_AUTHOR": "The Asker <a@b>"}
    command = [sys.executable, "-m", "volfs", "--store", str(share.store), "commit", "a", "-m", "from elsewhere"]
    fork_server.run(command, env=environment, check=True, timeout=PATIENCE, capture_output=True)
    assert share.latest()["author"] == "The Asker <a@b>"


def test_the_author_is_the_user_who_called_and_not_the_daemons() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    assert author_of(nobody) == f"nobody@{socket.gethostname()}" and author_of(os.getuid()) == default_author()
    assert author_of(4_000_000_000) == f"4000000000@{socket.gethostname()}"


def picture(shape: tuple[int, int], dtype: str = "u2") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ones(shape, dtype)).save(out, "PNG")
    return out.getvalue()


def test_a_refused_slice_says_why_at_once_by_file_and_by_command_and_one_word_clears_it(share: Share) -> None:
    (share.branch / "files/.bad.png").write_bytes(picture((20, 30)))
    done = share.shell("cp $B/files/.bad.png $B/s0/xy/z00011.png; r=$?; rm $B/files/.bad.png; exit $r")
    assert done.returncode != 0
    (staged,) = share.status()["staged"]
    assert staged["path"] == "s0/xy/z00011.png" and staged["since"].endswith("Z")
    for said in ("30 x 20", "32 x 24", "uint16"):  # found, and needed
        assert said in staged["reason"], staged
    last = (share.branch / ".volfs/errors.txt").read_text().splitlines()[-1]
    assert "s0/xy/z00011.png" in last and "30 x 20" in last
    assert "s0/xy/z00011.png" in share.volfs("status", "a").stdout
    share.change()
    committed = share.volfs("commit", "a", "-m", "without the slice")
    assert "s0/xy/z00011.png" in committed.stderr and "30 x 20" in committed.stderr
    action = dict(share.status()["action"])
    assert [each["path"] for each in action["left"]] == ["s0/xy/z00011.png"]  # type: ignore[index]
    assert not [name for name in action if name.endswith("_ns")]
    share.volfs("discard", "a", "s0/xy/z00011.png", "--yes")
    assert not share.status()["staged"] and "z00011" not in share.volfs("status", "a").stdout
    assert np.array(Image.open(share.branch / "s0/xy/z00011.png")).shape == (24, 32)


def test_what_is_refused_of_volumes_keys_and_formats_changes_nothing_and_is_in_errors_txt(share: Share) -> None:
    """Not only of slices: whatever a program is refused in a branch is said in words, with its path."""
    branch = share.branch
    volume = (branch / "s0/volume.npy").read_bytes()
    before = share.status()["changes"]

    def write(name: str, data: bytes, at: int = 0) -> None:
        fd = os.open(branch / name, os.O_WRONLY)
        try:
            os.pwrite(fd, data, at)
        finally:
            os.close(fd)

    inside = next(each.name for each in (branch / "formats").iterdir() if each.name.endswith(".precomputed"))
    refused = {
        "s0/volume.npy": (lambda: write("s0/volume.npy", b"\x93NUMPY\x02"), "header"),
        "s0/volume.tif": (lambda: (branch / "s0/volume.tif").write_bytes(bytes(99)), "header"),
        "s0/volume.nii": (lambda: os.truncate(branch / "s0/volume.nii", 5), "size"),
        "s0/volume.nrrd": (lambda: write("s0/volume.nrrd", bytes(9), 1 << 30), "cannot grow"),
        f"formats/{inside}/info": (lambda: (branch / f"formats/{inside}/info").write_text("{}"), ""),
        "s0/xy/z99999.png": (lambda: (branch / "s0/xy/z99999.png").write_bytes(b"x"), "no slice"),
        "s0/xy/folder": (lambda: (branch / "s0/xy/folder").mkdir(), "no directory"),
        "zarr/pipe": (lambda: os.mkfifo(branch / "zarr/pipe"), "regular files"),
        "zarr/link": (lambda: os.symlink("s0", branch / "zarr/link"), ""),
    }
    for path, (work, reason) in refused.items():
        with pytest.raises(OSError) as caught:
            work()
        last = (branch / ".volfs/errors.txt").read_text().splitlines()[-1]
        assert f"  {path}: " in last and reason in last, (path, caught.value, last)
    assert (branch / "s0/volume.npy").read_bytes() == volume and share.status()["changes"] == before
    lines = (branch / ".volfs/errors.txt").read_text()
    for plain in (lambda: os.mkdir(branch / "zarr/s0"), lambda: os.unlink(branch / "files/missing")):
        with pytest.raises(OSError, match=r"exists|No such file"):
            plain()  # what everybody knows is no refusal
    assert (branch / ".volfs/errors.txt").read_text() == lines


def test_a_temporary_file_that_was_refused_as_a_slice_says_so_until_it_is_removed(share: Share) -> None:
    temporary = share.branch / "s0/xz/.y00003.png.part"
    temporary.write_bytes(picture((9, 9)))
    with pytest.raises(OSError, match="Invalid argument"):
        temporary.rename(share.branch / "s0/xz/y00003.png")
    (staged,) = share.status()["staged"]
    assert staged["path"] == "s0/xz/.y00003.png.part" and "refused as y00003.png: expected 32 x 16" in staged["reason"]
    temporary.unlink()
    assert not share.status()["staged"]


def test_discard_takes_a_name_whole_and_says_what_it_does_not_know(share: Share) -> None:
    (share.branch / "s0/xy/z00001.png").write_bytes(picture((24, 32))[:40])
    for name in ("s0/xy/z0000", "s0/xy/z00002.png", "nonsense"):
        with pytest.raises(OSError, match="Invalid argument"):
            (share.branch / ".volfs/discard").write_text(name)
    assert share.status()["staged"]
    assert share.shell("printf 's0/xy/z00001.png\n\n' > $B/.volfs/discard").returncode == 0
    assert not share.status()["staged"]


def test_the_readme_names_everything_that_a_user_of_a_share_needs(share: Share) -> None:
    text = (share.top / "README.txt").read_text()
    for said in ("volume.", "cutout/", "oblique/", "formats/", "labels/", "errors.txt", "discard", "commit", "message"):
        assert said in text, said
    assert len(text.splitlines()) <= 42
    assert all(len(line) <= 110 for line in text.splitlines())
