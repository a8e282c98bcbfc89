"""A branch that an operation of several versions works on, until the real one moves once, at the end.

Decided here: its name, and that what a process left there that died is removed by the next. Its versions exist, so that
others can be made on top of them and read; those that nothing names in the end are dropped.
"""

from __future__ import annotations

from volfs.model.graph import VersionInfo
from volfs.model.refs import RefKind
from volfs.versions.commit.placement import publish_new, publish_over
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.committed.version_files import VersionFiles, read_version


class ScratchBranch:
    """The branch ``WHAT.NAME``, for an operation on the branch NAME, whose lock is held."""

    def __init__(self, dataset: WritableHistory, what: str, name: str) -> None:
        self._dataset = dataset
        self._what = what
        self.name = f"{what}.{name}"[:128]
        self._tip = 0

    def publish(self, writer: VersionWriter) -> VersionInfo:
        """Make a prepared version the head of this branch, which comes with the first."""
        tip = self._tip
        info = publish_over(writer, self.name, tip, self._what) if tip else publish_new(writer, self.name, self._what)
        self._tip = info.number
        return info

    def remove(self) -> None:
        """Remove the branch, if there is one, and drop the versions made on it that nothing else has."""
        dataset = self._dataset
        number = dataset.named_by_file(self.name)
        if number is None:
            return
        dataset.forget_branch(self.name)
        self._tip = 0
        graph, refs = dataset.graph, dataset.refs()
        named = [head for kind in RefKind for head in refs[kind].values() if head]
        made: list[int] = []
        for each in graph.first_parents(number):
            if any(graph.is_ancestor(each, head) for head in named):
                break
            if read_version(VersionFiles.of(dataset.objects, each)).branch != self.name:
                break
            made.append(each)
        if made:
            dataset.drop(*made, why=self.name)
