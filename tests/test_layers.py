"""Rooms of the code import only rooms below them: requests go down, and nothing below knows what is above."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(importlib.util.find_spec("volfs").origin).parent  # type: ignore[union-attr, arg-type]

#: From the ground up.
ORDER = ["model", "storage", "catalog", "versions", "volume", "views", "tree", "fuse"]
ALLOWED = {room: set(ORDER[:level]) for level, room in enumerate(ORDER)}
ALLOWED["views"] = {"model"}  # byte layouts know metadata, and nothing of where voxels come from
ALLOWED["ingest"] = {"model", "storage", "catalog", "versions", "volume"}
ALLOWED["cli"] = {*ORDER, "ingest"}
ALLOWED["testing"] = {*ORDER, "ingest", "cli"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported_rooms(module: Path) -> set[str]:
    """Rooms that a module imports anywhere, also inside functions. ``volfs`` itself stands for the public surface."""
    tree = ast.parse(module.read_text())
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
    room = where[0] if len(where) > 1 else None
    reached = imported_rooms(module)
    if room is None:
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
            for node in ast.walk(ast.parse(module.read_text()))
        )
    }
    assert users == {"fuse"}


@pytest.mark.parametrize("room", ["model", "storage", "catalog", "versions", "volume", "views", "ingest"])
def test_everything_below_the_tree_is_synchronous(room: str) -> None:
    for module in (PACKAGE / room).rglob("*.py"):
        assert "import trio" not in module.read_text(), module


#: What lies in no store: the control files of another mount, and what the kernel says of processes and mounts.
OUTSIDE = {"versions/forward.py", "tree/statistics.py", "storage/claim.py", "storage/mount_table.py", "tree/openers.py"}


@pytest.mark.parametrize("room", ["storage", "catalog", "versions", "volume", "tree"])
def test_files_of_a_store_are_opened_by_one_module(room: str) -> None:
    """In the place of any of them there may be a FIFO that blocks, or a link that leads elsewhere."""
    wrong = []
    for module in (PACKAGE / room).rglob("*.py"):
        where = module.relative_to(PACKAGE).as_posix()
        if where == "storage/files.py" or where in OUTSIDE:
            continue
        calls = (node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call))
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


def test_every_room_is_known_here() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(ALLOWED)


def test_a_mount_waits_for_no_import_that_its_first_answer_does_not_need() -> None:
    late = ["PIL", "numcodecs", "sqlite_utils", "tifffile", "urllib.request", "zarr"]
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, volfs.fuse.daemon; print([n for n in {late} if n in sys.modules])"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "[]"
