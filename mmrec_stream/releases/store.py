"""The folder that releases are kept in: which there are, which is the newest, and which may go."""

import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from mmrec_stream.errors import UserError
from mmrec_stream.releases.folder import MANIFEST, verify_release


def new_version(created_ms: int) -> str:
    """A version name: the time of creation, to sort by, and four random hex digits, as two may be made at once."""
    stamp = datetime.fromtimestamp(created_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{secrets.token_hex(2)}"


def list_releases(store: Path) -> list[Path]:
    """The release folders of a store, oldest first by name; half-written ones (hidden names) are not among them."""
    if not store.is_dir():
        return []
    return sorted(
        path
        for path in store.iterdir()
        if path.is_dir() and not path.name.startswith(".") and (path / MANIFEST).is_file()
    )


def newest_release(store: Path) -> Path | None:
    """The newest release of a store that verifies, or None."""
    for path in reversed(list_releases(store)):
        try:
            verify_release(path)
        except UserError:
            continue
        return path
    return None


def prune_releases(store: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` releases. Mapped files live on until their last reader closes them.

    Returns:
        The removed folders.

    Raises:
        UserError: `keep` is below 1.
    """
    if keep < 1:
        raise UserError("at least one release must be kept")
    removed = list_releases(store)[:-keep]
    for path in removed:
        # Renamed first, so that nobody finds a release that is half gone.
        going = path.with_name(f".{path.name}.going")
        path.rename(going)
        shutil.rmtree(going)
    return removed
