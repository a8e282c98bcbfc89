"""``mount_examples/slurm``: the scripts run as slurmd would run them, on a real mount. Slurm itself is not at hand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kits.cells import make_store
from tests.kits.examples import open_directory, program, volfs_program
from tests.kits.mounts import running, volfs
from tests.kits.paths import EXAMPLES
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import daemon_pid, take_away
from volfs.testing.waiting import PATIENCE

FOLDER = EXAMPLES / "slurm"
SCRIPTS = ["prolog.sh", "epilog.sh", "taskprolog.sh", "job.sbatch"]


@dataclass(frozen=True)
class Node:
    """A node of a cluster, as far as the scripts see it."""

    root: Path

    @property
    def mount(self) -> Path:
        return self.root / "mnt"

    def start(self, script: str, job: int, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """A script with the environment that slurmd gives it, which is not the user's."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "VOLFS_SLURM_CONF": str(self.root / "volfs.conf")}
        env |= {"SLURM_JOB_ID": str(job), "SLURM_JOB_UID": str(os.getuid()), "SLURM_JOB_USER": "anna", **more}
        command = ["bash", str(FOLDER / script), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True)

    def run(self, script: str, job: int, *arguments: str, status: int = 0, **more: str) -> str:
        process = self.start(script, job, *arguments, **more)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, (script, out, err)
        return out + err

    def set(self, name: str, value: str) -> None:
        with (self.root / "volfs.conf").open("a") as settings:
            settings.write(f"{name}={value}\n")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with open_directory() as root:
        make_store(root / "store")
        volfs_program(root)
        yield root


@pytest.fixture
def node(place: Path, tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path)
    (tmp_path / "volfs.conf").write_text((FOLDER / "volfs.conf").read_text())
    found.set("VOLFS", str(place / "volfs"))
    found.set("VOLFS_STORE", str(place / "store"))
    found.set("VOLFS_MOUNT", str(found.mount))
    found.set("VOLFS_CATALOG", str(tmp_path / "index" / "catalog.sqlite"))
    found.set("VOLFS_STATE", str(tmp_path / "state"))
    others = ",allow_other" if os.geteuid() == 0 else ""
    found.set("VOLFS_OPTIONS", f"rw,umask=222{others},log={tmp_path}/mount.log")
    yield found
    if mounted_at(found.mount) is not None:
        take_away(found.mount)


def test_shellcheck_finds_nothing() -> None:
    command = [program("shellcheck", "shellcheck"), "-x", *(str(FOLDER / name) for name in [*SCRIPTS, "volfs.conf"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES.parent)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_first_job_mounts_and_the_last_one_unmounts(node: Node) -> None:
    node.run("prolog.sh", 1)
    daemon = daemon_pid(node.mount)
    assert (node.mount / "cells/dataset.json").read_text().startswith("{")
    node.run("prolog.sh", 2)
    assert daemon_pid(node.mount) == daemon, "one for all jobs of the node"
    node.run("epilog.sh", 1)
    assert (node.mount / "README.txt").exists(), "job 2 still runs"
    node.run("epilog.sh", 2)
    assert mounted_at(node.mount) is None and not running(daemon)
    node.run("epilog.sh", 2)  # slurmd may run it again


def test_jobs_that_start_at_once_share_one_daemon(node: Node) -> None:
    jobs = range(10, 15)
    for script in ("prolog.sh", "epilog.sh"):
        processes = [node.start(script, job) for job in jobs]
        for process in processes:
            out, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, (out, err)
        found = mounted_at(node.mount)
        assert (found is not None) == (script == "prolog.sh")
    assert (node.root / "mount.log").read_text().count(" answers") == 1


def test_a_daemon_that_died_is_replaced_for_the_next_job(node: Node) -> None:
    node.run("prolog.sh", 1)
    killed = daemon_pid(node.mount)
    os.kill(killed, signal.SIGKILL)
    said = node.run("prolog.sh", 2)
    assert "took away a dead mount" in said
    assert daemon_pid(node.mount) != killed and (node.mount / "README.txt").exists()
    node.run("epilog.sh", 1)
    os.kill(daemon_pid(node.mount), signal.SIGKILL)
    node.run("epilog.sh", 2)
    assert mounted_at(node.mount) is None, "nor does the last one leave a dead mount"


def test_a_store_that_is_not_there_drains_the_node_and_holds_nothing(node: Node) -> None:
    node.set("VOLFS_STORE", str(node.root / "nowhere"))
    node.set("VOLFS_WAIT", "1")
    assert "nowhere" in node.run("prolog.sh", 1, status=1)
    assert os.listdir(node.root / "state" / "jobs") == [] and mounted_at(node.mount) is None


def test_a_mount_that_is_kept_serves_the_next_job(node: Node) -> None:
    node.set("VOLFS_KEEP", "yes")
    node.run("prolog.sh", 1)
    daemon = daemon_pid(node.mount)
    node.run("epilog.sh", 1)
    node.run("prolog.sh", 2)
    assert daemon_pid(node.mount) == daemon


def test_tasks_find_the_mount_and_copy_their_planes(node: Node, tmp_path: Path) -> None:
    node.run("prolog.sh", 1)
    exported = dict(line.removeprefix("export ").split("=", 1) for line in node.run("taskprolog.sh", 1).splitlines())
    assert exported == {"VOLFS_MOUNT": str(node.mount)}
    out = tmp_path / "planes"
    for task in range(3):
        array = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "3", "OUTPUT": str(out)}
        node.run("job.sbatch", 1, "cells", "v2", **exported, **array)
    planes = node.mount / "cells/versions/v2/s0/xy"
    assert sorted(os.listdir(out)) == sorted(os.listdir(planes))
    assert all((out / name).read_bytes() == (planes / name).read_bytes() for name in os.listdir(out))


def test_a_job_writes_a_branch_of_its_own_as_the_readme_prints_it(place: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"^  ```sh\n(.*?)^  ```$", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "segment.py").write_text("import sys; open(sys.argv[1] + '/files/result.txt', 'w').write('done')\n")
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    env = {"PATH": f"{place}:{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}
    env |= {"VOLFS_STORE": str(place / "store"), "TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    try:
        done = subprocess.run(
            ["bash", "-eu", "-c", block],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert mounted_at(tmp_path / "mnt") is None
    finally:
        if mounted_at(tmp_path / "mnt") is not None:
            take_away(tmp_path / "mnt")
    index = ("--catalog", tmp_path / "catalog.sqlite")
    assert "  job 7  " in volfs(place / "store", *index, "log", "cells@job-7", "--oneline", "-n1").stdout
    assert "result.txt" in volfs(place / "store", *index, "ls", "cells@job-7:files").stdout


def test_nobody_writes_through_it(node: Node) -> None:
    node.run("prolog.sh", 1)
    assert (node.mount / "cells/branches/exp/files").stat().st_mode & 0o777 == 0o555
