"""A mount's statistics for Prometheus: ``.volfs/metrics``.

Decided here: the metrics' names and kinds, in the text format 0.0.4 (https://prometheus.io/docs/instrumenting/
exposition_formats/). Not here: the facts (:mod:`volfs.tree.monitoring.statistics`). Names and labels are stable:
dashboards and alerts are written against them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from volfs.tree.contract.meter import BOUNDS, bound_text

Labels = Mapping[str, object]
_Sample = tuple[str, Labels, float]

#: Metrics of one sample each: name, kind, help text, and the path of the fact.
_PLAIN = (
    ("start_time_seconds", "gauge", "When the mount began, in seconds since 1970.", ("started",)),
    ("cpu_seconds_total", "counter", "Processor time that the daemon has used.", ("cpu_seconds",)),
    ("writable", "gauge", "Whether branches can be written through the mount.", ("writable",)),
    ("open_files", "gauge", "Files that programs have open.", ("open_files",)),
    ("failures_total", "counter", "Requests that failed by fault of the machine or the store.", ("failed",)),
    ("oldest_request_seconds", "gauge", "Age of the oldest request without an answer.", ("oldest_in_flight_seconds",)),
    ("read_bytes_total", "counter", "Bytes served to programs that read.", ("bytes", "read")),
    ("written_bytes_total", "counter", "Bytes taken from programs that write.", ("bytes", "written")),
    ("cache_hits_total", "counter", "Blocks that were found in memory.", ("cache", "hits")),
    ("cache_misses_total", "counter", "Blocks that had to be made.", ("cache", "misses")),
    ("cache_evicted_total", "counter", "Blocks that made room for others.", ("cache", "evicted")),
    ("copied_bytes_total", "counter", "Bytes of voxels copied out of blocks.", ("cache", "copied_bytes")),
    ("decoded_payloads_total", "counter", "Stored payloads that were decoded.", ("decoded", "payloads")),
    ("decoded_stored_bytes_total", "counter", "Their bytes as stored.", ("decoded", "stored_bytes")),
    ("decoded_bytes_total", "counter", "Their bytes of voxels.", ("decoded", "bytes")),
    ("prefetched_bytes_total", "counter", "Bytes of voxels made ahead of a reader.", ("cache", "prefetched_bytes")),
    ("prefetch_used_bytes_total", "counter", "Of those, asked for since.", ("cache", "prefetch_used_bytes")),
    (
        "prefetch_wasted_bytes_total",
        "counter",
        "Of those, let go before anybody asked.",
        ("cache", "prefetch_wasted_bytes"),
    ),
    ("ahead_files_total", "counter", "Files given to the kernel before they were opened.", ("ahead", "files")),
    ("ahead_bytes_total", "counter", "Their bytes.", ("ahead", "bytes")),
    ("resident_memory_bytes", "gauge", "Memory that the daemon holds.", ("memory", "rss_bytes")),
    ("peak_resident_memory_bytes", "gauge", "The most that it has held.", ("memory", "peak_rss_bytes")),
)


def exposition(facts: Mapping[str, Any]) -> bytes:
    """The text of ``.volfs/metrics``."""
    info = {name: facts[name] or "" for name in ("version", "store", "mountpoint")}
    lines = _metric("info", "gauge", "Which mount this is.", [("", info, 1)])
    for name, kind, text, path in _PLAIN:
        value: Any = facts
        for step in path:
            value = value[step]
        lines += _metric(name, kind, text, [("", {}, value)])
    lines += _metric("request_duration_seconds", "histogram", "Time from request to answer.", _durations(facts))
    lines += _metric(
        "request_errors_total",
        "counter",
        "Requests answered with an error.",
        (
            ("", {"operation": operation, "errno": name}, count)
            for operation, names in facts["errors"].items()
            for name, count in names.items()
        ),
    )
    lines += _labelled("front_requests_total", "counter", "Requests answered by C.", "operation", facts["front"])
    lines += _labelled("requests_in_flight", "gauge", "Requests without an answer.", "operation", facts["in_flight"])
    lines += _labelled("sql_statements_total", "counter", "Statements run by SQLite.", "database", facts["statements"])
    parts: dict[str, dict[str, int]] = facts["memory"]["parts"]
    for name, field, text in (
        ("memory_bytes", "bytes", "Memory by what it holds."),
        ("memory_limit_bytes", "max_bytes", "What it may come to."),
        ("memory_limit_items", "max_items", "How many things it may come to."),
        ("memory_items", "items", "How many things it holds."),
    ):
        held = {part: numbers[field] for part, numbers in parts.items() if field in numbers}
        lines += _labelled(name, "gauge", text, "part", held)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _durations(facts: Mapping[str, Any]) -> Iterator[_Sample]:
    for operation, latency in facts["latency"].items():
        labels = {"operation": operation}
        count = 0
        for bound in BOUNDS:
            name = bound_text(bound)
            count += latency["buckets"].get(name, 0)
            yield "_bucket", {**labels, "le": name}, count
        yield "_sum", labels, latency["seconds"]
        yield "_count", labels, count


def _labelled(name: str, kind: str, text: str, label: str, values: Mapping[str, float]) -> list[str]:
    return _metric(name, kind, text, (("", {label: key}, value) for key, value in values.items()))


def _metric(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> list[str]:
    lines = [f"# HELP volfs_{name} {text}", f"# TYPE volfs_{name} {kind}"]
    for suffix, labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(str(one))}"' for key, one in labels.items())
        lines.append(f"volfs_{name}{suffix}{f'{{{pairs}}}' if pairs else ''} {value + 0}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
