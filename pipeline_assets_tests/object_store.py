"""An S3 server for the tests: moto's HTTP server in a process of its own, on loopback, spoken to by the real client."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline_assets_tests.snowflake_server import wait_for

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "geheim", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class ObjectStore:
    """A running server with one bucket. The client takes its credentials from the environment."""

    port: int

    def url(self, path: str) -> str:
        return f"s3://shop/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def upload(self, folder: Path, path: str) -> None:
        """Put the files below `folder` under `path`, as they are."""
        from pyarrow.fs import FileSystem

        system, root = FileSystem.from_uri(self.url(path))
        system.create_dir(root)  # a folder without objects is there only if it is marked
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            # compression=None: Arrow would pack a .gz once more
            with system.open_output_stream(f"{root}/{file.relative_to(folder)}", compression=None) as stream:
                stream.write(file.read_bytes())


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """The session's server. Its log is kept with the tests' files."""
    from pyarrow.fs import FileSystem

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("wb") as output, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(port, server)
            store = ObjectStore(port)
            system, _ = FileSystem.from_uri(f"{store.url('')}&allow_bucket_creation=true")
            system.create_dir("shop")
            yield store
        finally:
            server.terminate()
            server.wait(10)
