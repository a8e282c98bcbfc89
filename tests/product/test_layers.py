"""Rooms of the code import only rooms below them: requests go down, and nothing below knows what is above."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(importlib.util.find_spec("volfs").origin).parent  # type: ignore[union-attr, arg-type]

#: From the ground up.
ORDER = ["model", "native", "storage", "catalog", "versions", "volume", "views", "tree", "fuse"]
ALLOWED = {room: set(ORDER[:level]) for level, room in enumerate(ORDER)}
ALLOWED["native"] = set()  # memory, descriptors and bytes
ALLOWED["views"] = {"model"}  # byte layouts know metadata, and nothing of where voxels come from
ALLOWED["ingest"] = {"model", "storage", "catalog", "versions", "volume"}
ALLOWED["export"] = {*ORDER} - {"fuse"}
ALLOWED["web"] = {*ORDER} - {"fuse"}
ALLOWED["cli"] = {*ORDER, "export", "ingest", "web"}
ALLOWED["python"] = {*ORDER} - {"tree", "fuse"}
ALLOWED["testing"] = {*ORDER, "export", "ingest", "web", "cli"}

#: What is inside a room, from the ground up: modules and packages that stand on the same floor. What is not named
#: stands above all of them.
FLOORS: dict[str, list[set[str]]] = {
    "ingest": [{"source"}, {"readers"}],
    "tree": [{"contract"}, {"core"}, {"images"}, {"branches"}, {"files"}, {"monitoring"}, {"nodes"}],
    "versions": [
        {
            *("keys", "author", "access", "dataset_file", "ledger", "inventory", "notes", "rules"),
            *("ref_file", "ref_log", "ref_expr", "clone_parts"),
        },
        {"history", "snapshot", "zarrstore"},
        {"committed"},
        {"working"},
        {"commit"},
        {"retention", "combine"},
        {
            "remotes",
            "remote_commit",
            "commit_request",
            "transaction",
            "branch_actions",
            "branch",
            "catalog_file",
            "dataset",
            "directory_inventory",
            "first_version",
            "onlooker",
            "store",
            "version_log",
            "diff",
            "diff_report",
            "blame",
        },
    ],
    "views": [
        {"layout", "frames", "samples", "plane", "colour", "omero", "documents"},
        {"npy", "png", "tiff", "tiff_decode", "tiff_directory", "png_filters", "decompressors", "slices"},
        {"volume", "ome", "folder"},
        {"volumes", "folders"},
    ],
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def imported_rooms(module: Path) -> set[str]:
    """Rooms that a module imports anywhere, also inside functions. ``volfs`` itself stands for the public surface."""
    tree = parsed(module)
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import hides which room it reaches into"
            names += (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "volfs"
                else [str(node.module)]
            )
    parts = [name.split(".") for name in names if name.split(".")[0] == "volfs"]
    return {name[1] if len(name) > 1 else "volfs" for name in parts}


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(module: Path) -> None:
    where = module.relative_to(PACKAGE).parts
    room = where[0].removesuffix(".py")
    reached = imported_rooms(module)
    if room not in ALLOWED:
        return  # the public surface wires the rooms together
    wrong = reached - ALLOWED[room] - {room, "errors", "__version__"}
    if room in ("fuse", "cli", "testing"):
        wrong -= {"volfs"}  # the public surface, which has the rooms wired together
    assert not wrong, f"{module.relative_to(PACKAGE)} imports {sorted(wrong)}"


def test_only_the_fuse_room_knows_pyfuse3() -> None:
    users = {
        module.relative_to(PACKAGE).parts[0]
        for module in modules()
        if any(
            isinstance(node, ast.Import | ast.ImportFrom)
            and "pyfuse3" in (getattr(node, "module", None) or "", *(alias.name for alias in node.names))
            for node in ast.walk(parsed(module))
        )
    }
    assert users == {"fuse"}


@pytest.mark.parametrize("room", ["model", "storage", "catalog", "versions", "volume", "views", "ingest"])
def test_everything_below_the_tree_is_synchronous(room: str) -> None:
    for module in (PACKAGE / room).rglob("*.py"):
        assert "import trio" not in module.read_text(), module


#: What lies in no store: the control files of another mount, and what the kernel says of processes and mounts.
OUTSIDE = {
    "versions/remote_commit.py",
    "tree/monitoring/statistics.py",
    "storage/claim.py",
    "storage/mount_table.py",
    "tree/core/openers.py",
}


@pytest.mark.parametrize("room", ["storage", "catalog", "versions", "volume", "tree"])
def test_files_of_a_store_are_opened_by_one_module(room: str) -> None:
    """In the place of any of them there may be a FIFO that blocks, or a link that leads elsewhere."""
    wrong = []
    for module in (PACKAGE / room).rglob("*.py"):
        where = module.relative_to(PACKAGE).as_posix()
        if where == "storage/files.py" or where in OUTSIDE:
            continue
        calls = (node for node in ast.walk(parsed(module)) if isinstance(node, ast.Call))
        wrong += [f"{where}:{call.lineno}: {ast.unparse(call)}" for call in calls if opens(call)]
    assert not wrong, wrong


def opens(call: ast.Call) -> bool:
    """Whether a call opens a file by its path. A descriptor that is made a file object is open already."""
    name = ast.unparse(call.func)
    first = call.args[0] if call.args else None
    if name in ("open", "io.open", "os.fdopen"):
        return not any(word.arg == "closefd" for word in call.keywords)
    if name in ("os.open", "np.load", "np.fromfile", "np.memmap", "shutil.copyfile", "shutil.copy", "shutil.copy2"):
        return True
    method = name.rpartition(".")[2]
    if method == "open":
        return isinstance(first, ast.Constant) and isinstance(first.value, str)
    return method in ("read_bytes", "read_text", "write_bytes", "write_text") or (method == "touch" and not call.args)


@cache
def imported_modules(module: Path) -> set[Path]:
    """Files of the package that a module imports anywhere: at its top, for types only, or inside functions."""
    names: list[str] = []
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A name that is imported from a package may be a module in it.
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    paths = {PACKAGE.joinpath(*name.split(".")[1:]) for name in names if name.split(".")[0] == "volfs"}
    candidates = ((path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py")) for path in paths)
    found = {next((one for one in some if one.exists()), some[0].parent / "__init__.py") for some in candidates}
    return found - {module}


@cache
def reached_modules(module: Path) -> set[Path]:
    """Files that a module imports, and those that they import, and so on; the module itself if it is in a circle."""
    reached: set[Path] = set()
    ahead = [module]
    while ahead:
        new = imported_modules(ahead.pop()) - reached
        reached |= new
        ahead += new
    return reached


#: Modules that are called alike because one room mirrors another: a format is read and shown; what versions have the
#: tree has nodes, and the command commands for; pictures of what the voxels of two versions differ in.
MIRRORED = {
    *("bdv", "hdf5", "metaimage", "mrc", "n5", "nifti", "npy", "nrrd", "precomputed", "raw", "slices", "tiff"),
    *("branch", "branch_actions", "dataset", "level", "open_files", "refs", "snapshot"),
    *("merges", "notes", "difference"),
}


def test_no_module_is_called_as_another_that_it_does_not_mirror() -> None:
    names = Counter(module.stem for module in PACKAGE.rglob("*.py") if not module.stem.startswith("__"))
    assert {name for name, times in names.items() if times > 1} == MIRRORED


def test_no_two_files_import_each_other_on_whatever_way_round() -> None:
    circles = {
        str(module.relative_to(PACKAGE)): {
            str(one.relative_to(PACKAGE)) for one in imported_modules(module) if module in reached_modules(one)
        }
        for module in modules()
        if module in reached_modules(module)
    }
    assert not circles, "files and what they import of their circle"


@pytest.mark.parametrize("room", FLOORS)
def test_inside_a_room_a_floor_imports_only_floors_below_it(room: str) -> None:
    floors = {name: level for level, names in enumerate(FLOORS[room]) for name in names}
    there = {path.stem for path in (PACKAGE / room).iterdir()}
    assert floors.keys() <= there, "what is said to be there, and is not"

    def floor(module: Path) -> int:
        return floors.get(module.relative_to(PACKAGE / room).parts[0].removesuffix(".py"), len(FLOORS[room]))

    wrong = [
        f"{module.relative_to(PACKAGE)} imports {imported.relative_to(PACKAGE)}"
        for module in (PACKAGE / room).rglob("*.py")
        for imported in imported_modules(module)
        if imported.is_relative_to(PACKAGE / room) and floor(imported) > floor(module)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "package", [path.parent for path in modules() if path.stem == "__init__"], ids=lambda p: p.name
)
def test_the_docstring_of_a_package_names_every_module_in_it(package: Path) -> None:
    text = ast.get_docstring(parsed(package / "__init__.py")) or ""
    there = {path.stem for path in package.glob("[!_]*.py*") if path.suffix in (".py", ".pyx")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    first = {
        name for line in re.findall(r"^``\w+``(?: ``\w+``)*  ", text, re.MULTILINE) for name in re.findall(r"\w+", line)
    }
    assert there <= set(re.findall(r"``(\w+)``", text))
    assert first <= there, "named, and not there"


#: Who excludes other processes, or gives something its place by renaming it; nothing else may, because what is
#: committed is reached through the three ports alone.
LOCAL = {
    "storage/files.py": "how a file of any kind is written and locked",
    "storage/directory_backend.py": "the directory as a backend",
    "storage/trash.py": "directories are thrown away: working copies, and by the directory's ledger",
    "storage/reserve.py": "space kept for a full disk: a file beside the catalog",
    "versions/commit/publish.py": "the directory as a ledger",
    "versions/directory_inventory.py": "the directory as an inventory",
    "versions/commit/branch_rename.py": "the working copy of a branch that gets another name",
    "versions/commit/recover.py": "working copies whose process died",
    "versions/retention/collector.py": "one process collects at a time",
    "versions/retention/roots.py": "versions that arrive from another store, beside those that are there",
    "versions/dataset.py": "a branch that is in use: the lock of its working copy",
    "versions/remotes/transfer.py": "versions that are arriving lie on a local disk until they are whole",
    "versions/remote_commit.py": "a branch gets another name in the mount that holds it",
    "versions/working/branch_lock.py": "the lock of a working copy",
    "versions/working/working_copy.py": "the working copy",
    "versions/working/layer.py": "the working copy",
    "versions/working/layer_moves.py": "the working copy",
    "versions/check/fsck.py": "working copies whose process died",
    "versions/catalog_file.py": "the catalog is a local file",
    "versions/onlooker.py": "a catalog of one's own is a local file",
    "tree/branches/stages.py": "stages lie in the working copy",
    "export.py": "what is exported lies outside of a store",
    "cli/demo.py": "a store is made under another name, and shown when it is whole",
    "fuse/checkup.py": "a filesystem is asked for what it can do",
}


def test_only_local_files_are_locked_or_renamed() -> None:
    found = {module.relative_to(PACKAGE).as_posix() for module in modules() if locks_or_renames(parsed(module))}
    assert found == set(LOCAL)


#: Paths of what is committed, in the layouts of a store, a dataset and a version. A working copy's are not among them.
COMMITTED = {"volfs_json", "datasets", "dataset", "unfinished"}
COMMITTED |= {"refs", "ref", "versions", "version", "partial", "publish_intent", "previous_ref"}


def test_paths_of_what_is_committed_are_known_to_directories_alone() -> None:
    """So that a bucket can be another implementation of the three ports, and nothing above them changes."""
    found = {
        module.relative_to(PACKAGE / "versions").as_posix()
        for module in (PACKAGE / "versions").rglob("*.py")
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Attribute) and node.attr in COMMITTED and is_layout(node.value)
    }
    ledger = {"commit/publish.py", "commit/retired_list.py"}
    assert found == {*ledger, "directory_inventory.py"}, "a directory as a ledger, and as an inventory"


def is_layout(node: ast.AST) -> bool:
    """Whether an expression is a layout of a store or a dataset, by its name or by what is called to get it."""
    name = ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]
    return name.lstrip("_") in ("layout", "StoreLayout", "DatasetLayout")


def locks_or_renames(tree: ast.AST) -> bool:
    """Whether a module takes locks between processes or renames files: by the system's means or those of storage."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == "fcntl" for alias in node.names):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            method = name.rpartition(".")[2]
            if name in ("os.rename", "os.replace", "os.renames", "shutil.move", "replace_durably", "FileLock"):
                return True
            if method in ("rename", "replace") and "." in name and len(node.args) == 1 and not node.keywords:
                return True  # of a path: strings are replaced by two
    return False


def test_every_room_is_known_here() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(ALLOWED) - {"export"}


def test_a_mount_waits_for_no_import_that_its_first_answer_does_not_need() -> None:
    late = ["PIL", "numcodecs", "sqlite_utils", "tifffile", "urllib.request", "zarr"]
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, volfs.fuse.daemon; print([n for n in {late} if n in sys.modules])"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "[]"
