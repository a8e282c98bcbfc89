"""The statistics of a mount: the facts of ``.volfs/stats.json``, which are also in ``.volfs/metrics``.

Decided here: which facts there are, and their names (``docs/monitoring.md`` explains all of them). Not here:
counting. Requests are counted by :mod:`volfs.tree.contract.meter`, blocks by :mod:`volfs.volume.cache`, statements by
the catalog's connections; the memory of a cache by the cache.

Counters grow for as long as the mount lives and never go back, so two looks give a rate.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from volfs import __version__
from volfs.tree.contract.meter import BOUNDS, Histogram, bound_text, quantile
from volfs.tree.core.context import TreeContext
from volfs.tree.core.layout_handle import kept_bytes
from volfs.tree.files.layout_file import GATHERED_IN_ALL
from volfs.volume.volume_context import store_context

#: Bytes that an open file takes, about: as tracemalloc saw many of them.
_PER_FILE = 1600
_PAGE = os.sysconf("SC_PAGE_SIZE")


def statistics(context: TreeContext, asked: int) -> dict[str, Any]:
    """All facts, as they are now. Safe in a thread. Requests for ``asked``, the inode of the file that is being made,
    do not count as in flight: there is always one."""
    meter, volumes = context.meter, store_context(context.store)
    meter.gather()
    front = meter.elsewhere()
    cache = volumes.cache.stats()
    cache = replace(cache, copied_bytes=cache.copied_bytes + meter.copied_elsewhere)
    waiting = [request for request in meter.in_flight() if request.arguments[:1] != (asked,)]
    oldest = min((request.since for request in waiting), default=None)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "store": str(context.store.path),
        "mountpoint": context.options.mountpoint,
        "writable": context.writable,
        "started": context.started_ns / 1e9,
        "up_seconds": (time.time_ns() - context.started_ns) // 1_000_000_000,
        "cpu_seconds": round(time.process_time(), 3),
        "open_files": len(context.files) + context.files.stateless_open + front["open"] - front["release"],
        "requests": dict(sorted(meter.requests.copy().items())),
        "front": front,
        "ahead": dict(zip(("files", "bytes"), meter.ahead(), strict=True)),
        "latency": {operation: _latency(times) for operation, times in sorted(meter.times.copy().items())},
        "errors": meter.errors_by_operation(),
        "failed": meter.failed,
        "bytes": {"read": meter.bytes_read, "written": meter.bytes_written},
        "in_flight": dict(sorted(Counter(request.operation for request in waiting).items())),
        "oldest_in_flight_seconds": round(time.monotonic() - oldest, 3) if oldest is not None else 0.0,
        "decoded": {
            "payloads": volumes.memory.decoded.payloads,
            "stored_bytes": volumes.memory.decoded.stored_bytes,
            "bytes": volumes.memory.decoded.bytes,
        },
        "cache": asdict(cache),
        "statements": {"catalog": context.store.catalog.statements, "inodes": context.inodes.statements},
        "memory": _memory(context),
    }


def _latency(times: Histogram) -> dict[str, Any]:
    """Durations of one kind of request. A bucket's key is the longest duration in it (s); empty ones are left out."""
    buckets = list(times.buckets)
    return {
        "count": sum(buckets),
        "seconds": times.nanoseconds / 1e9,
        "p50_seconds": quantile(buckets, 0.50),
        "p99_seconds": quantile(buckets, 0.99),
        "buckets": {bound_text(bound): count for bound, count in zip(BOUNDS, buckets, strict=True) if count},
    }


def _memory(context: TreeContext) -> dict[str, Any]:
    """Number and bytes of what each part keeps in memory, with its bound where it has one."""
    volumes = store_context(context.store)
    writing = context.buffers.copy()
    resident, peak = _resident()
    parts = {
        name: used.facts()
        for caches in (volumes.caches, context.caches, context.store.caches, context.store.catalog.caches)
        for name, used in caches.usage().items()
    }
    parts["gathered"] = {
        "items": len(writing),
        "bytes": sum(handle.gathered for handle in writing),
        "max_bytes": GATHERED_IN_ALL,
    }
    parts["open_files"] = {
        "items": len(context.files),
        "bytes": len(context.files) * _PER_FILE + kept_bytes(context),
    }
    return {"rss_bytes": resident, "peak_rss_bytes": peak, "parts": parts}


def _resident() -> tuple[int, int]:
    """Bytes of memory that the process holds, and the most that it has held."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return resident, max(resident, int(line.split()[1]) << 10)
    return resident, resident
