"""Counting requests: which bucket a time falls into, what is in flight, and what Prometheus makes of it."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.kits.cells import make_store
from tests.kits.trees import run, serving
from volfs.tree.contract.meter import BOUNDS, BUCKETS, Histogram, Meter, quantile


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stats") / "store")


@given(st.integers(0, 10**13))
def test_a_time_falls_into_the_first_bucket_whose_bound_it_does_not_exceed(nanoseconds: int) -> None:
    histogram = Histogram()
    histogram.add(nanoseconds)
    at = histogram.buckets.index(1)
    assert nanoseconds <= BOUNDS[at] * 1e9
    assert at == 0 or nanoseconds > BOUNDS[at - 1] * 1e9
    assert sum(histogram.buckets) == histogram.count == 1 and histogram.nanoseconds == nanoseconds


def test_bounds_grow_by_the_same_factor_to_infinity() -> None:
    assert len(BOUNDS) == BUCKETS and math.isinf(BOUNDS[-1])
    assert {b / a for a, b in pairwise(BOUNDS[:-1])} == {2.0}


def test_a_quantile_is_the_bound_of_the_bucket_that_holds_it() -> None:
    buckets = [0] * BUCKETS
    assert quantile(buckets, 0.5) == 0
    buckets[3], buckets[7] = 90, 10
    assert quantile(buckets, 0.5) == quantile(buckets, 0.9) == BOUNDS[3]
    assert quantile(buckets, 0.91) == quantile(buckets, 0.99) == BOUNDS[7]
    endless = [0] * (BUCKETS - 1) + [1]
    assert quantile(endless, 0.5) == BOUNDS[-2]


def test_a_request_is_in_flight_until_its_answer_goes() -> None:
    meter = Meter()
    first, second = meter.begin("read", (1, 0, 4096)), meter.begin("lookup", (1, b"x"))
    assert [one.operation for one in meter.in_flight()] == ["read", "lookup"]
    assert meter.requests == {"read": 1, "lookup": 1} and not meter.times
    meter.end(second)
    assert [one.arguments for one in meter.in_flight()] == [(1, 0, 4096)]
    meter.end(first)
    assert not meter.in_flight()
    assert {name: times.count for name, times in meter.times.items()} == {"read": 1, "lookup": 1}


def test_metrics_say_what_the_statistics_say_in_the_words_of_prometheus(store: Path) -> None:
    async def work() -> None:
        async with serving(store, mountpoint='/mnt/with "quotes" \\ and\nlines') as client:
            meter = client.tree.meter
            for operation in ("read", "read", "lookup"):
                meter.end(meter.begin(operation, ()))
            meter.begin("open", ())
            meter.errors["open", 5] += 2
            meter.bytes_read += 1000
            await client.read("cells/versions/v2/s0/xy/z00003.png")
            said = json.loads(await client.read(".volfs/stats.json"))
            text = (await client.read(".volfs/metrics")).decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = {
            (sample.name.removeprefix("volfs_"), *sample.labels.values()): sample.value
            for family in families.values()
            for sample in family.samples
        }
        assert samples["request_duration_seconds_count", "read"] == said["latency"]["read"]["count"] == 2
        assert samples["request_duration_seconds_bucket", "read", "+Inf"] == 2
        assert samples["request_duration_seconds_sum", "read"] == said["latency"]["read"]["seconds"]
        assert samples["requests_in_flight", "open"] == said["in_flight"]["open"] == 1
        assert samples["request_errors_total", "open", "EIO"] == said["errors"]["open"]["EIO"] == 2
        assert samples["read_bytes_total",] == said["bytes"]["read"] == 1000
        assert samples["decoded_payloads_total",] == said["decoded"]["payloads"] > 0
        assert samples["memory_bytes", "blocks"] == said["memory"]["parts"]["blocks"]["bytes"] > 0
        assert families["volfs_request_duration_seconds"].type == "histogram"
        assert families["volfs_info"].samples[0].labels["mountpoint"] == '/mnt/with "quotes" \\ and\nlines'
        assert all(family.documentation for family in families.values())
        buckets = [s for s in families["volfs_request_duration_seconds"].samples if s.name.endswith("_bucket")]
        reads = [s.value for s in buckets if s.labels["operation"] == "read"]
        assert reads == sorted(reads) and len(reads) == BUCKETS

    run(work)


def test_opening_the_statistics_counts_what_came_before(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            ino = await client.ino(".volfs/stats.json")
            for expected in range(1, 4):
                client.tree.meter.bytes_written += 1
                fh = await client.open(".volfs/stats.json")
                size = (await client.tree.getattr(ino)).size
                data = await client.read_fh(fh, size)
                assert len(data) == size and size % 4096 == 0
                assert json.loads(data)["bytes"]["written"] == expected
                await client.close(fh)

    run(work)


def test_two_who_read_the_statistics_at_once_read_each_their_own(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            first = await client.open(".volfs/stats.json")
            client.tree.meter.bytes_written += 7
            second = await client.open(".volfs/stats.json")
            said = [json.loads(await client.read_fh(fh, 1 << 20)) for fh in (second, first)]
            assert [one["bytes"]["written"] for one in said] == [7, 0]
            await client.close(first)
            await client.close(second)

    run(work)
