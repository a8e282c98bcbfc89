"""The twin of two machines: two processes with a catalog each on one store, doing random things in turns and at once,
killed at random; and the reference model, which says what may be seen after each.

Nothing that was acknowledged is lost, no read is of a state that the store cannot be in, and whoever is told no has
either done nothing wrong that trying again would mend, or asked for what cannot be.
"""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

import volfs
from tests.kits import fork_server
from tests.kits.paths import ROOT
from volfs.testing.model import ModelDataset
from volfs.testing.waiting import PATIENCE

STEPS, STEPS_OF_A_SOAK = 200, 10_000
DATASETS, BRANCHES, TAGS = ("one", "two"), ("main", "exp"), ("t0", "t1")
KEYS = tuple(f"files/k{n}" for n in range(4))
Op = dict[str, Any]
World = dict[str, ModelDataset]

TRANSIENT = {"Busy", "Conflict", "ReadOnly"}
"""What a machine may be told because the other was at it; nothing has changed then."""


class Refused(Exception):
    """The model says that something cannot be."""

    def __init__(self, *kinds: str) -> None:
        super().__init__(*kinds)
        self.kinds = kinds


class Machine:
    """A process with the store open."""

    def __init__(self, root: Path, catalog: Path | None) -> None:
        self._arguments = [str(root), str(catalog or "")]
        self._start()

    def _start(self) -> None:
        self._process = fork_server.Popen(
            [sys.executable, "-m", "tests.kits.twin_machine", *self._arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == {"ok": "open"}

    def send(self, op: Op) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(op) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the machine died"
        answer: dict[str, Any] = json.loads(line)
        assert "defect" not in answer, answer["defect"]
        return answer

    def ask(self, op: Op) -> dict[str, Any]:
        self.send(op)
        return self.answer()

    def kill(self) -> None:
        """kill -9, and start anew."""
        self._process.kill()
        self.close()
        self._start()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    def reopen(self) -> None:
        self.close()
        assert self._process.returncode == 0
        self._start()


# -- the model -----------------------------------------------------------------------------------------------------


def number_at(dataset: ModelDataset, at: str | None) -> int:
    if at is None:
        return dataset.branches["main"].head
    if at.startswith("v"):
        if int(at[1:]) not in dataset.versions or at == "v0":
            raise Refused("NotFound")
        return int(at[1:])
    if at not in dataset.branches or not dataset.branches[at].head:
        raise Refused("NotFound")
    return dataset.branches[at].head


def dirty(dataset: ModelDataset, name: str) -> bool:
    branch = dataset.branches[name]
    return branch.state != dataset.versions[branch.head] or bool(branch.touched)


def apply(world: World, op: Op, answer: Any) -> None:
    """What the operation does. Refused, with the errors that say so, where it cannot be done."""
    name = op.get("dataset", "")
    if op["do"] == "make":
        if name in world:
            raise Refused("AlreadyThere")
        world[name] = ModelDataset()
        return
    if name not in world:
        raise Refused("NotFound")
    dataset = world[name]
    if op["do"] == "remove":
        del world[name]
        return
    if op["do"] in ("put", "delete", "commit", "discard", "unbranch") and op["branch"] not in dataset.branches:
        raise Refused("NotFound")
    there = dataset.branches.get(op.get("branch", ""))
    match op["do"]:
        case "put":
            dataset.put(op["branch"], op["key"], op["data"].encode())
        case "delete":
            assert there is not None
            if op["key"] not in there.state:
                raise Refused("NotFound")
            dataset.delete(op["branch"], op["key"])
        case "commit":
            assert there is not None
            if there.state == dataset.versions[there.head]:
                raise Refused("NothingToCommit")
            if answer is not None:
                assert answer not in dataset.versions, f"version v{answer} was there before"
                dataset.commit(op["branch"], answer)
        case "discard":
            dataset.discard(op["branch"])
            dataset.branches[op["branch"]].touched.clear()
        case "import":
            if answer is not None:
                land(dataset, op, answer)
        case "branch":
            number = number_at(dataset, op["at"])
            if op["branch"] in dataset.branches or op["branch"] in dataset.tags:
                raise Refused("AlreadyThere")
            dataset.create_branch(op["branch"], number)
        case "unbranch":
            if op["branch"] == "main":
                raise Refused("NotAllowed")
            assert there is not None
            if not op["force"] and there.state != dataset.versions[there.head]:
                raise Refused("Busy")
            del dataset.branches[op["branch"]]
        case "tag":
            number = number_at(dataset, op["at"])
            if op["tag"] in dataset.branches or op["tag"] in dataset.tags:
                raise Refused("AlreadyThere")
            dataset.tags[op["tag"]] = number
        case "untag":
            if op["tag"] not in dataset.tags:
                raise Refused("NotFound")
            del dataset.tags[op["tag"]]


def land(dataset: ModelDataset, op: Op, answer: dict[str, Any]) -> None:
    """An import is a version on the head that its machine knew; on a branch of its own where that had moved on and the
    two cannot be one."""
    number, name, key, data = answer["number"], answer["branch"], op["key"], op["data"].encode()
    assert number not in dataset.versions
    if name != "main":
        dataset.versions[number] = {**dataset.versions[answer["parent"]], key: data}
        dataset.create_branch(name, number)
        return
    branch = dataset.branches["main"]
    dataset.versions[number] = {**dataset.versions[branch.head], key: data}
    branch.head = number
    branch.state[key] = data


def shown(world: World) -> Any:
    """The model as a machine shows it, but for the content of versions."""
    return {
        name: {
            "versions": sorted(dataset.versions.keys() - {0}),
            "branches": {n: [b.head, texts(b.state)] for n, b in dataset.branches.items()},
            "tags": dict(dataset.tags),
        }
        for name, dataset in world.items()
    }


def texts(state: dict[str, bytes]) -> dict[str, str]:
    return {key: data.decode() for key, data in sorted(state.items())}


# -- the driver ----------------------------------------------------------------------------------------------------


class Twin:
    """Two machines, and the worlds that they may be in."""

    def __init__(self, root: Path, catalogs: tuple[Path | None, Path | None], seed: int) -> None:
        self.dice = random.Random(seed)
        self.machines = [Machine(root, catalog) for catalog in catalogs]
        self.world: World = {}
        self.count = 0
        self.proven: set[tuple[str, int, int]] = set()
        self.births: dict[str, int] = {}
        self.log: list[str] = []

    def op(self) -> Op:
        """Something to do."""
        dice = self.dice
        self.count += 1
        dataset, branch = dice.choice(DATASETS), dice.choice(BRANCHES)
        versions = sorted(self.world[dataset].versions) if dataset in self.world else [0, 1]
        at = dice.choice([None, "main", "exp", f"v{max(1, dice.choice(versions[-5:]))}"])
        key, data = dice.choice(KEYS), f"{self.count}"
        kinds = {"put": 30, "delete": 8, "commit": 22, "discard": 3, "import": 7, "branch": 10, "unbranch": 4}
        kinds |= {"tag": 4, "untag": 3, "make": 3, "remove": 1}
        kind = dice.choices([*kinds], [*kinds.values()])[0]
        return {
            "put": {"branch": branch, "key": key, "data": data},
            "delete": {"branch": branch, "key": key},
            "commit": {"branch": branch, "data": data},
            "discard": {"branch": branch},
            "import": {"key": f"files/imported{self.count % 3}{self.count}", "data": data},
            "branch": {"branch": "exp", "at": at},
            "unbranch": {"branch": branch, "force": dice.random() < 0.5},
            "tag": {"tag": dice.choice(TAGS), "at": at or "main"},
            "untag": {"tag": dice.choice(TAGS)},
            "make": {},
            "remove": {},
        }[kind] | {"do": kind, "dataset": dataset}

    def step(self) -> None:
        """One thing by one machine, one by each at once, a kill in the middle of one, or a reopening."""
        what = self.dice.random()
        one, other = self.dice.sample(self.machines, 2)
        if what < 0.75:
            self.alone(one, self.op())
        elif what < 0.90:
            self.at_once([(one, self.op()), (other, self.op())])
        elif what < 0.97:
            self.killed(one, other, self.op())
        else:
            self.log.append(f"{self.machines.index(one)} reopens")
            one.reopen()

    def alone(self, machine: Machine, op: Op) -> None:
        answer = machine.ask(op)
        self.note(machine, op, answer)
        if not self.agrees(self.world, op, answer):
            # It may not have looked around since the other did something, and speak of a dataset that is gone: that its
            # default branch stays, for one. Told so, it tries again.
            tolerated = TRANSIENT | {"NotFound", "Damaged", "AlreadyThere"}
            if op["do"] == "unbranch":
                tolerated = tolerated | {"NotAllowed"}
            assert answer.get("error") in tolerated, self.story()
            machine.ask({"do": "refresh"})
            answer = machine.ask(op)
            self.note(machine, op, answer)
            assert self.agrees(self.world, op, answer), self.story()
        self.do(self.world, op, answer)
        if self.dice.random() < 0.3:
            self.check([self.world], self.dice.choice(self.machines))

    def at_once(self, both: list[tuple[Machine, Op]]) -> None:
        for machine, op in both:
            machine.send(op)
        answers = [machine.answer() for machine, _ in both]
        for (machine, op), answer in zip(both, answers, strict=True):
            self.note(machine, op, answer)
        worlds = []
        for order in permutations(range(2)):
            world = copy.deepcopy(self.world)
            try:
                for i in order:
                    op, answer = both[i][1], answers[i]
                    if "error" in answer and not self.agrees(world, op, answer):
                        # Told no for what the other was doing, or what it had not seen: then nothing has changed.
                        assert answer["error"] in TRANSIENT | {"NotFound", "Damaged", "AlreadyThere"}, self.story()
                        continue
                    if not self.agrees(world, op, answer):
                        break
                    self.do(world, op, answer)
                else:
                    worlds.append(world)
            except (AssertionError, KeyError):
                continue
        assert worlds, self.story()
        self.check(worlds, self.dice.choice(self.machines))

    def killed(self, machine: Machine, other: Machine, op: Op) -> None:
        machine.send(op)
        time.sleep(self.dice.choice([0, 0.002, 0.01, 0.03, 0.06]))
        machine.kill()
        self.log.append(f"{self.machines.index(machine)} killed in {op}")
        looks = self.dice.choice([machine, other])
        if op["do"] == "import":
            # Its version may be the head, and what is not committed lie over the one before: whoever writes next has it
            # follow.
            looks.ask({"do": "refresh"})
            looks.ask({"do": "follow", "dataset": op["dataset"], "branch": "main"})
        self.check(self.possible(op), looks)

    def possible(self, op: Op) -> list[World]:
        """The world as it was, and as it is if the operation has happened, with any number that it may have given."""
        worlds = [copy.deepcopy(self.world)]
        dataset = self.world.get(op["dataset"])
        answers: list[Any] = [None]
        if op["do"] in ("commit", "import") and dataset is not None:
            top = max(dataset.versions)
            head = dataset.branches["main"].head
            made = [{"number": top + more, "branch": "main", "parent": head} for more in range(1, 6)]
            answers = made if op["do"] == "import" else [each["number"] for each in made]
        for answer in answers:
            world = copy.deepcopy(self.world)
            try:
                apply(world, op, answer)
            except Refused:
                continue
            worlds.append(world)
        return worlds

    @staticmethod
    def agrees(world: World, op: Op, answer: dict[str, Any]) -> bool:
        """Whether the model says the same of an operation."""
        try:
            apply(copy.deepcopy(world), op, answer.get("ok"))
        except Refused as refused:
            return answer.get("error") in refused.kinds
        return "ok" in answer

    def do(self, world: World, op: Op, answer: dict[str, Any]) -> None:
        if "ok" in answer:
            apply(world, op, answer["ok"])
            if op["do"] in ("make", "remove"):
                self.births[op["dataset"]] = self.count

    def check(self, worlds: list[World], machine: Machine) -> None:
        """The machine shows one of these worlds, once it has looked around; from then on that is the world."""
        machine.ask({"do": "refresh"})
        new = {
            name: [n for n in dataset.versions if n and (name, self.births.get(name, 0), n) not in self.proven]
            + self.dice.sample(sorted(dataset.versions), 1)
            for world in worlds
            for name, dataset in world.items()
        }
        answer = machine.ask({"do": "look", "wanted": new})
        assert "ok" in answer, f"{answer}\n{self.story()}"
        seen = answer["ok"]
        contents = {name: found.pop("content") for name, found in seen.items()}
        for found in seen.values():
            found["branches"] = {n: [head, dict(sorted(s.items()))] for n, (head, s) in found["branches"].items()}
        for world in worlds:
            if shown(world) == seen and all(
                files == texts(world[name].versions[int(number)])
                for name, content in contents.items()
                for number, files in content.items()
            ):
                break
        else:
            who = self.machines.index(machine)
            told = [(shown(world), {name: d.versions for name, d in world.items()}) for world in worlds[-2:]]
            raise AssertionError(f"seen by {who}: {seen}, {contents}\nnot {told}\n{self.story()}")
        for name, content in contents.items():
            self.proven |= {(name, self.births.get(name, 0), int(number)) for number in content}
        self.world = world

    def note(self, machine: Machine, op: Op, answer: dict[str, Any]) -> None:
        self.log.append(f"{self.machines.index(machine)} {op} -> {answer}")

    def story(self) -> str:
        return "\n".join(self.log[-25:])


@pytest.mark.parametrize("catalogs", ["apart", "one in the store"])
def test_two_machines_do_what_the_model_does(tmp_path: Path, soak: bool, catalogs: str) -> None:
    volfs.init_store(tmp_path / "store").close()
    seed = random.randrange(2**32) if soak else 5
    places = (None if catalogs == "one in the store" else tmp_path / "one.sqlite", tmp_path / "other.sqlite")
    with ExitStack() as stack:
        twin = Twin(tmp_path / "store", places, seed)
        for machine in twin.machines:
            stack.callback(machine.close)
        for step in range((STEPS_OF_A_SOAK if soak else STEPS) // 2):
            try:
                twin.step()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, step {step}: {error}") from error
        for machine in twin.machines:
            twin.check([twin.world], machine)
            assert machine.ask({"do": "fsck"}) == {"ok": []}
