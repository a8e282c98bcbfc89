"""The served end of a connection: ``volfs serve-stdio``.

    push  {updates}  → questions, as of whoever receives; then pushed {versions, whys}

Decided here: which store and dataset a path means, and that a failure is told to the other end in one message. Not
here: answers to questions (:mod:`volfs.versions.remotes.supplier`), and what a push does
(:mod:`volfs.versions.remotes.exchange`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from volfs.errors import BadInput, NotFound, StoreFormat, VolfsError
from volfs.model.names import is_dataset_name
from volfs.storage.store_layout import FORMAT, VOLFS_JSON
from volfs.versions.remotes.connection import check_hello
from volfs.versions.remotes.exchange import SharedDataset, take_push
from volfs.versions.remotes.message_frames import Cut, Frames, Message
from volfs.versions.remotes.questions import PROTOCOL, Peer
from volfs.versions.remotes.supplier import Supplier


class ServedStore(Protocol):
    """A store, as whoever serves it knows it."""

    def datasets(self) -> list[str]:
        """Names of the datasets."""

    def __getitem__(self, name: str) -> SharedDataset: ...


Open = Callable[[Path, bool], AbstractContextManager[ServedStore]]
"""Opens the store at a path; only to be read, if the second argument says so."""


def serve(frames: Frames, path: Path, open_store: Open) -> None:
    """Answer until the other end has nothing more to ask."""
    try:
        hello = frames.hear("hello")
        check_hello(hello, frames.other)
        if (service := hello.text("service")) not in ("fetch", "push"):
            raise BadInput(f"{service[:40]!r} is no service")
        root, named = _meant(path)
        with open_store(root, service == "fetch") as store:
            if named and named not in store.datasets():
                raise NotFound(f"there is no dataset {named!r}: there is {', '.join(store.datasets()) or 'none'}")
            known = [{"name": name, "id": store[name].uuid} for name in store.datasets()]
            frames.tell("hello", protocol=PROTOCOL, format=FORMAT, datasets=known, dataset=named)
            _answer(frames, store, service)
    except Cut:
        pass  # whoever asked is done, or gone
    except Exception as error:
        with suppress(VolfsError, OSError):
            frames.tell_error(error)


def _answer(frames: Frames, store: ServedStore, service: str) -> None:
    dataset: SharedDataset | None = None
    supplier: Supplier | None = None
    while True:
        message = frames.hear()
        if message.say == "open":
            dataset = _opened(frames, store, message)
            supplier = Supplier(dataset, frames)
        elif dataset is None or supplier is None:
            raise BadInput("no dataset is open")
        elif message.say == "push":
            if service != "push":
                raise BadInput("this connection was opened to fetch")
            versions, whys = take_push(dataset, Peer(frames), message)
            frames.tell("pushed", versions=versions, whys=whys)
        else:
            supplier.answer(message)


def _opened(frames: Frames, store: ServedStore, message: Message) -> SharedDataset:
    ident = message.text("id")
    dataset = next((found for name in store.datasets() if (found := store[name]).uuid == ident and ident), None)
    if dataset is None:
        raise NotFound("there is no dataset of this id")
    refs, graph = dataset.refs(), dataset.graph
    frames.tell(
        "opened",
        name=dataset.name,
        id=ident,
        default_branch=dataset.default_branch,
        heads={name: graph.info(number).content_id if number else "" for name, number in refs.heads.items()},
        tags={name: graph.info(number).content_id for name, number in refs.tags.items()},
        partial=dataset.clone_parts.facts(),
    )
    return dataset


def _meant(path: Path) -> tuple[Path, str]:
    """The store that a path leads to, and the name of the dataset in it that is meant, "" for all."""
    for root, named in ((path, ""), (path.parent, path.name)):
        if (root / VOLFS_JSON).exists():
            if named and not is_dataset_name(named):
                break
            return root, named
    if not path.exists():
        raise NotFound(f"{path} does not exist")
    raise StoreFormat(f"{path} is neither a volfs store nor a dataset in one")
