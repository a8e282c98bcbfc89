"""The served end of a connection: ``volfs serve-stdio``.

    create  {id, name, default_branch}  → opened, as of open: a dataset that the store lacks
    push    {updates}                   → questions, as of whoever receives; then pushed {versions, notes, whys}

Decided here: which store and dataset a path means, and that a failure is told to the other end in one message. Not
here: answers to questions (:mod:`volfs.versions.remotes.supplier`), and what a push does
(:mod:`volfs.versions.remotes.exchange`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from volfs.errors import AlreadyThere, BadInput, NotFound, StoreFormat, VolfsError
from volfs.model.names import check_ref_name, is_dataset_name
from volfs.storage.crash import crash_point
from volfs.storage.store_layout import FORMAT, VOLFS_JSON
from volfs.versions.dataset_file import checked_dataset_id
from volfs.versions.remotes.connection import check_hello
from volfs.versions.remotes.exchange import SharedDataset, has_arrivals, take_push
from volfs.versions.remotes.message_frames import Cut, Frames, Message
from volfs.versions.remotes.questions import PROTOCOL, Peer
from volfs.versions.remotes.supplier import Supplier


class ServedStore(Protocol):
    """A store, as whoever serves it knows it."""

    def datasets(self) -> list[str]:
        """Names of the datasets."""

    def __getitem__(self, name: str) -> SharedDataset: ...

    def create_dataset(
        self, name: str, *, ident: str | None = None, default_branch: str | None = None
    ) -> SharedDataset:
        """Make an empty dataset."""

    def remove_dataset(self, name: str) -> None:
        """Remove a dataset."""


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
            if named and named not in store.datasets() and service != "push":
                raise NotFound(f"there is no dataset {named!r}: there is {', '.join(store.datasets()) or 'none'}")
            known = [{"name": name, "id": store[name].uuid} for name in store.datasets()]
            frames.tell("hello", protocol=PROTOCOL, format=FORMAT, datasets=known, dataset=named)
            with ExitStack() as held:
                _answer(frames, store, service, held)
    except Cut:
        pass  # whoever asked is done, or gone
    except Exception as error:
        with suppress(VolfsError, OSError):
            frames.tell_error(error)


@contextmanager
def _created(store: ServedStore, message: Message) -> Iterator[None]:
    """A new dataset, which goes again if nothing has come into it when the connection ends. AlreadyThere if another has
    its name."""
    name, ident = message.text("name"), message.text("id")
    if name in store.datasets():
        raise AlreadyThere(f"there is another dataset {name!r} there: name the address that this one is to have")
    check_ref_name(branch := message.text("default_branch"))
    dataset = store.create_dataset(name, ident=checked_dataset_id(ident), default_branch=branch)
    crash_point("push.created")
    try:
        yield
    finally:
        if not dataset.graph.versions and not has_arrivals(dataset):
            with suppress(VolfsError):
                store.remove_dataset(name)


def _answer(frames: Frames, store: ServedStore, service: str, held: ExitStack) -> None:
    dataset: SharedDataset | None = None
    supplier: Supplier | None = None
    while True:
        message = frames.hear()
        if message.say in ("open", "create"):
            if message.say == "create":
                if service != "push":
                    raise BadInput("this connection was opened to fetch")
                held.enter_context(_created(store, message))
            dataset = _opened(frames, store, message)
            supplier = Supplier(dataset, frames)
        elif dataset is None or supplier is None:
            raise BadInput("no dataset is open")
        elif message.say == "push":
            if service != "push":
                raise BadInput("this connection was opened to fetch")
            done = take_push(dataset, Peer(frames), message)
            whys = [why or "" for why in done.whys]
            frames.tell("pushed", versions=done.versions, notes=done.notes, whys=whys)
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
