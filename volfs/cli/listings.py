"""``ls`` and ``info``: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from volfs.cli.frame import (
    DatasetArg,
    Frame,
    count_text,
    json_option,
    parse_dataset_arg,
    pass_frame,
    say,
    say_json,
    say_table,
    size_text,
    time_text,
    version_facts,
)
from volfs.errors import VolfsError

if TYPE_CHECKING:
    from volfs.versions.dataset import Dataset
    from volfs.versions.snapshot import KeyInfo, Snapshot
    from volfs.versions.store import Store
    from volfs.volume.image import Image


@click.command()
@click.argument("target", metavar="[DATASET[/PATH][@REF][:KEY]]", required=False)
@click.option("-l", "--long", is_flag=True, help="Size, time and origin of each.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, too.")
@json_option
@pass_frame
def ls(frame: Frame, target: str | None, long: bool, recursive: bool, as_json: bool) -> None:
    """List the datasets, or the keys of one.

    Keys are those at PATH of the hierarchy, or at KEY (zarr/… or files/…). Without REF, of the default branch with its
    uncommitted changes.

    \b
    Examples:
      volfs ls -l
      volfs ls cells@v3
      volfs ls -R cells/labels/nuclei
      volfs ls -l cells@main:files
    """
    with frame.open(read_only=True) as store:
        if target is None:
            _list_datasets(store, long, as_json)
        else:
            _list_keys(parse_dataset_arg(target, key=True), store, long, recursive, as_json)


def _list_datasets(store: Store, long: bool, as_json: bool) -> None:
    if not (long or as_json):
        for name in store.datasets():
            click.echo(name)
        return
    facts = []
    bad: list[tuple[str, str]] = []
    for name in store.datasets():
        try:
            dataset = store[name]
            counts = len(dataset.graph), len(dataset.branches()), len(dataset.tags())
            facts.append((name, *counts, dataset.latest()))
        except VolfsError as error:  # it harms no other
            bad.append((name, str(error)))
    if as_json:
        keys = ("name", "versions", "branches", "tags", "latest")
        good = [dict(zip(keys, (*row[:4], row[4] and version_facts(row[4])), strict=True)) for row in facts]
        say_json(good + [{"name": name, "error": error} for name, error in bad])
        return
    rows = [
        (*row[:4], *((time_text(row[4].time_ns), row[4].message.partition("\n")[0]) if row[4] else ("", "")))
        for row in facts
    ]
    say_table(rows, ("dataset", "versions", "branches", "tags", "latest", ""), right=(1, 2, 3))
    for name, why in bad:
        say(f"volfs: {name}: {why}", err=True)


def _list_keys(argument: DatasetArg, store: Store, long: bool, recursive: bool, as_json: bool) -> None:
    from volfs.errors import NotFound

    snapshot = argument.snapshot(store)
    info = snapshot.stat(argument.where)
    if info is None:
        known = "" if argument.where.partition("/")[0] in ("zarr", "files") else "; keys begin with zarr/ or files/"
        raise NotFound(f"{argument.spec.dataset}@{snapshot.ref} has no key {argument.where!r}{known}")
    if info.kind == "file":
        entries = [(argument.where.rpartition("/")[2], info)]
    else:
        entries = _below(snapshot, argument.where, "", recursive)
    if as_json:
        say_json(
            [
                {
                    "key": name,
                    "kind": "link" if one.is_link else one.kind,
                    "size": one.size,
                    "mtime_ns": one.mtime_ns,
                    "version": _origin(one) or None,
                }
                for name, one in entries
            ]
        )
    elif long:
        rows = [
            ("" if one.kind == "dir" else f"{one.size:,}", time_text(one.mtime_ns), _origin(one), _shown(name, one))
            for name, one in entries
        ]
        say_table(rows, right=(0, 2))
    else:
        for name, one in entries:
            say(_shown(name, one))


def _below(snapshot: Snapshot, key: str, prefix: str, recursive: bool) -> list[tuple[str, KeyInfo]]:
    found: list[tuple[str, KeyInfo]] = []
    for name, info in snapshot.list(key):
        found.append((prefix + name, info))
        if recursive and info.kind == "dir":
            found += _below(snapshot, f"{key}/{name}" if key else name, f"{prefix}{name}/", recursive)
    return found


def _shown(name: str, info: KeyInfo) -> str:
    return f"{name}/" if info.kind == "dir" else f"{name}@" if info.is_link else name


def _origin(info: KeyInfo) -> str:
    return f"v{info.version}" if info.version else ""


@click.command()
@click.argument("target", metavar="DATASET[/PATH][@REF]")
@json_option
@pass_frame
def info(frame: Frame, target: str, as_json: bool) -> None:
    """Show what a dataset or an image is.

    Axes, shape, type, voxel size, levels and refs; with PATH, those of the image there.

    \b
    Examples:
      volfs info cells
      volfs info cells/labels/nuclei@v3 --json
    """
    import volfs
    from volfs.volume.image import image_at, no_image

    argument = parse_dataset_arg(target)
    with frame.open(read_only=True) as store:
        dataset = store[argument.spec.dataset]
        snapshot = argument.snapshot(store)
        if argument.spec.path:
            image = image_at(snapshot, argument.spec.path)
            if image is None:
                raise no_image(snapshot, argument.spec.path)
            found = [image]
        else:
            found = list(volfs.images(snapshot).values())
        answer: dict[str, Any] = _dataset_facts(dataset) if not argument.spec.path else {}
        answer |= {"snapshot": snapshot.ref, "images": [_image_facts(image) for image in found]}
    if as_json:
        say_json(answer)
        return
    _show_info(answer)


def _dataset_facts(dataset: Dataset) -> dict[str, Any]:
    latest = dataset.latest()
    return {
        "name": dataset.name,
        "versions": len(dataset.graph),
        "latest": version_facts(latest) if latest is not None else None,
        "default_branch": dataset.default_branch,
        "branches": {name: f"v{number}" if number else None for name, number in dataset.branches().items()},
        "tags": {name: f"v{number}" for name, number in dataset.tags().items()},
        "access": dataset.access.facts(),
        "partial": dataset.clone_parts.words() or None,
    }


def _image_facts(image: Image) -> dict[str, Any]:
    return {
        "path": image.path,
        "kind": "labels" if image.is_label else "image",
        "axes": [{"name": axis.name, "type": axis.type, "unit": axis.unit} for axis in image.axes],
        "dtype": image.levels[0].dtype.name if image.levels else None,
        "levels_follow_s0": image.managed,
        "levels": [
            {
                "name": level.name,
                "shape": list(level.shape),
                "voxel_size": list(level.scale),
                "chunk_shape": list(level.chunk_shape),
                "bytes": level.nbytes,
                "codecs": [codec.get("name") for codec in level.array.meta.codecs],
            }
            for level in image.levels
        ],
        "problems": list(image.problems),
    }


def _show_info(answer: dict[str, Any]) -> None:
    if "name" in answer:
        latest = answer["latest"]
        click.secho(answer["name"], bold=True)
        click.echo(
            f"  {count_text(answer['versions'], 'version')}" + (f", latest {latest['version']}" if latest else "")
        )
        click.echo("  branches  " + _refs_text(answer["branches"]))
        if answer["tags"]:
            click.echo("  tags      " + _refs_text(answer["tags"]))
        for name, value in _access_words(answer["access"]):
            say(f"  {name.ljust(8)}  {value}")
        for part in answer["partial"] or ():
            say(f"  partial   {part}")
    for image in answer["images"]:
        axes = " ".join(axis["name"] for axis in image["axes"])
        kind = "label image" if image["kind"] == "labels" else "image"
        click.echo(f"\n{click.style(image['path'] or '/', bold=True)}  {kind}, axes {axes}, {image['dtype']}")
        rows = [
            (
                f"  {level['name']}",
                " x ".join(map(str, level["shape"])),
                size_text(level["bytes"]),
                _voxel_text(level["voxel_size"], image["axes"]),
                "chunks " + ",".join(map(str, level["chunk_shape"])),
            )
            for level in image["levels"]
        ]
        say_table(rows, right=(2,))
        for problem in image["problems"]:
            say(f"  {problem}")
    if not answer["images"]:
        click.echo("  no images")


def _access_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from volfs.cli.settings import access_words
    from volfs.versions.access import access_in

    return [(name, value) for name, value in access_words(access_in({"access": facts})) if value]


def _refs_text(refs: dict[str, str | None]) -> str:
    return ", ".join(f"{name} ({version or 'empty'})" for name, version in refs.items())


def _voxel_text(scale: list[float], axes: list[dict[str, str | None]]) -> str:
    sizes = " x ".join(f"{size:g}" for size in scale)
    units = {axis["unit"] for axis in axes if axis["unit"]}
    if not units:
        return f"{sizes}, unit unknown"
    return f"{sizes} {units.pop()}" if len(units) == 1 else sizes
