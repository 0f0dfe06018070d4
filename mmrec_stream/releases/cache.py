"""Copies of releases out of a store on this machine's disk, within a bound, for all processes that share the folder.

A release is a folder here as everywhere, named by its manifest's hash; files that two of them share are one on disk
(hard links). One process at a time fetches and loads; whoever has loaded a release has its files mapped, so that a copy
may go at any time after.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mmrec_stream.errors import NotNowError, UserError
from mmrec_stream.releases.folder import (
    MANIFEST,
    MAX_FILE_BYTES,
    SIGNATURE,
    Expected,
    signer_of,
    unexpected,
    verify_release,
)
from mmrec_stream.releases.manifest import FileEntry, decode_manifest
from mmrec_stream.releases.objects import Bucket
from mmrec_stream.releases.signing import PublicKeys

SPARE_BYTES = 64 << 20
"""What is left free on the disk, for logs and whatever else writes there."""

LOCK_S = 1.0
"""How often whoever waits for another process's fetch looks whether it has to end."""


class Cache:
    """The copies in one folder."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Nothing is touched yet.

        Args:
            folder: where the copies lie; made when it is needed.
            most_bytes: what they may take together.
        """
        self._folder = folder
        self._most = most_bytes

    @contextmanager
    def holding(
        self, bucket: Bucket, sha256: str, expected: Expected, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Path]:
        """The folder of a release, fetched where it is not there yet; it stays as long as the block lasts.

        Args:
            bucket: where it is fetched from.
            sha256: of its manifest, which says which it is.
            expected: what else it has to be.
            stopped: asked while something is waited for.

        Raises:
            UserError: it is not what it should be, or takes more than all copies may.
            NotNowError: the store cannot be asked, the disk is full, or `stopped` says so.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone(stopped):
                self._clear()
                path = self._folder / sha256
                if not self._whole(path, sha256, expected.keys):
                    self._fetch(bucket, sha256, path, expected, stopped)
                os.utime(path)  # what was used last goes last
                yield path
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise NotNowError(f"{self._folder}: {reason}; make room there, or set MMREC_DATA_DIR") from error

    @contextmanager
    def _alone(self, stopped: Callable[[], bool]) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self._folder / ".lock")
        while True:
            try:
                lock.acquire(timeout=LOCK_S)
                break
            except Timeout:
                if stopped():
                    raise NotNowError(f"{self._folder}: given up, as this process ends") from None
        try:
            yield
        finally:
            lock.release()

    def _clear(self) -> None:
        """Remove what a process that was killed has left half done."""
        for left in self._folder.glob(".fetching-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _whole(self, path: Path, sha256: str, keys: PublicKeys | None) -> bool:
        """Whether a copy is there and as it was fetched; one that is not is removed."""
        if not path.exists():
            return False
        try:
            verify_release(path, Expected(manifest_sha256=sha256))
        except UserError:
            shutil.rmtree(path)
            return False
        # A copy may be of before it was signed.
        return keys is None or (path / SIGNATURE).exists()

    def _fetch(self, bucket: Bucket, sha256: str, path: Path, expected: Expected, stopped: Callable[[], bool]) -> None:
        content = bucket.manifest(sha256)
        beside = Path(tempfile.mkdtemp(prefix=".fetching-", dir=self._folder))
        try:
            (beside / MANIFEST).write_bytes(content)
            if (signature := bucket.signature(sha256)) is not None:
                (beside / SIGNATURE).write_bytes(signature)
            if expected.keys is not None:
                # Before gigabytes are fetched that nobody has signed.
                signer_of(beside, content, expected.keys)
            entries = _entries(bucket, sha256, content)
            known = self._make_room(entries, {path, beside})
            for name, entry in entries.items():
                if (same := known.get((entry.sha256, entry.size))) is not None:
                    os.link(same, beside / name)
                else:
                    bucket.fetch(entry, beside / name, stopped)
            if path.exists():
                shutil.rmtree(path)
            beside.chmod(0o755)
            beside.rename(path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _make_room(self, entries: dict[str, FileEntry], keep: set[Path]) -> dict[tuple[str, int], Path]:
        """Let the copies go that were used longest ago, as far as it takes; the files of those left, by hash and size.

        What is in `keep` is no copy, or not yet.
        """
        size = sum(entry.size for entry in entries.values())
        if size > self._most:
            raise UserError(
                f"the release takes {_mb(size)} MB, and all copies of releases may take {_mb(self._most)} MB "
                "(MMREC_RELEASE_CACHE_MB)"
            )
        there = (path for path in self._folder.iterdir() if path.is_dir() and path not in keep)
        copies = {copy: _files(copy) for copy in sorted(there, key=lambda copy: copy.stat().st_mtime)}
        while True:
            known = {same: file for files in copies.values() for same, file in files.items()}
            missing = sum(entry.size for entry in entries.values() if (entry.sha256, entry.size) not in known)
            if not copies or self._taken(copies) + missing <= self._most:
                break
            oldest = next(iter(copies))
            del copies[oldest]
            shutil.rmtree(oldest)
        if missing + SPARE_BYTES > shutil.disk_usage(self._folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return known

    def _taken(self, copies: Iterable[Path]) -> int:
        """Bytes of copies, a file that several share counted once."""
        sizes = {}
        for copy in copies:
            for file in copy.iterdir():
                status = file.stat()
                sizes[status.st_ino] = status.st_size
        return sum(sizes.values())


def _files(copy: Path) -> dict[tuple[str, int], Path]:
    """A copy's files by hash and size, as its manifest says."""
    try:
        manifest = decode_manifest((copy / MANIFEST).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    found = {}
    for name, entry in manifest.files.items():
        file = copy / name
        if file.is_file() and file.stat().st_size == entry.size:
            found[entry.sha256, entry.size] = file
    return found


def _entries(bucket: Bucket, sha256: str, content: bytes) -> dict[str, FileEntry]:
    """The files of a release by its manifest: those that a release consists of, each within bounds."""
    place = f"{bucket.root}/{sha256}"
    try:
        entries = decode_manifest(content).files
    except msgspec.DecodeError as error:
        raise UserError(f"{place} cannot be read as a manifest: {error}") from None
    if different := unexpected(entries):
        raise UserError(f"{place} lacks or adds {', '.join(sorted(different))}")
    for name, entry in entries.items():
        if entry.size > MAX_FILE_BYTES:
            raise UserError(f"{place}: {name} has {entry.size} bytes, more than the {MAX_FILE_BYTES} allowed")
    return entries


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f}"
