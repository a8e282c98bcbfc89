"""zarr-python's state machines for stores, driven against a branch: stray keys, and whole hierarchies of arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine

from volfs import init_store
from volfs.errors import NothingToCommit
from volfs.versions.branch import Branch
from volfs.versions.zarrstore import ZarrStore

pytestmark = pytest.mark.filterwarnings("ignore")


@contextmanager
def a_branch() -> Iterator[Branch]:
    with tempfile.TemporaryDirectory(prefix="volfs-zarr-") as root, init_store(Path(root, "store")) as store:
        yield store.create_dataset("cells").branch("main")


def check(machine: type, steps: int, examples: int, soak: bool) -> None:
    with a_branch() as branch:
        run_state_machine_as_test(
            lambda: machine(branch),
            settings=settings(
                deadline=None,
                max_examples=examples * (50 if soak else 1),
                stateful_step_count=steps,
                suppress_health_check=list(HealthCheck),
            ),
        )


class Keys(ZarrStoreStateMachine):
    def __init__(self, branch: Branch) -> None:
        super().__init__(ZarrStore(branch))


class Hierarchy(ZarrHierarchyStateMachine):
    """With commits in between, after which the branch must look the same and the new version too."""

    def __init__(self, branch: Branch) -> None:
        super().__init__(ZarrStore(branch))
        self.branch = branch

    @precondition(lambda self: not self.branch.is_clean())
    @rule()
    def commit(self) -> None:
        try:
            info = self.branch.commit("a step")
        except NothingToCommit:
            return  # every change was to what is there already
        assert self.branch.status().clean
        version = ZarrStore(self.branch.dataset.version(info.number))
        expected = sorted(self._sync_iter(self.model.list_prefix("")))
        assert sorted(self._sync_iter(version.list_prefix(""))) == expected


def test_stray_keys(soak: bool) -> None:
    check(Keys, 20, 20, soak)


def test_hierarchies(soak: bool) -> None:
    check(Hierarchy, 15, 8, soak)
