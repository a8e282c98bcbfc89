"""``export``: what it does is in :mod:`volfs.export`."""

from __future__ import annotations

from pathlib import Path

import click

from volfs.cli.frame import (
    Frame,
    count_text,
    json_option,
    parse_dataset_arg,
    pass_frame,
    path_value,
    progress,
    say_json,
    size_text,
)
from volfs.errors import BadInput


@click.command("export")
@click.argument("source", metavar="DATASET[/PATH][@REF]")
@click.argument("out", metavar="OUT", callback=path_value)
@click.option("-f", "--format", "kind", metavar="FORMAT", help="What to write; else what OUT ends in.")
@click.option("--level", default="s0", show_default=True, help="Which resolution level, of files and slices.")
@click.option("--box", metavar="NAME", help="A part of the level, as in cutout/: z0-64_y100-612, t3_c1.")
@click.option(
    "--plane", type=click.Choice(("xy", "xz", "yz")), default="xy", show_default=True, help="Which slices to write."
)
@click.option("--path", metavar="PATH", help="Anything else of the version, such as s0/xz/y00034.iso.png.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@json_option
@pass_frame
def export(
    frame: Frame,
    source: str,
    out: Path,
    kind: str | None,
    level: str,
    box: str | None,
    plane: str,
    path: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write an image as a file of another program.

    OUT is a plain file or directory, in any format that a mount shows.

    \b
    Files: tif nii nrrd nhdr npy mrc raw mha h5, and imagej.tif beyond 4 GiB
    Directories: zarr (OME-Zarr 0.5), zarr2 (0.4), sharded-zarr, n5, n5-zstd
    (one-byte voxels, as they are stored), precomputed, tiles, slices, files (the
    dataset's side files), and bdv: a directory with an N5 and its BigDataViewer
    XML.

    OUT appears when it is complete, or not at all.

    \b
    Examples:
      volfs export cells@v3 cells.nii
      volfs export cells slices/ --format slices --plane xz
      volfs export cells/labels/nuclei part.tif --box z0-64_y100-612
    """
    from volfs.export import FILES, FOLDERS, OTHERS, wanted, wanted_path
    from volfs.export import export as copy

    argument = parse_dataset_arg(source, key=True)
    if argument.key is not None:
        raise BadInput(f"{source}: an export writes an image; name DATASET, DATASET/PATH or DATASET/PATH@REF")
    known = (*FILES, *FOLDERS, *OTHERS)
    kind = kind or out.suffix[1:].lower()
    if path is not None and (box is not None or argument.spec.path):
        raise BadInput("--path says where everything is: name DATASET or DATASET@REF, and no --box")
    if path is None and kind not in known:
        raise BadInput(f"which format is {kind or out.name!r}? say --format with one of {' '.join(known)}")
    if box is not None and kind not in FILES:
        raise BadInput(f"--box cuts files ({' '.join(FILES)}); {kind} is written whole")
    with (
        frame.open(read_only=True) as store,
        progress(f"exporting {out.name}", in_bytes=True, show=not as_json) as tell,
    ):
        snapshot = argument.snapshot(store)
        store[argument.spec.dataset].check_shown(snapshot)
        if path is not None:
            jobs = wanted_path(snapshot, path, out)
        else:
            jobs = wanted(snapshot, argument.spec.path, kind, out, level=level, box=box or "", plane=plane)
        copied = copy(store, jobs, tell, overwrite=overwrite)
    if as_json:
        say_json({"paths": [job.out for job in jobs], "files": copied.files, "bytes": copied.bytes})
    else:
        click.echo(f"{out}: {count_text(copied.files, 'file')}, {size_text(copied.bytes)}")
