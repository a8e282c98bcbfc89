"""A connection to a remote store: a process that serves it, here or at the other end of ssh, and the two greetings.

    hello  {protocol, format, service}   → hello {protocol, format, datasets: [{name, id}], dataset}
    open   {id}                          → opened {name, id, default_branch, heads, tags, partial}

``service`` is ``fetch`` or ``push``: who fetches has the store opened only to be read. Decided here: how the process is
started and ended, and that both ends must speak one protocol and know one format of stores. Not here: the process's own
part (:mod:`volfs.versions.remotes.server`).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Literal

from volfs.errors import BadInput, Damaged, NotFound, StoreFormat, VolfsError
from volfs.model.display import printable
from volfs.model.names import is_dataset_name, is_ref_name
from volfs.storage.store_layout import FORMAT
from volfs.versions.clone_parts import WHOLE, CloneParts
from volfs.versions.remotes.address import Address
from volfs.versions.remotes.message_frames import Cut, Frames, Message
from volfs.versions.remotes.questions import PROTOCOL, Peer, checked_id

Service = Literal["fetch", "push"]

_ENDING_SECONDS = 10.0
_OURS = ("VOLFS_STORE", "VOLFS_CATALOG")
"""Variables that say where our store is, and nothing of another one."""


@dataclass(frozen=True, slots=True)
class RemoteDataset:
    """A dataset as its store has it: what each branch and tag names, by content id; "" for a branch without a
    version."""

    name: str
    id: str
    default_branch: str
    heads: Mapping[str, str]
    tags: Mapping[str, str]
    parts: CloneParts = WHOLE
    """What it has, if it is a partial clone itself."""


class Connection:
    """An open connection. ``named``: the dataset that the address names, "" for a whole store."""

    def __init__(self, frames: Frames, address: Address, service: Service) -> None:
        self.frames = frames
        self.address = address
        self.peer = Peer(frames)
        with suppress(Cut):  # one that is gone already may have said why
            frames.tell("hello", protocol=PROTOCOL, format=FORMAT, service=service)
        hello = frames.hear("hello")
        check_hello(hello, str(address))
        self.named = hello.text("dataset")
        self.datasets: dict[str, str] = {}
        for facts in hello.items("datasets", 1 << 20):
            each = Message({"say": "dataset", **facts} if isinstance(facts, dict) else {})
            self.datasets[each.text("name")] = each.text("id")
        if not all(map(is_dataset_name, self.datasets)):
            raise Damaged(f"{address} has a dataset whose name cannot be one")

    def lacks(self, ident: str) -> bool:
        """Whether the store has no dataset with an id, nor another where the address says that it is."""
        return ident not in self.datasets.values() and self.named not in self.datasets

    def create(self, name: str, ident: str, default_branch: str) -> RemoteDataset:
        """Have the store make a dataset that it lacks, with the name that the address says, else with this one.
        AlreadyThere if another has that."""
        self.frames.tell("create", id=ident, name=self.named or name, default_branch=default_branch)
        return self._opened(ident)

    def open(self, ident: str) -> RemoteDataset:
        """Turn to the dataset with an id. NotFound if the store has none, or the address names another."""
        if self.named and self.datasets.get(self.named) != ident:
            raise NotFound(f"{self.address} is another dataset than this one: their ids differ")
        if ident not in self.datasets.values():
            there = ", ".join(sorted(self.datasets)) or "none"
            raise NotFound(f"{self.address} does not hold this dataset: those there ({there}) have other ids")
        self.frames.tell("open", id=ident)
        return self._opened(ident)

    def _opened(self, ident: str) -> RemoteDataset:
        opened = self.frames.hear("opened")
        if opened.text("id") != ident:
            raise Damaged(f"{self.address} opened another dataset than it was asked for")
        heads, tags = opened.members("heads"), opened.members("tags")
        if not all(is_ref_name(name) for name in (*heads, *tags, opened.text("default_branch"))):
            raise Damaged(f"{self.address} has a ref whose name cannot be one")
        return RemoteDataset(
            opened.text("name"),
            ident,
            opened.text("default_branch"),
            {name: checked_id(value) if value else "" for name, value in heads.items()},
            {name: checked_id(value) for name, value in tags.items()},
            CloneParts.parse(opened.members("partial"), str(self.address)),
        )


def check_hello(hello: Message, other: str) -> None:
    """StoreFormat unless the other end speaks this protocol and writes stores of this format."""
    protocol, form = hello.number("protocol"), hello.number("format")
    if protocol != PROTOCOL:
        older = "the other end" if protocol < PROTOCOL else "this one"
        raise StoreFormat(f"{other} speaks protocol {protocol} and this volfs {PROTOCOL}: upgrade {older}")
    if form != FORMAT:
        older = "the other end" if form < FORMAT else "this one"
        raise StoreFormat(f"{other} writes store format {form} and this volfs {FORMAT}: upgrade {older}")


@contextmanager
def connected(address: Address, service: Service) -> Iterator[Connection]:
    """Have the store at an address served, and talk to it."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                address.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            raise BadInput(f"cannot run {address.command()[0]} to reach {address}: {error.strerror}") from None
        assert process.stdin is not None and process.stdout is not None
        try:
            try:
                yield Connection(
                    Frames(process.stdout.fileno(), process.stdin.fileno(), str(address)), address, service
                )
            except Cut as error:
                with suppress(OSError):
                    process.stdin.close()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_ENDING_SECONDS)
                last = _last_line(said)
                raise (VolfsError(f"{address}: {last}", errno=error.errno) if last else error) from None
        finally:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()
            try:
                process.wait(_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last_line(said: IO[bytes]) -> str:
    """The last thing that a process said of itself."""
    said.seek(0)
    lines = said.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1].removeprefix("volfs: ")) if lines else ""
