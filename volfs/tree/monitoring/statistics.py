"""What a mount says of itself: the facts of ``.volfs/stats.json``, which ``.volfs/metrics`` says in Prometheus' words.

Decided here: which facts there are, and what each is called (``docs/monitoring.md`` explains all of them). Not here:
counting. Requests are counted by :mod:`volfs.tree.contract.meter`, blocks by :mod:`volfs.volume.cache`, statements by
the catalog's connections; what memory holds is asked of whoever holds it.

Counters grow for as long as the mount lives and never go back, so two looks give a rate.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from volfs import __version__
from volfs.tree.contract.meter import BOUNDS, Histogram, quantile
from volfs.tree.core.context import Shared
from volfs.tree.core.layout_handle import kept_bytes
from volfs.tree.files.layout_file import GATHERED_IN_ALL
from volfs.volume.context import store_context

#: Bytes that one of these costs about, where only their number is known: as tracemalloc saw many of them.
_PER_NAME, _PER_INODE, _PER_DIRECTORY, _PER_FILE = 210, 150, 700, 1600
_PAGE = os.sysconf("SC_PAGE_SIZE")


def statistics(shared: Shared, asked: int) -> dict[str, Any]:
    """All facts, as they are now. Safe in a thread. Requests for ``asked``, the inode of the file that tells them, do
    not count as in flight: there is always one, while it is made."""
    meter, context = shared.meter, store_context(shared.store)
    waiting = [request for request in meter.in_flight() if request.arguments[:1] != (asked,)]
    oldest = min((request.since for request in waiting), default=None)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "store": str(shared.store.path),
        "mountpoint": shared.options.mountpoint,
        "writable": shared.writable,
        "started": shared.started_ns / 1e9,
        "up_seconds": (time.time_ns() - shared.started_ns) // 1_000_000_000,
        "cpu_seconds": round(time.process_time(), 3),
        "open_files": len(shared.files),
        "requests": dict(sorted(meter.requests.copy().items())),
        "latency": {operation: _latency(times) for operation, times in sorted(meter.times.copy().items())},
        "errors": meter.errors_by_operation(),
        "failed": meter.failed,
        "bytes": {"read": meter.bytes_read, "written": meter.bytes_written},
        "in_flight": dict(sorted(Counter(request.operation for request in waiting).items())),
        "oldest_in_flight_seconds": round(time.monotonic() - oldest, 3) if oldest is not None else 0.0,
        "decoded": {
            "payloads": context.memory.decoded.payloads,
            "stored_bytes": context.memory.decoded.stored_bytes,
            "bytes": context.memory.decoded.bytes,
        },
        "cache": asdict(context.cache.stats()),
        "statements": {"catalog": shared.store.catalog.statements, "inodes": shared.inodes.statements},
        "memory": _memory(shared),
    }


def _latency(times: Histogram) -> dict[str, Any]:
    """Buckets by the seconds that a request in one took at most; empty ones are left out."""
    buckets = list(times.buckets)
    return {
        "count": sum(buckets),
        "seconds": times.nanoseconds / 1e9,
        "p50_seconds": quantile(buckets, 0.50),
        "p99_seconds": quantile(buckets, 0.99),
        "buckets": {bound_text(bound): count for bound, count in zip(BOUNDS, buckets, strict=True) if count},
    }


def bound_text(bound: float) -> str:
    """A bucket's bound as JSON and Prometheus name it."""
    return "+Inf" if bound == BOUNDS[-1] else f"{bound:.12g}"


def _memory(shared: Shared) -> dict[str, Any]:
    """By part: how many there are and what they take, with the bound where there is one in bytes."""
    context = store_context(shared.store)
    cache, maps, shards = context.cache.stats(), context.memory.maps, context.memory.shards
    names, nodes, inodes = shared.listings.length, len(shared.nodes), shared.inodes.remembered
    writing = shared.gathering.copy()
    resident, peak = _resident()
    return {
        "rss_bytes": resident,
        "peak_rss_bytes": peak,
        "parts": {
            "blocks": {"items": cache.blocks, "bytes": cache.bytes, "max_bytes": cache.max_bytes},
            "encoded": {
                "items": len(shared.payloads),
                "bytes": shared.payloads.length,
                "max_bytes": shared.payloads.limit,
            },
            "chunk_maps": {"items": maps.count, "bytes": maps.bytes, "max_bytes": maps.max_bytes},
            "shard_indexes": {"items": len(shards), "bytes": shards.bytes, "max_bytes": shards.max_bytes},
            "documents": {
                "items": len(shared.renderings),
                "bytes": shared.renderings.length,
                "max_bytes": shared.renderings.limit,
            },
            "gathered": {
                "items": len(writing),
                "bytes": sum(handle.gathered for handle in writing),
                "max_bytes": GATHERED_IN_ALL,
            },
            "listings": {"items": names, "bytes": names * _PER_NAME, "max_bytes": shared.listings.limit * _PER_NAME},
            "directories": {
                "items": nodes,
                "bytes": nodes * _PER_DIRECTORY,
                "max_bytes": shared.nodes.limit * _PER_DIRECTORY,
            },
            "inodes": {"items": inodes, "bytes": inodes * _PER_INODE},
            "open_files": {
                "items": len(shared.files),
                "bytes": len(shared.files) * _PER_FILE + kept_bytes(shared),
            },
        },
    }


def _resident() -> tuple[int, int]:
    """Bytes of memory that the process holds, and the most that it has held."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return resident, max(resident, int(line.split()[1]) << 10)
    return resident, resident
