"""Products' pictures: in a file that vanishes with the process, read through the system's page cache.

Ten thousand thumbnails of 20 KB are 200 MB, of which pages ask for the same few hundred. In memory all of them would
stay; the system keeps those in memory that are wanted.
"""

import os
import tempfile
import threading
from dataclasses import dataclass

from xxhash import xxh3_64_hexdigest

MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
"""What the contract allows, by first bytes. Anything else is not shown: a browser might find a script in it."""

SLACK = 64 << 20
"""Bytes of replaced pictures that may lie in the file before it is written anew; beyond that, as many as are in use."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in the file."""

    digest: str
    kind: str
    """Media type."""
    offset: int
    size: int


class Pictures:
    """The newest picture of each item. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="mmrec-pictures-")  # noqa: SIM115 - lives as long as the process
        self._end = 0
        self._used = 0
        self._pictures: dict[str, Picture] = {}
        self._moving = threading.Lock()

    def put(self, item_id: str, data: bytes) -> Picture | None:
        """Keep an item's picture; None, and none is kept, where the bytes are no JPEG or PNG."""
        kind = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), None)
        if kind is None:
            self.remove(item_id)
            return None
        digest = xxh3_64_hexdigest(data)
        old = self._pictures.get(item_id)
        if old is not None and (old.digest, old.size) == (digest, len(data)):
            return old
        with self._moving:
            picture = Picture(digest, kind, self._end, len(data))
            self._write(data)
            self._used += picture.size - (old.size if old else 0)
            self._pictures[item_id] = picture
            if self._end - self._used > max(SLACK, self._used):
                self._compact()
        return picture

    def remove(self, item_id: str) -> None:
        """Keep no picture of the item."""
        with self._moving:
            if (old := self._pictures.pop(item_id, None)) is not None:
                self._used -= old.size

    def get(self, item_id: str) -> tuple[Picture, bytes] | None:
        """An item's picture."""
        with self._moving:
            picture = self._pictures.get(item_id)
            return None if picture is None else (picture, self._read(picture))

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        os.pwrite(self._file.fileno(), data, self._end)
        self._end += len(data)

    def _read(self, picture: Picture) -> bytes:
        return os.pread(self._file.fileno(), picture.size, picture.offset)

    def _compact(self) -> None:
        old = self._file
        kept = {item_id: (picture, self._read(picture)) for item_id, picture in self._pictures.items()}
        self._file = tempfile.TemporaryFile(prefix="mmrec-pictures-")  # noqa: SIM115 - as in the constructor
        self._end = 0
        for item_id, (picture, data) in kept.items():
            self._pictures[item_id] = Picture(picture.digest, picture.kind, self._end, picture.size)
            self._write(data)
        old.close()
