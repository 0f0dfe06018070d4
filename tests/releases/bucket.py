"""A server that speaks S3, on loopback, and what tests do with it: moto's, with its objects in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from mmrec_stream.brokers.base import free_port

BUCKET = "shop-models"
ROOT = f"s3://{BUCKET}/mmrec"


class Server:
    """The server, which may go away and come back with what it has."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._running: ThreadedMotoServer | None = None
        self.start()
        self.client: Any = boto3.client("s3", endpoint_url=self.url)
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._running = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._running.start()

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def objects(self) -> dict[str, int]:
        """Sizes of the objects, by key."""
        answer = self.client.list_objects_v2(Bucket=BUCKET)
        return {entry["Key"]: entry["Size"] for entry in answer.get("Contents", [])}

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def serving_s3() -> Iterator[Server]:
    """A server with an empty bucket, named by the environment as every client of S3 is told of one."""
    with pytest.MonkeyPatch.context() as patch:
        port = free_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        server = Server(port)
        try:
            yield server
        finally:
            for key in server.objects():
                server.delete(key)
            server.client.delete_bucket(Bucket=BUCKET)
            server.stop()
