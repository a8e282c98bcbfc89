"""Mistakes as newcomers make them, and the message that each gets: one line that says what is wrong and what to do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import volfs as api
from tests.kits.mounts import volfs

#: The line, as it is typed where `scan/` has slices and the store is known; and what the answer must say. The store has
#: the dataset `cells` (v1, v2; branches main and exp, which has a change; the tag `paper`; labels/aal) and `empty`.
MISTAKES = [
    ("volfs help", "there is no command 'help': `volfs --help` lists all"),
    ("volfs list", "there is no command 'list': do you mean ls? `volfs --help` lists all"),
    ("volfs comit cells", "there is no command 'comit': do you mean commit? `volfs --help` lists all"),
    ("volfs checkout cells@v1", "there is no command 'checkout': do you mean branch? `volfs --help` lists all"),
    ("volfs mnt place", "there is no command 'mnt': do you mean mount or umount? `volfs --help` lists all"),
    ("volfs --stor store ls", "No such option '--stor'. Did you mean '--store'?"),
    ("volfs --store nothing ls", "nothing is not a volfs store (no volfs.json): make one with `volfs init`"),
    ("volfs --store cells.npy ls", "cells.npy is a file: a store is a directory, made with `volfs init DIRECTORY`"),
    ("volfs --store nowhere ls", "nowhere does not exist: make a store with `volfs init nowhere`"),
    ("VOLFS_STORE= volfs ls", "which store? say volfs --store STORE COMMAND, or set VOLFS_STORE"),
    ("volfs init", "store is a volfs store already"),
    ("volfs init full", "full holds other files: a store is made in an empty directory"),
    ("volfs ls cels", "no dataset 'cels' in store: there is cells, empty"),
    ("volfs ls cells@v9", "dataset 'cells' has no version v9"),
    ("volfs ls cells@v0", "'v0' cannot be a branch or tag: it names a version"),
    ("volfs ls cells@HEAD", "HEAD is no ref here: the head of a branch has the branch's name, such as main"),
    (
        "volfs log cells@v1..v9",
        "dataset 'cells' has no branch, tag, remote branch or version 'v1..v9': there is exp, main, paper",
    ),
    (
        "volfs merge cells nobody",
        "dataset 'cells' has no branch, tag, remote branch or version 'nobody': there is exp, main, paper",
    ),
    ("volfs show cells@v9", "dataset 'cells' has no version v9"),
    (
        "volfs ls cells@",
        "'' is not a ref: write a branch, a tag, v12, latest or digits of a content id, with ~N, ^N or",
    ),
    ("volfs ls @v1", "'@v1' names no dataset: write DATASET, DATASET/PATH or DATASET@REF"),
    ("volfs ls cells:s0", "cells@main has no key 's0'; keys begin with zarr/ or files/"),
    ("volfs ls cells:zarr/s9", "cells@main has no key 'zarr/s9'"),
    ("volfs ls cells/s9", "cells@main has no key 'zarr/s9'"),
    ("volfs ls store/cells", "no dataset 'store' in store: there is cells, empty"),
    ("volfs info", "Missing argument 'DATASET[/PATH][@REF]'."),
    ("volfs info cells:", "'cells:': no key can be named here; leave out the colon and what is behind it"),
    (
        "volfs info cells:zarr/s0",
        "'cells:zarr/s0': no key can be named here; leave out the colon and what is behind it",
    ),
    ("volfs info cells/label", "no image is at label of cells@main; do you mean cells/labels/aal?"),
    ("volfs info cells/labels", "no image is at labels of cells@main; do you mean cells/labels/aal?"),
    ("volfs info cells/aal", "no image is at aal of cells@main; do you mean cells/labels/aal?"),
    ("volfs info cells/labels/all", "no image is at labels/all of cells@main; do you mean cells/labels/aal?"),
    ("volfs info empty/s0", "no image is at s0 of empty@main, and none elsewhere in it; volfs ls empty lists keys"),
    ("volfs info cells v1", "Got unexpected extra argument (v1)"),
    ("volfs info Cells", "no dataset 'Cells' in store: there is cells, empty"),
    (
        "volfs info 'my cells'",
        "'my cells' cannot be a dataset name: letters, digits, '.', '_', '+' and '-' only, at most 128,",
    ),
    (
        "volfs log cells@nobody",
        "dataset 'cells' has no branch, tag, remote branch or version 'nobody': there is exp, main, paper",
    ),
    ("volfs log cells -n 0", "Invalid value for '-n' / '--number': 0 is not in the range x>=1."),
    ("volfs log cells@paper~1", "v1 has 0 versions before it, not 1"),
    ("volfs tag cells:zarr new", "no dataset 'cells:zarr' in store: there is cells, empty"),
    ("volfs status cells@v1", "dataset 'cells' has no branch 'v1': there is exp, main"),
    ("volfs status cells@paper", "dataset 'cells' has no branch 'paper': there is exp, main"),
    ("volfs status nobody", "no dataset 'nobody' in store: there is cells, empty"),
    ("volfs commit", "Missing argument 'DATASET[@BRANCH]'."),
    ("volfs commit cells -m nothing", "nothing to commit: branch 'main' is the same as v2"),
    ("volfs commit cells", 'a commit needs a message: --message "what changed"'),
    ("volfs commit cells@v1 -m old", "dataset 'cells' has no branch 'v1': there is exp, main"),
    (
        "volfs commit cells@main:zarr -m part",
        "'cells@main:zarr': no key can be named here; leave out the colon and what is behind it",
    ),
    ("volfs commit -m message", "Missing argument 'DATASET[@BRANCH]'."),
    ("volfs commit cells@nobody -m message", "dataset 'cells' has no branch 'nobody': there is exp, main"),
    ("volfs discard", "Missing argument 'DATASET[@BRANCH]'."),
    ("volfs discard cells ''", "an empty key means nothing; to discard everything, name none"),
    ("volfs discard cells@v2", "dataset 'cells' has no branch 'v2': there is exp, main"),
    ("volfs branch", "Missing argument 'DATASET'."),
    ("volfs branch cells main", "dataset 'cells' has a branch 'main' already"),
    ("volfs branch cells v3", "'v3' cannot be a branch or tag: it names a version"),
    (
        "volfs branch cells 'a b'",
        "'a b' cannot be a branch or tag: letters, digits, '.', '_', '+' and '-' only, at most 128,",
    ),
    ("volfs branch cells latest", "'latest' cannot be a branch or tag: it names a version"),
    ("volfs branch cells new v9", "dataset 'cells' has no version v9"),
    ("volfs branch cells --delete main", "'main' is the default branch of dataset 'cells': it cannot be removed"),
    ("volfs branch cells --delete exp", "branch 'exp' has uncommitted changes: commit or discard them first"),
    ("volfs branch cells --delete nobody", "dataset 'cells' has no branch 'nobody': there is exp, main"),
    ("volfs branch cells --delete", "--delete needs a NAME"),
    ("volfs branch nobody new", "no dataset 'nobody' in store: there is cells, empty"),
    ("volfs tag cells paper v2", "dataset 'cells' has a tag 'paper' already"),
    ("volfs tag cells main", "dataset 'cells' has a branch 'main' already"),
    ("volfs tag cells v1", "'v1' cannot be a branch or tag: it names a version"),
    ("volfs tag cells --delete nobody", "dataset 'cells' has no tag 'nobody': there is paper"),
    ("volfs tag empty first", "branch 'main' of dataset 'empty' has no version yet"),
    (
        "volfs rm cells",
        "Remove the dataset cells with 2 versions? Nothing of it can be brought back. Say --yes to do it",
    ),
    ("volfs rm nobody --yes", "no dataset 'nobody' in store: there is cells, empty"),
    (
        "volfs rm cells@exp",
        "name a KEY to remove, a version (DATASET@v3), or the DATASET alone; `volfs branch --delete` removes",
    ),
    ("volfs rm cells:zarr/s9", "cells@main has no key 'zarr/s9'"),
    ("volfs import", "Missing argument 'DATASET[/PATH]'."),
    ("volfs import cells", "Missing argument 'SRC...'."),
    ("volfs import new nowhere.tif", "nowhere.tif does not exist"),
    (
        "volfs import new notes.txt",
        "notes.txt is not of a kind that volfs imports: directories or lists of PNG, TIFF, JPEG or DICOM",
    ),
    ("volfs import new cut.tif", "cut.tif is unreadable or cut short: page 2 lies past its end"),
    (
        "volfs import new nothing",
        "nothing holds neither slices (PNG, TIFF, JPEG, DICOM) nor Zarr, N5 or a precomputed volume",
    ),
    (
        "volfs import new scan",
        "slices are missing: z003.png (1 of 4): find them, or say --gaps skip (leave them out), fill (planes",
    ),
    ("volfs import new mixed", "mixed/z001.png is 16 x 9 uint8, but z000.png is 16 x 16 uint8: slices must be alike"),
    ("volfs import new line.npy", "line.npy has 1 axis, an image has 2 to 6"),
    ("volfs import new real.npy --labels", "a label image has whole numbers, but real has 0.142857 at z 0, y 0, x 1"),
    (
        "volfs import new cells.npy --voxel-size 40,4",
        "the voxel size has 2 values, but the axes are z,y,x: give 1 number or 3 for z,y,x",
    ),
    (
        "volfs import new multi.npy --voxel-size 1,2",
        "the voxel size has 2 values, but the axes are c,z,y,x: give 1 number, 3 for z,y,x, or 4 for c,z,y,x",
    ),
    (
        "volfs import new cells.npy --voxel-size 40x4x4furlong",
        "voxel size '40x4x4furlong': write it like 40,4,4nm (in the order of the axes) or 0.5um",
    ),
    ("volfs import new cells.npy --chunks 64,64", "chunks 64,64: the axes are z,y,x: give 1 number or 3 for z,y,x"),
    ("volfs import new cells.npy --chunks 0", "--chunks: '0' is not a list of positive whole numbers such as 64,64,64"),
    ("volfs import new cells.npy --shard 3,3,3", "shard 3 x 3 x 3 is not a whole number of chunks of 8 x 16 x 16"),
    ("volfs import new cells.npy --axes xyzt", "cells has 3 axes (shape (8, 16, 16)), but --axes names 4"),
    (
        "volfs import new cells.npy --axes zz",
        "axes 'zz': write them like zyx or tczyx, each once, in the order of the data",
    ),
    (
        "volfs import new cells.npy --levels all",
        "Invalid value for '--levels': auto, or how many, 1 being full resolution alone",
    ),
    (
        "volfs import cells@exp cells.npy",
        "cells@exp: an import makes a version on the default branch; name DATASET or DATASET/PATH",
    ),
    ("volfs import cells/s0/inner cells.npy", "'s0' is an array: no image can be below it"),
    ("volfs import new cells.npy:1", "cells.npy has no parts to choose from: leave out :1"),
    ("volfs import cells/labels/small wide.npy", "the label image wide has 8 voxels along y, its image has 16"),
    ("volfs export cells", "Missing argument 'OUT'."),
    (
        "volfs export cells out",
        "which format is 'out'? say --format with one of tif imagej.tif nii nrrd nhdr npy mrc raw mha h5",
    ),
    (
        "volfs export cells out.jpg",
        "which format is 'jpg'? say --format with one of tif imagej.tif nii nrrd nhdr npy mrc raw mha h5",
    ),
    ("volfs export cells nowhere/out.tif", "nowhere does not exist: make that directory first"),
    ("volfs export cells cells.npy", "cells.npy exists: choose another place, or say --overwrite"),
    ("volfs export cells out.tif --level s7", "there is no level s7: the image has s0"),
    (
        "volfs export cells out.tif --box 0-4",
        "there is no cells/branches/main/s0/cutout/0-4.tif: a box is ranges of voxels inside the level, such",
    ),
    (
        "volfs export cells out.tif --box z0-99",
        "there is no cells/branches/main/s0/cutout/z0-99.tif: a box is ranges of voxels inside the level,",
    ),
    ("volfs export cells/label out.tif", "no image is at label of cells@main; do you mean cells/labels/aal?"),
    (
        "volfs export cells out --format tiff",
        "which format is 'tiff'? say --format with one of tif imagej.tif nii nrrd nhdr npy mrc raw mha h5",
    ),
    ("volfs mount", "Missing argument 'MOUNTPOINT'."),
    ("volfs mount nowhere", "nowhere: no such directory; make it with: mkdir -p nowhere"),
    ("volfs mount full", "full: the directory is not empty; mounting would hide what is in it"),
    ("volfs mount cells.npy", "cells.npy: not a directory; a mountpoint is an empty directory"),
    ("volfs mount store", "store: the mountpoint and the store store must not lie inside each other"),
    (
        "volfs --store nothing mount nothing",
        "nothing: the mountpoint and the store nothing must not lie inside each other",
    ),
    ("volfs umount nothing", "nothing: nothing is mounted here"),
    ("volfs umount", "Missing argument 'MOUNTPOINT'."),
    ("volfs top nothing --once", "nothing: no volfs mount is here"),
    ("volfs stats nothing", "nothing: no volfs mount is here"),
    ("volfs config cells colour=red", "'colour=red' is no setting; there are owner=…, group=…, mode=…"),
    (
        "volfs config cells mode=999",
        "'999' is not a set of permission bits; write three octal digits such as 027 or 750",
    ),
    ("volfs config cells owner=nobody-at-all", "this machine knows no user 'nobody-at-all'; give a name or a number"),
    ("volfs fsck nobody", "no dataset 'nobody' in store: there is cells, empty"),
    ("volfs completion csh", "Invalid value for '{bash|zsh|fish}': 'csh' is not one of 'bash', 'zsh', 'fish'."),
    ("volfs demo --edge 3", "Invalid value for '--edge': 3 is not in the range 64<=x<=2048."),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as a newcomer may have it."""
    root = tmp_path_factory.mktemp("newcomer")
    voxels = np.arange(8 * 16 * 16, dtype=np.uint8).reshape(8, 16, 16)
    np.save(root / "cells.npy", voxels)
    np.save(root / "wide.npy", voxels.astype(np.uint16)[:, :8])
    np.save(root / "real.npy", voxels / 7)
    np.save(root / "line.npy", np.zeros(5))
    np.save(root / "multi.npy", np.zeros((2, 3, 8, 8), np.uint8))
    tifffile.imwrite(root / "stack.tif", voxels, photometric="minisblack")
    (root / "notes.txt").write_text("no image")
    (root / "cut.tif").write_bytes((root / "stack.tif").read_bytes()[:300])
    (root / "nothing").mkdir()
    (root / "full").mkdir()
    (root / "full" / "file").touch()
    (root / "scan").mkdir()
    for number in (1, 2, 4):
        Image.fromarray(voxels[number]).save(root / "scan" / f"z{number:03}.png")
    (root / "mixed").mkdir()
    Image.fromarray(voxels[0]).save(root / "mixed" / "z000.png")
    Image.fromarray(voxels[0, :9]).save(root / "mixed" / "z001.png")
    store = root / "store"
    volfs(store, "init")
    volfs(store, "import", "cells", root / "cells.npy", "--levels", "1", "--chunks", "8,8,8")
    volfs(store, "import", "cells/labels/aal", root / "cells.npy", "--labels", "--levels", "1")
    volfs(store, "tag", "cells", "paper", "v1")
    volfs(store, "branch", "cells", "exp")
    with api.open_store(store) as opened:
        opened["cells"].branch("exp").put("files/notes.txt", b"changed")
        with opened.new_dataset("empty"):
            pass
    return root


def attempt(place: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The status, and what is said on standard error, with the place's own directory left out."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("VOLFS_STORE", str(place / "store"))
    program, *words = shlex.split(line)
    while "=" in program:  # VOLFS_STORE=… volfs …
        name, _, value = program.partition("=")
        monkeypatch.setenv(name, value)
        program, *words = words
    assert program == "volfs"
    done = volfs(None, *words, ok=False)
    return done.returncode, (done.stdout + done.stderr).replace(f"{place}/", "")


@pytest.mark.parametrize(("line", "wanted"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_told_and_how_to_do_better(
    place: Path, line: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = attempt(place, line, monkeypatch)
    assert status in (1, 2), f"status {status}: {said}"
    lines = said.strip().splitlines()
    if status == 1:
        assert len(lines) == 1 and lines[0].startswith("volfs: "), said
    else:
        assert lines[0].startswith("Usage: volfs") and lines[-1].startswith("Error: "), said
    assert wanted in lines[-1], said
    assert "defect" not in said and "Traceback" not in said and not re.search(r"\b1 \w+s\b(?<!this)(?<!is)", said), said


def test_there_are_as_many_as_a_newcomer_makes_in_a_week() -> None:
    assert len({line for line, _ in MISTAKES}) == len(MISTAKES) >= 80


def test_a_second_import_says_what_differs_from_the_image_that_it_replaces(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    volfs(store, "init")
    first = volfs(store, "import", "a", place / "cells.npy", "--voxel-size", "40,4,4nm", "--levels", "1")
    assert "differs" not in first.stderr
    again = volfs(store, "import", "a", place / "cells.npy", "--voxel-size", "40,4,4nm", "--levels", "1")
    assert again.stderr == "", "nothing but voxels is other"
    other = volfs(store, "import", "a", place / "wide.npy", "--voxel-size", "50,4,4nm", "--levels", "1")
    for words in (
        "differs from the image of v2 that it replaces",
        "size 8 x 8 x 16, not 8 x 16 x 16",
        "type uint16, not uint8",
        "voxel size z 50 nanometer, y 4 nanometer, x 4 nanometer, not z 40 nanometer",
    ):
        assert words in other.stderr, other.stderr
    planned = volfs(store, "import", "a", place / "cells.npy", "--dry-run")
    assert "voxel size unknown, not z 50 nanometer" in planned.stderr


def test_a_voxel_size_that_nobody_said_is_unknown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = attempt(place, "volfs info cells", monkeypatch)
    assert "1 x 1 x 1, unit unknown" in said
