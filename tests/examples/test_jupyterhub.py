"""``mount_examples/jupyterhub``: JupyterHub loads the configuration, and heeds the mount before it starts a server."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.app import JupyterHub
from jupyterhub.spawner import LocalProcessSpawner, Spawner

from tests.kits.examples import mounted_store
from tests.kits.paths import EXAMPLES

CONFIG = EXAMPLES / "jupyterhub" / "jupyterhub_config.py"
README = CONFIG.with_name("README.md")


@pytest.fixture(autouse=True)
def _no_other_hub() -> Iterator[None]:
    JupyterHub.clear_instance()
    yield
    JupyterHub.clear_instance()


def load(monkeypatch: pytest.MonkeyPatch, config: Path = CONFIG, **environment: str) -> Any:
    """The configuration as JupyterHub has it after loading the file, by its own loader."""
    for name in ("VOLFS_MOUNT", "VOLFS_NODE_DIRECTORY", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hub = JupyterHub()
    hub.load_config_file(str(config))
    return hub.config


def test_jupyterhub_knows_every_setting_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(monkeypatch)
    assert set(config.Spawner) == {"environment", "pre_spawn_hook"} <= set(Spawner.class_traits(config=True))
    assert set(config) >= {"Spawner", "DockerSpawner"}


def spawner(config: Any) -> Any:
    made = LocalProcessSpawner(config=config)
    made.log = logging.getLogger("test")
    return made


def test_servers_are_told_where_the_mount_is_and_start_while_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with mounted_store() as (_, mount):
        made = spawner(load(monkeypatch, VOLFS_MOUNT=str(mount)))
        assert made.environment == {"VOLFS_MOUNT": str(mount)}
        asyncio.run(made.run_pre_spawn_hook())


def test_no_server_starts_while_there_is_no_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = spawner(load(monkeypatch, VOLFS_MOUNT=str(tmp_path)))
    with pytest.raises(RuntimeError, match="cannot be read at the moment"):
        asyncio.run(made.run_pre_spawn_hook())


def test_in_kubernetes_the_pods_get_the_directory_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(monkeypatch, KUBERNETES_SERVICE_HOST="10.0.0.1", VOLFS_NODE_DIRECTORY="/var/lib/other")
    (volume,) = config.KubeSpawner.volumes.get_value([])
    (inside,) = config.KubeSpawner.volume_mounts.get_value([])
    assert volume["name"] == inside["name"] and volume["hostPath"]["path"] == "/var/lib/other"
    assert inside["mountPropagation"] == "HostToContainer"
    made = spawner(config)
    assert made.environment["VOLFS_MOUNT"] == f"{inside['mountPath']}/mnt" and made.pre_spawn_hook is None


HUB = """
async def own_hook(spawner):
    spawner.environment["HOOK"] = "ran"

c.Spawner.environment = {"LANG": "de_DE.UTF-8"}
c.Spawner.pre_spawn_hook = own_hook
c.DockerSpawner.volumes = {"/home": "/home"}
c.KubeSpawner.volumes = [{"name": "home"}]
c.KubeSpawner.volume_mounts = [{"name": "home"}]
"""


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub's own configuration, to which the line that the README prints has been added."""
    (line,) = re.findall(r"^echo '(.*)' >> /etc/jupyterhub/jupyterhub_config.py$", README.read_text(), re.MULTILINE)
    config = tmp_path / "jupyterhub_config.py"
    config.write_text(f"{HUB}\n{line.replace('/etc/jupyterhub/volfs_config.py', str(CONFIG))}\n")
    return config


def test_what_the_hub_sets_itself_stays(monkeypatch: pytest.MonkeyPatch, hub: Path) -> None:
    with mounted_store() as (_, mount):
        config = load(monkeypatch, hub, VOLFS_MOUNT=str(mount))
        made = spawner(config)
        assert made.environment == {"LANG": "de_DE.UTF-8", "VOLFS_MOUNT": str(mount)}
        asyncio.run(made.run_pre_spawn_hook())
        assert made.environment["HOOK"] == "ran"
        above = str(mount.parent)
        assert config.DockerSpawner.volumes == {"/home": "/home", above: {"bind": above, "mode": "ro,rslave"}}


def test_what_the_hub_sets_itself_stays_in_kubernetes(monkeypatch: pytest.MonkeyPatch, hub: Path) -> None:
    config = load(monkeypatch, hub, KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert [volume["name"] for volume in config.KubeSpawner.volumes] == ["home", "volfs"]
    assert [volume["name"] for volume in config.KubeSpawner.volume_mounts] == ["home", "volfs"]
    made = spawner(config)
    assert made.environment == {"LANG": "de_DE.UTF-8", "VOLFS_MOUNT": "/volfs/mnt"}
    asyncio.run(made.run_pre_spawn_hook())
    assert made.environment["HOOK"] == "ran", "and no mount at the hub is asked for"
