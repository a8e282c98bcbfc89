"""Text of others on a terminal: messages, authors and names with escapes and forged lines are shown harmlessly."""

from __future__ import annotations

import json
import logging

import pytest

from tests.kits.mounts import answer, volfs
from tests.kits.stores import new_store, volume, write_version
from volfs.fuse.logs import FORMAT, _Text
from volfs.versions.author import split_author, with_author
from volfs.versions.commit.version_writer import VersionWriter
from volfs.views.documents import log_txt, version_json

MESSAGE = "evil \x1b[31m\x07 red\nv9  2020-01-01 forged line\r\noverwritten\rlie \u202e rtl \x9b1m"
AUTHOR = "me\x1b[2J\nv8 forged"
NAME = "esc\x1b[31m\nname"
HARMFUL = ("\x1b", "\x07", "\r", "\u202e", "\x9b")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("escapes") / "store"
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume((8, 8, 8)))
        with VersionWriter(dataset, "main", 1) as writer:
            writer.put(f"files/{NAME}", b"1")
            writer.publish(MESSAGE, AUTHOR)
        loose = dataset.layout.working("main").root / "top/files"
        loose.mkdir(parents=True, exist_ok=True)
        (loose / f"loose{NAME}").write_bytes(b"1")
    return root


def run(root, *arguments):
    done = volfs(root, *arguments, ok=False)
    return done.stdout + done.stderr


def is_harmless(text):
    assert not [harmful for harmful in HARMFUL if harmful in text], text
    assert not [line for line in text.splitlines() if line.startswith(("v8", "v9", "name"))], text


@pytest.mark.parametrize(
    "command",
    [
        ("log", "cells"),
        ("log", "cells", "--oneline"),
        ("ls", "-l"),
        ("ls", "cells:files"),
        ("ls", "-l", "cells@v2:files"),
        ("status",),
        ("status", "cells"),
        ("fsck",),
        ("log", "cells@\x1b[31m"),
        ("ls", "cells:files/\x1b[31m\nv9"),
        ("log", "--json", "cells"),
    ],
)
def test_no_command_shows_control_characters_as_they_are(root, command):
    said = run(root, *command)
    assert said
    is_harmless(said)


def test_json_says_what_was_written_all_the_same(root):
    (newest, _) = answer(root, "log", "cells")
    assert newest["message"] == MESSAGE.strip()
    assert newest["author"] == AUTHOR


def test_an_author_of_several_lines_is_told_to_a_mount_in_one():
    message, author = split_author(with_author(MESSAGE, AUTHOR))
    assert message == MESSAGE
    assert author == "me\x1b[2J v8 forged"


def test_the_files_of_a_mount_show_them_harmlessly(root):
    from volfs import open_store

    with open_store(root, read_only=True) as store:
        versions = store["cells"].versions()
    is_harmless(log_txt(versions).decode())
    shown = version_json(versions[-1], ()).decode()
    is_harmless(shown)
    assert json.loads(shown)["message"] == MESSAGE.strip()


def test_the_daemons_log_shows_them_harmlessly():
    try:
        raise ValueError(f"bad {NAME}")
    except ValueError as error:
        record = logging.LogRecord("volfs", logging.ERROR, "", 1, "dataset %s", (NAME,), (type(error), error, None))
    text = _Text(FORMAT).format(record)
    is_harmless(text.partition("\n")[0])
    assert not [harmful for harmful in HARMFUL if harmful in text]
    assert r"dataset esc\x1b[31m\nname" in text
