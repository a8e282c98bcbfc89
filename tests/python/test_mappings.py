"""A store, its datasets, their snapshots and images are mappings, show what is public, and can be sent elsewhere."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import volfs
from tests.kits.cells import CELLS, NUCLEI, add, make_store
from tests.kits.paths import DOCS
from volfs.errors import NotFound


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[volfs.Store]:
    path = make_store(tmp_path_factory.mktemp("python") / "store")
    with volfs.open_store(path) as opened:
        opened["cells"].create_tag("paper", "v1")
        opened.create_dataset("empty")
        yield opened


def objects(store: volfs.Store) -> dict[str, Any]:
    dataset = store["cells"]
    image = dataset["v2"][""]
    found = {"store": store, "dataset": dataset, "version": dataset["v2"], "branch": dataset["main"]}
    return {**found, "image": image, "level": image["s0"]}


@pytest.fixture(params=["store", "dataset", "version", "branch", "image"])
def mapping(request: pytest.FixtureRequest, store: volfs.Store) -> Any:
    return objects(store)[request.param]


def test_each_lists_what_it_holds(store: volfs.Store) -> None:
    dataset = store["cells"]
    assert list(store) == ["cells", "empty"]
    assert list(dataset) == ["exp", "main", "paper", "v1", "v2"]
    assert list(store["empty"]) == ["main"]
    assert list(dataset["v1"]) == [""]
    assert list(dataset["main"]) == ["", "labels/nuclei"]
    assert list(dataset["v2"][""]) == ["s0", "s1"]


def test_each_is_a_mapping_by_all_its_names(mapping: Any) -> None:
    assert isinstance(mapping, Mapping)
    names = list(mapping)
    assert len(mapping) == len(names) == len(set(names)) == len(mapping.items())
    for name, value in mapping.items():
        assert name in mapping
        assert mapping.get(name) is value or repr(mapping.get(name)) == repr(value)
    assert mapping._ipython_key_completions_() == names


@pytest.mark.parametrize("name", ["nothing", "", "~", "a b", "../..", None, 3.5, ("s0",), 99])
def test_a_name_that_leads_nowhere_is_not_in_it(mapping: Any, name: Any) -> None:
    if name == "" and isinstance(mapping, volfs.Snapshot):
        return  # the image at the root
    if name is None and isinstance(mapping, volfs.Dataset):
        return  # the default branch
    assert name not in mapping
    assert mapping.get(name, "default") == "default"
    with pytest.raises((NotFound, volfs.VolfsError)):
        mapping[name]


def test_a_dropped_version_is_not_listed(tmp_path: Path) -> None:
    with volfs.open_store(make_store(tmp_path / "store")) as store:
        dataset = store["cells"]
        dataset.drop("v1")
        assert list(dataset) == ["exp", "main", "v2"] and len(dataset) == 3
        assert "v1" not in dataset._repr_html_()


def test_names_that_are_not_listed_are_known(store: volfs.Store) -> None:
    dataset = store["cells"]
    assert [dataset[ref].ref for ref in ("latest", "main~1", 2, np.int64(1), "paper")] == ["v2", "v1", "v2", "v1", "v1"]
    version = dataset["v2"]
    assert version["s1"] is version[""]["s1"] is version[""][1] is version[""][-1]
    assert np.array_equal(version["labels/nuclei/s0"][3], NUCLEI[3])
    assert "labels/nuclei/s9" not in version
    assert "labels" not in version


def test_what_is_not_there_is_said_with_what_is(store: volfs.Store) -> None:
    for wrong, right in (
        (lambda: store["nuclei"], "cells"),
        (lambda: store["cells"]["papre"], "paper"),
        (lambda: store["cells"]["v2"]["labels"], "labels/nuclei"),
        (lambda: store["cells"]["v2"][""]["s7"], "s0, s1"),
    ):
        with pytest.raises(NotFound, match=right):
            wrong()


def test_an_object_is_true_and_equals_itself_only(store: volfs.Store) -> None:
    for shown in (store, store["empty"], store["empty"]["main"], store["cells"]["v2"][""]):
        assert shown and shown == shown and {shown: 1}[shown] == 1
    assert store["cells"]["v1"] != store["cells"]["v2"]
    assert store["cells"]["v2"] == store["cells"]["latest"]
    assert len(store["empty"]["main"]) == 0


def test_the_types_have_names_in_the_package(store: volfs.Store) -> None:
    found = objects(store)
    for name, kind in (("store", "Store"), ("dataset", "Dataset"), ("version", "Version"), ("branch", "Branch")):
        assert type(found[name]) is getattr(volfs, kind)
    assert type(found["image"]) is volfs.Image and type(found["level"]) is volfs.Level
    assert type(found["version"].info) is volfs.VersionInfo
    assert set(volfs.__all__) <= set(dir(volfs))
    for name in volfs.__all__:
        assert getattr(volfs, name)
    with pytest.raises(AttributeError):
        volfs.nothing  # noqa: B018


SECTIONS = {
    "Stores": ["store"],
    "Datasets": ["dataset"],
    "Versions and branches": ["version", "branch"],
    "Images": ["image"],
    "Levels": ["level"],
}


@pytest.mark.parametrize("section", SECTIONS)
def test_dir_names_what_the_page_describes_and_nothing_else(store: volfs.Store, section: str) -> None:
    page = (DOCS / "python.md").read_text()
    part = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in part.splitlines() if line.startswith("| `")]
    described = {name for row in rows for name in re.findall(r"`(\w+)[`(\[]", row)} - {"level"}
    shown = [objects(store)[name] for name in SECTIONS[section]]
    named = {one for each in shown for one in dir(each) if not one.startswith("__")}
    assert all(hasattr(each, one) for each in shown for one in dir(each) if not one.startswith("__"))
    assert named - {"get", "items", "keys", "values"} == described


# -- in notebooks ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("store", ["cells", "empty", "exp, main", "paper", "import labels/nuclei"]),
        ("dataset", ["cells", "v1", "v2", "exp, main", "paper", "20 x 40 x 50", "uint8", "4 nanometer"]),
        ("version", ["cells@v2", "labels/nuclei", "label image", "z y x", "uint32"]),
        ("branch", ["cells@main", "over v2"]),
        ("image", ["s0", "s1", "10 x 20 x 25", "16 x 16 x 16", "39.1 KiB"]),
        ("level", ["20 x 40 x 50", "16 x 16 x 16"]),
    ],
)
def test_a_notebook_shows_what_is_there(store: volfs.Store, name: str, words: list[str]) -> None:
    page = Page(objects(store)[name]._repr_html_())
    for word in words:
        assert word in page.text
    pictures = [attrs["src"] for tag, attrs in page.elements if tag == "img"]
    assert len(pictures) == (name != "store")
    assert all(str(source).startswith("data:image/png;base64,") for source in pictures)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e&amp;\"'"


def test_what_comes_from_the_store_is_never_markup(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / HOSTILE.partition("/")[0]) as store:
        unit = [{"name": n, "type": "space", "unit": HOSTILE} for n in "zyx"]
        add(store, "cells", "", CELLS, "zyx", levels=2)
        branch = store["cells"]["main"]
        group = branch.read("zarr/zarr.json").decode()
        branch.put("zarr/zarr.json", change_axes(group, unit))
        branch.commit(f"{HOSTILE}\n{HOSTILE}" * 100, author=HOSTILE.replace("\x1b", ""))
        found = objects(store)
        for name, shown in found.items():
            page = Page(shown._repr_html_())
            assert {tag for tag, _ in page.elements} <= {
                *("div", "b", "i", "img", "table", "thead", "tbody", "tr", "th", "td"),
            }, name
            assert all(set(attrs) <= {"alt", "src"} for _, attrs in page.elements)
            assert "\x1b" not in page.text and "\u202e" not in page.text
        assert "<script>" in Page(found["dataset"]._repr_html_()).text


def change_axes(group: str, axes: list[dict[str, str]]) -> bytes:
    import json

    document = json.loads(group)
    document["attributes"]["ome"]["multiscales"][0]["axes"] = axes
    return json.dumps(document).encode()


def test_what_cannot_be_read_is_said_in_its_place(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")
    shards = [p for p in (path / "datasets/cells/versions/00000001/zarr/s0").rglob("*") if p.is_file()]
    for shard in shards:
        if shard.suffix != ".json":
            shard.write_bytes(bytes(len(shard.read_bytes())))
    with volfs.open_store(path) as store:
        page = Page(store["cells"]["v1"][""]._repr_html_())
        assert "s1" in page.text and ("i", {}) in page.elements
        Page(store["cells"]._repr_html_())


def test_the_text_of_an_object_says_what_it_is(store: volfs.Store) -> None:
    found = {name: repr(shown) for name, shown in objects(store).items()}
    assert "cells" in found["dataset"] and str(store.path) in found["store"]
    assert "v2" in found["version"] and "main" in found["branch"]
    assert found["image"] == "<image cells@v2: axes zyx, shape (20, 40, 50), uint8, levels s0, s1>"
    assert found["level"] == "<level cells/s0@v2: shape (20, 40, 50), uint8, chunks (16, 16, 16)>"


# -- sent elsewhere -------------------------------------------------------------------------------------------------


def described(shown: Any) -> tuple[str, Any]:
    """What a process that got an object finds in it."""
    return repr(shown), int(np.asarray(shown).sum()) if isinstance(shown, volfs.Level) else list(shown)


def test_each_is_the_same_in_a_process_that_was_spawned(store: volfs.Store) -> None:
    shown = list(objects(store).values())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(described, shown) == [described(one) for one in shown]


def test_a_copy_or_a_pickle_in_the_same_process_is_the_object_itself(store: volfs.Store) -> None:
    for name, shown in objects(store).items():
        for twin in (copy.copy(shown), copy.deepcopy(shown), pickle.loads(pickle.dumps(shown))):
            assert twin is shown, name


def test_levels_of_every_sort_find_their_way_back(store: volfs.Store) -> None:
    for ref in ("v2", "main"):
        for path, image in store["cells"][ref].items():
            for level in image.values():
                assert pickle.loads(pickle.dumps(level)) is level, (ref, path)


def test_a_pickle_of_what_is_another_by_now_is_refused(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")
    with volfs.open_store(path) as store:
        held = {name: pickle.dumps(shown) for name, shown in objects(store).items() if name != "store"}
        store.remove_dataset("cells")
        with pytest.raises(NotFound):
            pickle.loads(held["dataset"])
        add(store, "cells", "", NUCLEI, "zyx", levels=2)
        add(store, "cells", "other", NUCLEI, "zyx", levels=2)
        for name in ("dataset", "version", "image", "level"):
            with pytest.raises(NotFound, match="another"):
                pickle.loads(held[name])


def test_the_stores_that_pickles_opened_are_few_and_opened_once(tmp_path: Path, monkeypatch: Any) -> None:
    from volfs.versions import store as stores

    path = make_store(tmp_path / "store")
    with volfs.open_store(path) as store:
        level = pickle.dumps(store["cells"]["v2"]["s0"])
    opened: list[Any] = []
    original = stores.open_store
    monkeypatch.setattr(stores, "open_store", lambda *a, **k: opened.append(a) or original(*a, **k))
    for _ in range(5):
        assert np.array_equal(pickle.loads(level)[3], CELLS[3])
    assert len(opened) == 1
    stores._kept_open.pop().close()
