"""JupyterHub: everybody's server sees the volfs mount. At the end of your own jupyterhub_config.py:

    exec(open("/etc/jupyterhub/volfs_config.py").read())

It adds to what is set there. Not by load_subconfig(): that shows a file nothing of it, and a pre_spawn_hook
of yours would be replaced.

For servers on the hub's own machine (the default spawner, SystemdSpawner, SudoSpawner), in Docker and in Kubernetes:
settings of spawners that are not installed have no effect.
"""

import asyncio
import inspect
import os
from pathlib import Path

c = get_config()  # noqa: F821  # JupyterHub's

# The directory above holds nothing else: DockerSpawner gives it to every server.
MOUNT = os.environ.get("VOLFS_MOUNT", "/srv/mounts/volfs")
# Where the nodes have it, in Kubernetes (../kubernetes): the directory above the mountpoint.
NODE = os.environ.get("VOLFS_NODE_DIRECTORY", "/var/lib/volfs")

earlier_hook = c.Spawner.get("pre_spawn_hook")


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
    if callable(earlier_hook):
        answer = earlier_hook(spawner)
        if inspect.isawaitable(answer):
            await answer


if "KUBERNETES_SERVICE_HOST" not in os.environ:
    # In every server: open(os.environ["VOLFS_MOUNT"] + "/cells/versions/latest/…").
    c.Spawner.environment.update({"VOLFS_MOUNT": MOUNT})

    # On the hub's own machine. Users are held to owner and mode of each dataset: mount with --allow-other.
    c.Spawner.pre_spawn_hook = need_the_mount

    # SystemdSpawner with ProtectSystem or read-only paths: it is under /srv, which they leave alone.

    # DockerSpawner: rslave, and the directory above the mountpoint, so that servers that run see a mount made anew.
    above = str(Path(MOUNT).parent)
    c.DockerSpawner.volumes.update({above: {"bind": above, "mode": "ro,rslave"}})
else:
    # KubeSpawner: the node's directory, as in ../kubernetes/job.yaml. There is no mount at the hub itself to look at.
    c.Spawner.environment.update({"VOLFS_MOUNT": "/volfs/mnt"})
    c.KubeSpawner.volumes.extend([{"name": "volfs", "hostPath": {"path": NODE, "type": "Directory"}}])
    c.KubeSpawner.volume_mounts.extend(
        [{"name": "volfs", "mountPath": "/volfs", "mountPropagation": "HostToContainer", "readOnly": True}]
    )
