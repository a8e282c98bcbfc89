"""JupyterHub: everybody's server sees the volfs mount. Load it from your own jupyterhub_config.py, or start from it.

    load_subconfig("/etc/jupyterhub/volfs_config.py")

For servers on the hub's own machine (the default spawner, SystemdSpawner, SudoSpawner), in Docker and in Kubernetes:
settings of spawners that are not installed have no effect.
"""

import asyncio
import os
from pathlib import Path

c = get_config()  # noqa: F821  # JupyterHub's

MOUNT = os.environ.get("VOLFS_MOUNT", "/srv/volfs")
# Where the nodes have it, in Kubernetes (../kubernetes): the directory above the mountpoint.
NODE = os.environ.get("VOLFS_NODE_DIRECTORY", "/var/lib/volfs")


async def need_the_mount(spawner):
    """Refuse to start a server while the mount is broken or hangs: a notebook would fail later, and nobody knew why."""
    readme = Path(MOUNT, "README.txt")
    try:
        await asyncio.wait_for(asyncio.to_thread(readme.read_bytes), timeout=10)
    except (OSError, TimeoutError) as error:
        spawner.log.error("volfs: %s cannot be read: %s", readme, error or "no answer")
        raise RuntimeError(
            f"The volumes at {MOUNT} cannot be read at the moment. Please tell your administrator."
        ) from None


# In every server: open(os.environ["VOLFS_MOUNT"] + "/cells/versions/latest/…").
c.Spawner.environment = {"VOLFS_MOUNT": MOUNT}

# On the hub's own machine. Users are held to owner and mode of each dataset: mount with --allow-other.
c.Spawner.pre_spawn_hook = need_the_mount

# SystemdSpawner with ProtectSystem or read-only paths: it is under /srv, which they leave alone.

# DockerSpawner: rslave, so that a mount made anew is seen by servers that run.
c.DockerSpawner.volumes = {MOUNT: {"bind": MOUNT, "mode": "ro,rslave"}}

# KubeSpawner: the node's directory, as in ../kubernetes/job.yaml. There is no mount at the hub itself to look at.
if "KUBERNETES_SERVICE_HOST" in os.environ:
    c.Spawner.pre_spawn_hook = None
    c.Spawner.environment = {"VOLFS_MOUNT": "/volfs/mnt"}
    c.KubeSpawner.volumes = [{"name": "volfs", "hostPath": {"path": NODE, "type": "Directory"}}]
    c.KubeSpawner.volume_mounts = [
        {"name": "volfs", "mountPath": "/volfs", "mountPropagation": "HostToContainer", "readOnly": True}
    ]
