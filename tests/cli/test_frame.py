"""How the command begins and ends: exit statuses, one clear line, quick start, nothing on stdout but answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from volfs.fuse import checkup
from volfs.testing.waiting import PATIENCE


def volfs(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "volfs", *map(str, arguments)]
    whole = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=whole)


def test_help_lists_every_command_in_one_screen() -> None:
    done = volfs("--help")
    assert done.returncode == 0 and done.stderr == ""
    for command in ("init", "import", "mount", "umount", "ls", "info", "log", "status", "commit", "discard"):
        assert f"\n  {command} " in done.stdout
    for command in ("branch", "tag", "rm", "fsck", "stats", "doctor", "demo"):
        assert f"\n  {command} " in done.stdout


def test_the_version_is_said() -> None:
    assert volfs("--version").stdout.startswith("volfs 0.")


@pytest.mark.parametrize("arguments", [("nothing-such",), ("mount",), ("ls", "--no-such-option"), ("ls",)])
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    done = volfs(*arguments)
    assert done.returncode == 2 and done.stdout == "" and "Error:" in done.stderr


def test_a_missing_store_says_how_to_name_one() -> None:
    assert "VOLFS_STORE" in volfs("ls").stderr


def test_failures_are_one_line_on_stderr_and_status_1(tmp_path: Path) -> None:
    for arguments in (("ls",), ("ls", "x"), ("status",), ("fsck",), ("mount", tmp_path / "absent")):
        done = volfs("--store", tmp_path / "no-store", *arguments)
        assert done.returncode == 1, arguments
        assert done.stdout == "" and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("volfs: ")


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m volfs doctor --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_ctrl_c_ends_with_130_and_no_traceback() -> None:
    code = "import time; from volfs.cli import main; import volfs.cli.mounts as m\n"
    code += "m.umount.callback = lambda **_: (print('up', flush=True), time.sleep(60))\nmain(['umount', '/x'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and err.strip() == "volfs: interrupted"


def test_a_defect_is_told_in_one_line_unless_asked_for_more() -> None:
    code = "from volfs.cli import main; import volfs.cli.mounts as m\n"
    code += "m.umount.callback = lambda **_: 1 / 0\nmain(['umount', '/x'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "ZeroDivisionError" in done.stderr
    loud = {**os.environ, "VOLFS_DEBUG": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=loud)
    assert "Traceback" in done.stderr


def test_starting_up_loads_no_library_that_help_does_not_need() -> None:
    code = "import sys; import volfs.cli.listings, volfs.cli.commits, volfs.cli.imports, volfs.cli.mounts\n"
    code += (
        "print([name for name in ('numpy', 'zarr', 'trio', 'pyfuse3', 'rich', 'sqlite_utils') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_starting_up_is_quick() -> None:
    """Against the interpreter alone, so that a slow machine does not matter."""

    def seconds(*command: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds("-m", "volfs", "--help") < seconds("-c", "import click") + 0.25


def test_doctor_answers_for_every_part_and_says_how_to_mend() -> None:
    done = volfs("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    expected = {"python", "packages", "kernel", "/dev/fuse", "fusermount3", "user_allow_other", "open files", "logs"}
    expected.add("fstab")
    assert expected <= findings.keys()
    assert all(finding["mend"] for finding in findings.values() if finding["state"] == "bad")
    assert done.returncode == any(finding["state"] == "bad" for finding in findings.values())


@pytest.mark.parametrize("helper", ["missing", "astray", "there"])
def test_doctor_says_whether_mount_finds_its_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: str
) -> None:
    target = tmp_path / "bin" / "mount.fuse.volfs"
    target.parent.mkdir()
    target.touch(0o755)
    link = tmp_path / "sbin" / "mount.fuse.volfs"
    link.parent.mkdir()
    if helper != "missing":
        link.symlink_to(target if helper == "there" else tmp_path / "gone")
    monkeypatch.setattr(checkup, "_HELPERS", (str(link.parent),))
    monkeypatch.setenv("PATH", str(target.parent))
    (found,) = [finding for finding in checkup.examine() if finding.name == "fstab"]
    assert found.state == {"missing": "note", "astray": "bad", "there": "ok"}[helper]
    assert (f"{target} {link}" in found.mend) == (helper != "there")


def test_doctor_names_what_a_crippled_machine_lacks(tmp_path: Path) -> None:
    """fusermount3 away from the path, and nowhere to write a log."""
    file = tmp_path / "file"
    file.touch()
    done = volfs("doctor", env={"PATH": str(tmp_path), "XDG_STATE_HOME": str(file)})
    assert done.returncode == 1
    assert "apt install fuse3" in done.stdout and "XDG_STATE_HOME" in done.stdout


def test_an_interrupt_while_a_class_is_made_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Python 3.11 raises RuntimeError from what ``__set_name__`` raised."""
    from volfs.cli import _status

    def run() -> None:
        class Named:
            def __set_name__(self, owner: type, name: str) -> None:
                raise KeyboardInterrupt

        type("Made", (), {"field": Named()})

    assert _status(run) == 130
    assert capsys.readouterr().err.strip() == "volfs: interrupted"
