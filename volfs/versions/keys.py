"""Between keys and hierarchy paths: ``zarr/a/b/zarr.json`` belongs to the node ``a/b``; ``""`` is the root node.

Decided here: that spelling, and nothing else. The rules for valid keys are :func:`volfs.model.names.check_key`.
"""

from __future__ import annotations

from collections.abc import Iterator

NODE_JSON = "zarr.json"


def node_key(path: str, rel: str = "") -> str:
    """The key of something inside the node at ``path``; of its directory when ``rel`` is empty."""
    return "/".join(part for part in ("zarr", path, rel) if part)


def json_key(path: str) -> str:
    """The key of a node's metadata."""
    return node_key(path, NODE_JSON)


def node_path(key: str) -> str | None:
    """The hierarchy path of a directory key below ``zarr``; None for a key elsewhere."""
    if key == "zarr":
        return ""
    return key[5:] if key.startswith("zarr/") else None


def node_path_of_json(key: str) -> str | None:
    """The hierarchy path of the node whose metadata ``key`` is; None for other keys."""
    folder, _, name = key.rpartition("/")
    return node_path(folder) if name == NODE_JSON else None


def parents(key: str) -> Iterator[str]:
    """The directories above a key, nearest first, without the root ``""``."""
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


def is_key(path: str) -> bool:
    """Whether a path from a branch on is a key, or one of the two spaces of keys, rather than a view."""
    return path.partition("/")[0] in ("zarr", "files")


def covers(ancestor: str, key: str) -> bool:
    """Whether ``key`` is ``ancestor`` or lies below it."""
    return key == ancestor or key.startswith(f"{ancestor}/")
