"""Which versions a store lacks of those that it is to have, parents first.

Decided here: how few questions find that out, and that a history which is none (a loop of parents, a version that is
its own ancestor, one without end) is refused. Not here: how versions come (:mod:`volfs.versions.remotes.transfer`).

One question is enough where the other end knows the newest that both have. It answers with what lies between, newest
first; where it knows none of what is had here it goes back further and further, until nothing is asked for any more.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator, Sequence

from volfs.errors import Damaged
from volfs.versions.remotes.questions import MOST_HISTORY, MOST_IDS, Ancestor, Peer

_FIRST = 256
"""Versions in the first answer; each further one may have four times as many."""
_MOST = 1 << 22
"""Versions in a history."""


def missing_versions(peer: Peer, want: Sequence[str], here: Container[str], have: Sequence[str]) -> list[Ancestor]:
    """The versions of ``want``, and their ancestors, that are not ``here``: parents before children.

    ``have``: the newest of what is here, as far as the other end may know them.
    """
    found: dict[str, Ancestor] = {}
    asked = [each for each in dict.fromkeys(want) if each not in here]
    most = _FIRST
    while asked:
        new = 0
        for start in range(0, len(asked), MOST_IDS):
            for each in peer.history(asked[start : start + MOST_IDS], have[:MOST_IDS], most):
                if each.id not in here and each.id not in found:
                    found[each.id] = each
                    new += 1
        if not new or len(found) > _MOST:
            raise Damaged(f"{peer.frames.other} sent a history that has no end")
        beyond = dict.fromkeys(parent for each in found.values() for parent in each.parents)
        asked = [parent for parent in beyond if parent not in found and parent not in here]
        most = min(most * 4, MOST_HISTORY)
    return list(_parents_first(found, peer.frames.other))


def _parents_first(found: dict[str, Ancestor], other: str) -> Iterator[Ancestor]:
    waiting = {each.id: sum(parent in found for parent in set(each.parents)) for each in found.values()}
    children: dict[str, list[str]] = {}
    for each in found.values():
        for parent in set(each.parents):
            children.setdefault(parent, []).append(each.id)
    # The oldest were found last: in a clone versions have the order, and mostly the numbers, that they have there.
    place = {ident: -number for number, ident in enumerate(found)}
    ready = [(place[each], each) for each in found if not waiting[each]]
    heapq.heapify(ready)
    done = 0
    while ready:
        ident = heapq.heappop(ready)[1]
        done += 1
        yield found[ident]
        for child in children.get(ident, ()):
            waiting[child] -= 1
            if not waiting[child]:
                heapq.heappush(ready, (place[child], child))
    if done != len(found):
        raise Damaged(f"{other} sent a history in which versions descend from themselves")
