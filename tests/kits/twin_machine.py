"""One machine of the twin: a process with the store open, that does what it is told, a JSON object a line."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import volfs
from volfs.errors import VolfsError
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.placement import place
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.snapshot import Snapshot
from volfs.versions.store import Store


def files_of(snapshot: Snapshot) -> dict[str, str]:
    """The side files of a snapshot."""
    try:
        names = [name for name, info in snapshot.list("files") if info.kind == "file"]
    except volfs.VolfsError:
        if snapshot.stat("files") is not None:
            raise
        return {}
    return {f"files/{name}": snapshot.read(f"files/{name}").decode() for name in names}


def look(dataset: Dataset, wanted: list[int]) -> dict[str, Any]:
    """What a dataset shows: numbers of versions, the content of those wanted, branches with their state, tags."""
    numbers = [info.number for info in dataset.versions()]
    return {
        "versions": numbers,
        "content": {number: files_of(dataset.version(number)) for number in wanted if number in numbers},
        "branches": {name: [head, files_of(dataset.branch(name))] for name, head in dataset.branches().items()},
        "tags": dataset.tags(),
    }


def bring_in(dataset: Dataset, key: str, data: str) -> dict[str, Any]:
    """A version on the head that this machine believes in, as an import makes it."""
    parent = dataset.branches().get(dataset.default_branch, 0)
    with VersionWriter(dataset, dataset.default_branch, parent) as writer:
        writer.put(key, data.encode())
        writer.prepare(f"import {data}", "twin")
        made = place(writer)
    return {"number": made.number, "branch": made.branch, "parent": parent}


def branch_of(store: Store, op: dict[str, Any]) -> Branch:
    return store[op["dataset"]].branch(op["branch"])


def perform(store: Store, op: dict[str, Any]) -> Any:
    """Do one thing."""
    match op["do"]:
        case "put":
            return branch_of(store, op).put(op["key"], op["data"].encode())
        case "delete":
            return branch_of(store, op).delete(op["key"])
        case "commit":
            return branch_of(store, op).commit(op["data"]).number
        case "discard":
            return branch_of(store, op).discard()
        case "import":
            return bring_in(store[op["dataset"]], op["key"], op["data"])
        case "branch":
            return store[op["dataset"]].create_branch(op["branch"], op["at"])
        case "unbranch":
            return store[op["dataset"]].delete_branch(op["branch"], force=op["force"])
        case "tag":
            return store[op["dataset"]].create_tag(op["tag"], op["at"])
        case "untag":
            return store[op["dataset"]].delete_tag(op["tag"])
        case "follow":
            with branch_of(store, op).writing():
                return None
        case "make":
            return store.create_dataset(op["dataset"]).name
        case "remove":
            return store.remove_dataset(op["dataset"])
        case "refresh":
            return store.refresh()
        case "look":
            wanted = op["wanted"]
            return {name: look(store[name], wanted.get(name, [])) for name in store.datasets()}
        case "fsck":
            return [f"{f.dataset} {f.where}: {f.what}" for f in fsck(store).findings]
    raise AssertionError(op)


def main() -> None:
    with volfs.open_store(sys.argv[1], catalog=sys.argv[2] or None) as store:
        print(json.dumps({"ok": "open"}), flush=True)
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = {"ok": perform(store, json.loads(line))}
            except VolfsError as error:
                answer = {"error": type(error).__name__, "says": str(error)}
            except Exception:
                answer = {"defect": traceback.format_exc()}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
