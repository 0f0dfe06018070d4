"""Releases in an S3-compatible bucket, each file under its own sha256: what two of them share is kept once."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmrec_stream.errors import NotNowError, UserError, first_line
from mmrec_stream.releases.folder import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, verify_release
from mmrec_stream.releases.manifest import FileEntry
from mmrec_stream.releases.signing import MAX_SIGNATURE_BYTES

PART = 16 << 20
"""Bytes asked for at a time. A part is what a dropped connection costs, and a request's half minute is enough for it
down to 0.5 MB/s."""

RETRIES = 3
RETRY_TIMEOUT = timedelta(seconds=10)
"""How long the client tries by itself before the store counts as away; whoever can wait asks again later."""

CONNECT_TIMEOUT = timedelta(seconds=3)

_URI = re.compile(r"(?P<root>s3://[^/]+(?:/.+)?)/(?P<sha256>[0-9a-f]{64})")


class Bucket:
    """The releases under one `s3://bucket/prefix`, by the AWS variables of the environment."""

    def __init__(self, root: str) -> None:
        """Nothing is asked of the store yet.

        Raises:
            UserError: what it needs is not installed, or the environment's settings are wrong.
        """
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError:
            raise UserError(
                "releases in a bucket need obstore, which is not installed: pip install 'mmrec-stream[s3]'"
            ) from None
        self.root = root.rstrip("/")
        self._client: Any = obstore
        try:
            self._store: S3Store = S3Store.from_url(
                self.root,
                # Options that are given replace those of the environment.
                client_options={
                    "connect_timeout": CONNECT_TIMEOUT,
                    "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
                },
                retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT},
            )
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise UserError(f"{self.root}: {first_line(error)}") from None

    def push(self, path: Path) -> str:
        """Put a release there, as far as it is not; returns the URI of its manifest.

        The manifest comes last, so that whatever it names is there.

        Raises:
            UserError: the release does not verify, or the store cannot be reached.
        """
        manifest = verify_release(path)
        for name, entry in manifest.files.items():
            self._put_once(entry.sha256, path / name, entry.size)
        content = (path / MANIFEST).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        with self._asking(sha256):
            if (path / SIGNATURE).is_file():
                self._client.put(self._store, f"{sha256}.sig", (path / SIGNATURE).read_bytes())
            self._client.put(self._store, sha256, content)
        return f"{self.root}/{sha256}"

    def manifest(self, sha256: str) -> bytes:
        """A manifest's bytes, of this hash.

        Raises:
            UserError: it is not there, too large or another one; NotNowError where the store cannot be asked.
        """
        content = self._small(sha256, MAX_MANIFEST_BYTES)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"{self.root}/{sha256} is not the {MANIFEST} that was announced: its sha256 differs")
        return content

    def signature(self, sha256: str) -> bytes | None:
        """The signature's file of a manifest of this hash; None where it has none.

        Raises:
            UserError: as `manifest`.
        """
        try:
            return self._small(f"{sha256}.sig", MAX_SIGNATURE_BYTES)
        except _NotThereError:
            return None

    def fetch(self, entry: FileEntry, to: Path, stopped: Callable[[], bool]) -> None:
        """Fetch a file, part by part, and see that it is what its hash says.

        Args:
            entry: which.
            to: where it goes.
            stopped: asked before each part.

        Raises:
            UserError: it is not there, has another size or another hash; NotNowError where the store cannot be asked or
                `stopped` says so.
            OSError: it cannot be written.
        """
        name, digest = entry.sha256, hashlib.sha256()
        if (size := self._size(name)) != entry.size:
            raise UserError(f"{self.root}/{name} has {size} bytes instead of {entry.size}")
        with to.open("wb") as file:
            for start in range(0, entry.size, PART):
                if stopped():
                    raise NotNowError(f"{self.root}/{name}: given up, as this process ends")
                with self._asking(name):
                    part = self._client.get_range(self._store, name, start=start, end=min(start + PART, entry.size))
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != entry.sha256:
            raise UserError(f"{self.root}/{name} holds something else than its sha256 says")

    def _put_once(self, name: str, file: Path, size: int) -> None:
        try:
            if self._size(name) == size:
                return
        except _NotThereError:
            pass
        with self._asking(name):
            self._client.put(self._store, name, file)

    def _small(self, name: str, most: int) -> bytes:
        if (size := self._size(name)) > most:
            raise UserError(f"{self.root}/{name} has {size} bytes, more than the {most} allowed")
        with self._asking(name):
            return bytes(self._client.get(self._store, name).bytes())

    def _size(self, name: str) -> int:
        with self._asking(name):
            return int(self._client.head(self._store, name)["size"])

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise _NotThereError(f"{self.root}/{name} does not exist; announce the release again") from None
        except self._client.exceptions.BaseError as error:
            raise NotNowError(f"{self.root} cannot be asked: {first_line(error)[:300]}") from None


class _NotThereError(UserError):
    """The store has answered, and has no such object."""


def split_uri(uri: str) -> tuple[str, str] | None:
    """Root of the store and hash of the manifest that a release's URI names; None where it is no such URI."""
    match = _URI.fullmatch(uri)
    return (match["root"], match["sha256"]) if match else None
