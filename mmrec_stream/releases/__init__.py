"""Model releases: what one says of itself, how it is written, verified, loaded and kept."""

from mmrec_stream.releases.folder import (
    Expected,
    Release,
    announcement,
    load_release,
    release_files,
    sign_release,
    verify_release,
    write_release,
)
from mmrec_stream.releases.manifest import Manifest
from mmrec_stream.releases.store import list_releases, new_version, newest_release, prune_releases

__all__ = [
    "Expected",
    "Manifest",
    "Release",
    "announcement",
    "list_releases",
    "load_release",
    "new_version",
    "newest_release",
    "prune_releases",
    "release_files",
    "sign_release",
    "verify_release",
    "write_release",
]
