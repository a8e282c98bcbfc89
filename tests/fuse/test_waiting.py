"""How the thread that answers requests waits for the next one: counted, never timed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio

from volfs.fuse import turns
from volfs.fuse.turns import Turns, Waiting
from volfs.testing.waiting import PATIENCE


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that were slept for."""
    slept: list[int] = []
    real = trio.lowlevel.wait_readable

    async def wait_readable(fd: int) -> None:
        slept.append(fd)
        await real(fd)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_readable)
    return slept


def test_a_request_that_is_there_already_is_not_slept_for(
    pipe: tuple[int, int], sleeps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_TURN_SECONDS", 1e9)

    async def work() -> None:
        wait = Waiting()
        os.write(pipe[1], b"x")
        for _ in range(100):
            await wait.wait_readable(pipe[0])

    trio.run(work)
    assert not sleeps


def test_other_tasks_get_their_turn_however_many_requests_come(
    pipe: tuple[int, int], sleeps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_TURN_SECONDS", 0)
    ran: list[str] = []

    async def other() -> None:
        ran.append("other")

    async def work() -> None:
        os.write(pipe[1], b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await Waiting().wait_readable(pipe[0])
            ran.append("request")
            await Waiting().wait_readable(pipe[0])
            assert "other" in ran

    trio.run(work)
    assert len(sleeps) == 2


def looks(sleeps: list[int], pipe: tuple[int, int]) -> int:
    """How often a request was looked for in vain before each of a thousand sleeps."""
    looked: list[bool] = []

    class Watched(Waiting):
        def _look(self, fd: int, now: float) -> bool:
            looked.append(super()._look(fd, now))
            return looked[-1]

    async def write() -> None:
        os.write(pipe[1], b"x")

    async def work() -> None:
        wait = Watched()
        for _ in range(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)  # runs only once everybody else sleeps
                await wait.wait_readable(pipe[0])
            os.read(pipe[0], 1)

    trio.run(work)
    assert len(sleeps) == 1000 and not any(looked)
    return len(looked)


def test_looking_in_vain_is_done_ever_more_rarely(
    pipe: tuple[int, int], sleeps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_TURN_SECONDS", 1e9)
    monkeypatch.setattr(turns, "_AWAKE_SECONDS", 0)
    monkeypatch.setattr(turns, "_CROWDED_SECONDS", 1e9)
    assert 40 < looks(sleeps, pipe) < 80, "1, 2, 4, 8, 16 and then always 17 sleeps apart"


def test_where_others_want_the_processor_nothing_is_looked_for_in_a_while(
    pipe: tuple[int, int], sleeps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_TURN_SECONDS", 1e9)
    monkeypatch.setattr(turns, "_CROWDED_SECONDS", 0)
    assert looks(sleeps, pipe) == 4, "257 sleeps apart"


def test_one_task_waits_at_a_time_and_none_is_forgotten() -> None:
    inside: list[int] = []
    done: list[int] = []

    async def take(turns: Turns, number: int) -> None:
        for _ in range(20):
            async with turns:
                inside.append(number)
                assert len(inside) == 1
                await trio.lowlevel.checkpoint()
                inside.pop()
        done.append(number)

    async def work() -> None:
        turns = Turns()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(take, turns, number)
                nursery.start_soon(_give_up, turns)

    trio.run(work)
    assert sorted(done) == list(range(5))


async def _give_up(turns: Turns) -> None:
    """Cancelled while standing in line."""
    with trio.move_on_after(0):
        async with turns:
            await trio.sleep_forever()
