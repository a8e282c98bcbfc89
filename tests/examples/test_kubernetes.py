"""``mount_examples/kubernetes``: manifests as Kubernetes knows them, whose parts fit together. No cluster runs here."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.kits.examples import understood
from tests.kits.paths import EXAMPLES

KUBERNETES = EXAMPLES / "kubernetes"
MANIFESTS = ["namespace.yaml", "daemonset.yaml", "job.yaml"]


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_knows_every_key(name: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_kustomize_puts_all_manifests_together() -> None:
    (together,) = documents("kustomization.yaml")
    assert together["resources"] == MANIFESTS
    (namespace,) = documents("namespace.yaml")
    assert together["namespace"] == namespace["metadata"]["name"]
    pod = documents("daemonset.yaml")[0]["spec"]["template"]["spec"]
    used = {container["image"] for container in [*pod["initContainers"], *pod["containers"]]}
    assert {image["name"] for image in together["images"]} == used


def test_the_daemonset_runs_a_command_that_exists_on_volumes_that_exist() -> None:
    daemonset, claim = documents("daemonset.yaml")
    pod = daemonset["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = understood(container["args"])
    assert (given["command"], given["foreground"]) == ("mount", True)
    assert "allow_other" in ",".join(given["more"]).split(",")
    places = {volume["name"]: volume["mountPath"] for volume in container["volumeMounts"]}
    assert set(places) == {volume["name"] for volume in pod["volumes"]}
    assert given["mountpoint"].parent == Path(places["node"]) and given["catalog"].parent == Path(places["index"])
    assert container["env"] == [{"name": "VOLFS_STORE", "value": places["store"]}]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"][-1] == f"{given['mountpoint']}/README.txt"
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_mountpoint_is_made_first_and_a_dead_mount_is_no_obstacle(tmp_path: Path) -> None:
    pod = documents("daemonset.yaml")[0]["spec"]["template"]["spec"]
    (first,), (daemon,) = pod["initContainers"], pod["containers"]
    (place,) = first["volumeMounts"]
    assert place["name"] == "node" and place["mountPath"] == str(understood(daemon["args"])["mountpoint"].parent)
    command = [part.replace(place["mountPath"], str(tmp_path)) for part in first["command"]]
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True)
        assert (tmp_path / "mnt").is_dir()
    # mkdir fails at what is no directory, as at a dead mount.
    (tmp_path / "mnt").rmdir()
    (tmp_path / "mnt").symlink_to("nowhere")
    subprocess.run(command, check=True, capture_output=True)


def test_pods_look_where_the_daemonset_mounts() -> None:
    (job,) = documents("job.yaml")
    pod = job["spec"]["template"]["spec"]
    node = next(v for v in documents("daemonset.yaml")[0]["spec"]["template"]["spec"]["volumes"] if v["name"] == "node")
    assert pod["volumes"][0]["hostPath"]["path"] == node["hostPath"]["path"]
    for container in [*pod["initContainers"], *pod["containers"]]:
        (volume,) = container["volumeMounts"]
        assert (volume["mountPropagation"], volume["readOnly"]) == ("HostToContainer", True)
        assert f"{volume['mountPath']}/mnt" in container["command"][-1]
