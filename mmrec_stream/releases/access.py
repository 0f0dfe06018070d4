"""An announced release as a folder on this machine, wherever it lies: the one way in for whoever loads one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.errors import UserError
from mmrec_stream.releases.cache import Cache
from mmrec_stream.releases.folder import Expected
from mmrec_stream.releases.objects import Bucket, split_uri
from mmrec_stream.releases.signing import trusted_keys
from mmrec_stream.settings import Settings

AGAIN_S = 10.0
"""How long a release that cannot be had at the moment is left alone: a store that is away is asked six times a minute,
and whoever mends a full disk waits no longer."""


def check_access(settings: Settings) -> None:
    """Before anything is loaded: what is set of keys and store can be used. The store is not asked.

    Raises:
        UserError: it cannot; says why.
    """
    trusted_keys(settings)
    if settings.release_store:
        Bucket(settings.release_store)


@contextmanager
def opened(
    told: ReleaseAnnouncement, settings: Settings, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Path, Expected]]:
    """The folder of an announced release and what it has to be, for whoever loads it in the block and keeps it.

    One that lies in the store is fetched into the cache first. Whoever has loaded a release needs its folder no more.

    Args:
        told: the announcement.
        settings: the store, the cache's bound, and the keys that are trusted.
        stopped: asked while something is waited for.

    Raises:
        UserError: it is not there or not what it should be, or lies where nothing is loaded from.
        NotNowError: it cannot be had at the moment, and may be later.
    """
    expected = Expected.of(told, trusted_keys(settings))
    place = urlsplit(told.uri)
    if place.scheme == "file" and not place.netloc:
        yield Path(url2pathname(place.path)), expected
        return
    found = split_uri(told.uri)
    if found is None or found[1] != told.manifest_sha256:
        raise UserError(f"release {told.version}: {told.uri} is neither a folder nor its manifest in a store")
    if found[0] != settings.release_store.rstrip("/"):
        raise UserError(
            f"release {told.version} lies in {found[0]}, and is loaded from there where MMREC_RELEASE_STORE says so"
        )
    cache = Cache(settings.data_dir / "release-cache", int(settings.release_cache_mb * 1e6))
    with cache.holding(Bucket(found[0]), told.manifest_sha256, expected, stopped) as path:
        yield path, expected


def placed(told: ReleaseAnnouncement, path: Path, settings: Settings) -> ReleaseAnnouncement:
    """The announcement of a release that is where workers find it: in the store if one is set, else where it lies.

    Args:
        told: its announcement from where it lies.
        path: there.
        settings: the store.

    Raises:
        UserError: the store cannot be reached, or does not take it.
    """
    return told.at(Bucket(settings.release_store).push(path)) if settings.release_store else told
