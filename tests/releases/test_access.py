"""A release comes out of a store as it went in, or not at all; copies stay within their bound."""

import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.errors import NotNowError, UserError
from mmrec_stream.releases import access, announcement, sign_release, verify_release, write_release
from mmrec_stream.releases.objects import split_uri
from mmrec_stream.settings import Settings
from tests.releases.bucket import ROOT, Server, serving_s3
from tests.releases.test_releases import contents, manifest


@pytest.fixture
def s3() -> Iterator[Server]:
    with serving_s3() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Settings:
    """Settings of a worker on another machine than the trainer's."""
    return Settings(_env_file=None, data_dir=tmp_path / "worker", release_store=f"{ROOT}/")  # type: ignore[call-arg]


def write(tmp_path: Path, version: str, ranker: bytes = b"ranker") -> Path:
    path = tmp_path / "trainer" / version
    write_release(path, contents() | {"ranker.onnx": ranker}, manifest(version))
    return path


def put(path: Path, machine: Settings) -> ReleaseAnnouncement:
    """Put a release into the store; what is announced of it."""
    return access.placed(announcement(path), path, machine)


def take(told: ReleaseAnnouncement, machine: Settings) -> dict[str, bytes]:
    """Open a release, verify it as whoever loads it, and read it."""
    with access.opened(told, machine) as (path, expected):
        verify_release(path, expected)
        return {file.name: file.read_bytes() for file in path.iterdir()}


def copies(machine: Settings) -> set[str]:
    return {path.name for path in (machine.data_dir / "release-cache").iterdir() if path.name != ".lock"}


def key_of(name: str, path: Path) -> str:
    return f"mmrec/{verify_release(path).files[name].sha256}"


def test_a_release_in_a_folder_is_opened_where_it_lies(tmp_path: Path) -> None:
    path = write(tmp_path, "r 1 é")
    settings = Settings(_env_file=None, data_dir=tmp_path / "worker")  # type: ignore[call-arg]
    with access.opened(access.placed(announcement(path), path, settings), settings) as (found, expected):
        assert found == path
        verify_release(found, expected)
    assert not (tmp_path / "worker").exists()


def test_what_was_put_into_a_store_is_what_is_taken_out(tmp_path: Path, s3: Server, machine: Settings) -> None:
    path = write(tmp_path, "r1")
    told = put(path, machine)
    assert told.uri == f"{ROOT}/{told.manifest_sha256}"
    assert take(told, machine) == {file.name: file.read_bytes() for file in path.iterdir()}
    # Whoever has a copy needs no store.
    s3.stop()
    assert take(told, machine)["ranker.onnx"] == b"ranker"
    s3.start()


def test_files_that_releases_share_are_kept_and_fetched_once(tmp_path: Path, s3: Server, machine: Settings) -> None:
    first, second = write(tmp_path, "r1"), write(tmp_path, "r2", b"another ranker")
    one = put(first, machine)
    before = s3.objects()
    assert len(before) == len(set(contents().values())) + 1
    take(one, machine)
    two = put(second, machine)
    assert set(s3.objects()) - set(before) == {
        f"mmrec/{two.manifest_sha256}",
        key_of("ranker.onnx", second),
    }
    # Were a shared file fetched again, it would be missed.
    s3.delete(key_of("item_vectors.npy", first))
    assert take(two, machine)["ranker.onnx"] == b"another ranker"
    cache = machine.data_dir / "release-cache"
    shared = [(cache / told.manifest_sha256 / "item_vectors.npy").stat().st_ino for told in (one, two)]
    assert shared[0] == shared[1]


def test_what_in_the_store_is_not_what_its_name_says_is_refused_and_nothing_of_it_stays(
    tmp_path: Path, s3: Server, machine: Settings
) -> None:
    path = write(tmp_path, "r1")
    told = put(path, machine)
    key = key_of("ranker.onnx", path)

    def refused() -> str:
        with pytest.raises(UserError) as refusal:
            take(told, machine)
        assert not isinstance(refusal.value, NotNowError)
        assert copies(machine) == set()
        return str(refusal.value)

    s3.put(key, b"Ranker")
    assert "holds something else than its sha256 says" in refused()
    s3.put(key, b"ranker and more")
    assert "has 15 bytes instead of 6" in refused()
    s3.delete(key)
    assert "does not exist" in refused()
    s3.put(key, b"ranker")
    s3.put(f"mmrec/{told.manifest_sha256}", b"{}")
    assert "is not the manifest.json that was announced" in refused()
    s3.put(f"mmrec/{told.manifest_sha256}", b" " * (1 << 21))
    assert "more than the 1048576 allowed" in refused()


def test_a_store_that_is_away_and_a_full_disk_are_no_fault_of_the_release(
    tmp_path: Path, s3: Server, machine: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = put(write(tmp_path, "r1"), machine)
    s3.stop()
    with pytest.raises(NotNowError, match=f"{ROOT} cannot be asked"):
        take(told, machine)
    s3.start()
    with monkeypatch.context() as patch:
        usage = namedtuple("usage", "total used free")
        patch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
        with pytest.raises(NotNowError, match="the disk is full; make room there"):
            take(told, machine)
    assert copies(machine) == set()
    assert take(told, machine)
    second = write(tmp_path, "r2")
    s3.stop()
    with pytest.raises(NotNowError, match="cannot be asked"):
        put(second, machine)
    s3.start()


def test_copies_stay_within_their_bound_and_what_was_used_last_stays(
    tmp_path: Path, s3: Server, machine: Settings
) -> None:
    # All but their rankers is shared, and there is room for two of those.
    told = [put(write(tmp_path, f"r{number}", bytes([number]) * 100_000), machine) for number in range(4)]
    small = machine.model_copy(update={"release_cache_mb": 0.25})
    for number in (0, 1, 0, 2):
        take(told[number], small)
    assert copies(small) == {told[0].manifest_sha256, told[2].manifest_sha256}
    take(told[3], small)
    assert copies(small) == {told[2].manifest_sha256, told[3].manifest_sha256}
    tiny = machine.model_copy(update={"release_cache_mb": 0.05})
    with pytest.raises(UserError, match=r"takes 0\.1 MB, and all copies of releases may take 0\.1 MB \(MMREC_RELEASE"):
        take(told[0], tiny)


def test_a_release_stays_as_long_as_somebody_loads_it(tmp_path: Path, s3: Server, machine: Settings) -> None:
    one, two = (put(write(tmp_path, name, name.encode() * 50_000), machine) for name in ("r1", "r2"))
    small = machine.model_copy(update={"release_cache_mb": 0.15})
    with access.opened(one, small) as (path, expected):
        other = threading.Thread(target=take, args=(two, small))
        other.start()
        verify_release(path, expected)
    other.join()
    assert copies(small) == {two.manifest_sha256}


def test_a_damaged_copy_and_what_a_killed_process_left_are_made_good(
    tmp_path: Path, s3: Server, machine: Settings
) -> None:
    told = put(write(tmp_path, "r1"), machine)
    take(told, machine)
    cache = machine.data_dir / "release-cache"
    (cache / told.manifest_sha256 / "ranker.onnx").write_bytes(b"Ranker")
    (cache / ".fetching-abc").mkdir()
    assert take(told, machine)["ranker.onnx"] == b"ranker"
    assert copies(machine) == {told.manifest_sha256}


def test_a_release_that_nobody_trusted_has_signed_is_not_even_fetched(
    tmp_path: Path, s3: Server, machine: Settings
) -> None:
    key, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    trusting = machine.model_copy(update={"release_keys": public})
    path = write(tmp_path, "r1")
    told = put(path, machine)
    # Were anything fetched, it would be missed.
    s3.delete(key_of("golden.npz", path))
    with pytest.raises(UserError, match="it is not signed"):
        take(told, trusting)
    sign_release(path, stranger)
    put(path, machine)
    s3.delete(key_of("golden.npz", path))
    with pytest.raises(UserError, match="none of those in MMREC_RELEASE_KEYS"):
        take(told, trusting)
    sign_release(path, key)
    put(path, machine)
    assert "manifest.sig" in take(told, trusting)


def test_a_copy_of_before_it_was_signed_is_fetched_again(tmp_path: Path, s3: Server, machine: Settings) -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    path = write(tmp_path, "r1")
    take(put(path, machine), machine)
    sign_release(path, key)
    assert "manifest.sig" in take(put(path, machine), machine.model_copy(update={"release_keys": public}))


def test_nothing_is_loaded_from_where_no_setting_says_so(tmp_path: Path, s3: Server, machine: Settings) -> None:
    told = put(write(tmp_path, "r1"), machine)
    for store in ("", "s3://shop-models/other", "s3://shop-models"):
        with pytest.raises(UserError, match="where MMREC_RELEASE_STORE says so"):
            take(told, machine.model_copy(update={"release_store": store}))
    for uri in (f"{ROOT}/{'0' * 64}", f"{ROOT}/r1", ROOT, "file://elsewhere/r1"):
        with pytest.raises(UserError, match="neither a folder nor its manifest in a store"):
            take(msgspec.structs.replace(told, uri=uri), machine)


@given(st.text("abz09.-", min_size=3), st.lists(st.text("abz09.-_ é%", min_size=1), max_size=3))
def test_a_uri_names_store_and_manifest(bucket: str, folders: list[str]) -> None:
    root = "/".join([f"s3://{bucket}", *folders])
    assert split_uri(f"{root}/{'a1' * 32}") == (root, "a1" * 32)
    assert split_uri(root) is None
