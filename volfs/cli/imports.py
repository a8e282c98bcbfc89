"""``import``: what it does is in :mod:`volfs.ingest.importer`."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Literal

import click

from volfs.cli.frame import (
    Frame,
    json_option,
    numbers,
    parse_dataset_arg,
    pass_frame,
    progress,
    say_json,
    size_text,
    version_facts,
)
from volfs.errors import BadInput, VolfsError

if TYPE_CHECKING:
    from volfs.ingest.outline import Outline
    from volfs.ingest.readers.slice_numbers import Duplicates, Gaps
    from volfs.ingest.volume_stream import Progress


def _levels(_: click.Context, __: click.Parameter, text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or not 1 <= int(text) <= 32:
        raise click.BadParameter("auto, or how many, 1 being full resolution alone")
    return int(text)


@click.command("import")
@click.argument("target", metavar="DATASET[/PATH]")
@click.argument("sources", nargs=-1, required=True, metavar="SRC...")
@click.option("--axes", metavar="NAMES", help="One letter per axis in the order of the files, such as tczyx.")
@click.option("--voxel-size", metavar="SIZE", help="In the order of the axes, z first: 40,4,4nm.")
@click.option("--chunks", metavar="Z,Y,X", help="Voxels per chunk, along the axes of space or along all.")
@click.option("--shard", metavar="Z,Y,X", help="Voxels per shard file; else chosen by size.")
@click.option("--levels", default="auto", metavar="auto|N", callback=_levels, help="How many levels; auto by default.")
@click.option(
    "--labels/--no-labels",
    default=None,
    help="A segmentation (coarser levels take the most frequent label) or none; else as the source says.",
)
@click.option(
    "--gaps",
    type=click.Choice(("skip", "fill", "nearest")),
    help="Take slices whose numbers have gaps: without those, or with zeros or the nearest slice there.",
)
@click.option(
    "--duplicates", type=click.Choice(("first", "last")), help="Which of several slices of the same number to take."
)
@click.option("--dry-run", is_flag=True, help="Say what would be made and what it would replace; write nothing.")
@click.option("-m", "--message", help="What the new version says; else what was imported.")
@click.option("--author", help="Who imports; else VOLFS_AUTHOR, else user@host.")
@json_option
@pass_frame
def import_(
    frame: Frame,
    target: str,
    sources: tuple[str, ...],
    axes: str | None,
    voxel_size: str | None,
    chunks: str | None,
    shard: str | None,
    levels: int | Literal["auto"],
    labels: bool | None,
    gaps: Gaps | None,
    duplicates: Duplicates | None,
    dry_run: bool,
    message: str | None,
    author: str | None,
    as_json: bool,
) -> None:
    """Import images as a new version of a dataset.

    DATASET is made if there is none. SRC is a directory, a glob or a list of slices (PNG, TIFF, JPEG, DICOM); a TIFF
    stack, NIfTI, NRRD, MetaImage, MRC, HDF5 or NPY file; a ZIP of slices; Zarr v2 or v3 (also OME-Zarr), N5, the .xml
    of BigDataViewer, or Neuroglancer's precomputed. Files are known by their content, whatever they are called.

    SRC:PART is one image of several, by its name or its number: scan.h5:/path/to/dataset, an image of a TIFF
    (slide.svs:Baseline, cells.ome.tif:1), a DICOM series by its number (head:4), a setup of an .xml
    (embryo.xml:0), a resolution level of Imaris (embryo.ims:1). Without PART the images of such a source are listed.

    PATH is where the image goes in the hierarchy: cells/labels/nuclei for a label image.

    \b
    Examples:
      volfs import brain 'scan/*.tif' --voxel-size 40,4,4nm
      volfs import brain/labels/nuclei nuclei.tif --labels
      volfs import brain scan.h5:/raw --dry-run
    """
    from volfs.ingest.importer import ImportOptions, import_source, outline
    from volfs.ingest.outline import by
    from volfs.ingest.readers import open_source
    from volfs.ingest.readers.slice_numbers import SliceRules
    from volfs.volume.image import image_at

    argument = parse_dataset_arg(target, key=True)
    if argument.spec.ref is not None or argument.key is not None:
        raise BadInput(f"{target}: an import makes a version on the default branch; name DATASET or DATASET/PATH")
    options = ImportOptions(
        axes=axes,
        voxel_size=voxel_size,
        chunks=numbers(chunks, "--chunks") if chunks else None,
        shard=numbers(shard, "--shard") if shard else None,
        levels=levels,
        labels=labels,
        message=message,
        author=author,
    )
    rules = SliceRules(gaps, duplicates)
    if dry_run:
        with (
            frame.open(read_only=True) as store,
            open_source(sources, rules) as source,
            _interruptible() as cancel,
        ):
            planned = outline(store, argument.spec.dataset, argument.spec.path, source, options, cancel=cancel)
            new = argument.spec.dataset not in store
        _say_outline(target, planned, new=new, as_json=as_json)
        return
    with (
        frame.open() as store,
        open_source(sources, rules) as source,
        progress(f"importing {source.description.name}", in_bytes=True, show=not as_json) as tell,
        _interruptible() as cancel,
    ):

        def report(now: Progress) -> None:
            tell(now.done, now.total)

        lines: list[str] = []
        made = import_source(
            store,
            argument.spec.dataset,
            argument.spec.path,
            source,
            options,
            progress=report,
            cancel=cancel,
            say=lines.append,
        )
        # Labels and real values are not always kept in the type of the source.
        kept = image_at(store[argument.spec.dataset].version(made.number), argument.spec.path.strip("/"))
    if as_json:
        say_json({**version_facts(made.info), "branch": made.branch, "remarks": lines})
    else:
        for line in lines:
            click.echo(f"{target}: {line}", err=True)
        dtype = source.description.dtype if kept is None else kept.levels[0].dtype
        where = f" on the new branch {made.branch}" if made.why is not None else ""
        click.echo(f"{target}: v{made.number}{where}, {by(source.description.shape)} {dtype.name}")


def _say_outline(target: str, made: Outline, *, new: bool, as_json: bool) -> None:
    """What an import would make. Numbers are in the order of the axes."""
    from volfs.ingest.outline import by, voxel_words

    if as_json:
        images = [image.document() for image in made.images]
        say_json({"target": target, "new_dataset": new, "images": images, "remarks": made.remarks})
        return
    for line in made.remarks:
        click.echo(f"{target}: {line}", err=True)
    for image in made.images:
        first = image.levels[0]
        rows = {
            "image": f"{image.name}{' (labels)' if image.is_label else ''}{f', at {image.path}' if image.path else ''}",
            "axes": " ".join(a.name for a in image.axes),
            "size": f"{by(first.shape)} {image.dtype.name}",
            "voxel size": voxel_words(image.axes, first.scale),
            "chunks": by(first.chunks) + (f", in shards of {by(image.shard)}" if image.shard else ""),
            "levels": f"{len(image.levels)}: {', '.join(by(level.shape) for level in image.levels)}",
            "bytes": f"{size_text(image.nbytes)}, {size_text(image.total_nbytes)} with all levels, before compression",
            "replaces": image.replaces or ("nothing: a new dataset" if new else "nothing"),
        }
        for name, text in rows.items():
            click.echo(f"{name:11}{text}")


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C asks the import to stop, which it does between two pieces of work; the second one does not wait."""
    cancel = threading.Event()

    def ask(number: int, where: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield cancel
    except VolfsError:
        if cancel.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
