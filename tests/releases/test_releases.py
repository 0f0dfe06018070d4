"""A release is written whole, verified whole, and anything that was tampered with is refused by name."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec
import numpy as np
import pytest

from mmrec_stream.errors import UserError
from mmrec_stream.releases import (
    Expected,
    Manifest,
    announcement,
    list_releases,
    load_release,
    new_version,
    newest_release,
    prune_releases,
    verify_release,
    write_release,
)
from mmrec_stream.releases.folder import ASSOCIATION, COUNTED, FILES, OPTIONAL, RERANKING
from mmrec_stream.releases.manifest import AlphaBucket, Dimensions, TrainingData

NOW = 1_760_000_000_000


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def contents() -> dict[str, bytes]:
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **{"ranker/in/k": np.array([2])})
    return {
        "item_encoder.onnx": b"encoder",
        "ranker.onnx": b"ranker",
        "user_encoder.onnx": b"user encoder",
        "item_vectors.npy": _npy(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "items.json": b'["a","b","c"]',
        "neighbours.npy": _npy(np.array([[1, -1], [2, 0], [-1, -1]], dtype=np.int32)),
        "neighbour_weights.npy": _npy(np.zeros((3, 2), dtype=np.float32)),
        "vocabularies.json": b'{"tokens":["red"]}',
        "golden.npz": archive.getvalue(),
        "repurchases.npy": _npy(np.array([86_400, np.nan, np.nan], dtype=np.float32)),
        "similar.npy": _npy(np.array([[(1, 1.0, 3)], [(-1, 0.0, 0)], [(0, 1.0, 0)]], dtype=ASSOCIATION)),
        "complementary.npy": _npy(np.array([[(2, 1.0, 5)], [(-1, 0.0, 0)], [(-1, 0.0, 0)]], dtype=ASSOCIATION)),
    }


def manifest(version: str = "20261124T064500Z-3f2a") -> Manifest:
    return Manifest(
        version=version,
        created=NOW,
        files={},
        dimensions=Dimensions(vector=4, items=3, neighbours=2, history=50),
        fusion="weighted",
        encoders={"text": "lstm"},
        user_encoder="gru",
        alpha=[AlphaBucket(min_history=0, alpha=0.5)],
        metrics={"ndcg@10": 0.1},
        data=TrainingData(events=10, users=2, items=3, first=NOW, last=NOW),
        opset=20,
        graphs={},
    )


@pytest.fixture
def release(tmp_path: Path) -> Path:
    path = tmp_path / "releases" / "20261124T064500Z-3f2a"
    write_release(path, contents(), manifest())
    return path


def test_what_was_written_is_loaded(release: Path) -> None:
    loaded = load_release(release)
    assert loaded.item_ids == ["a", "b", "c"]
    assert loaded.item_vectors.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert loaded.neighbours[0].tolist() == [1, -1]
    assert loaded.vocabularies == {"tokens": ["red"]}
    assert loaded.golden["ranker/in/k"].tolist() == [2]
    assert loaded.manifest.alpha == [AlphaBucket(min_history=0, alpha=0.5)]
    assert loaded.similar is not None
    assert loaded.similar["item"].tolist() == [[1], [-1], [0]]
    assert loaded.complementary is not None
    assert loaded.complementary[0, 0].tolist() == (2, 1.0, 5)
    assert loaded.repurchases is not None
    assert np.nan_to_num(loaded.repurchases, nan=-1.0).tolist() == [86_400.0, -1.0, -1.0]
    assert set(loaded.manifest.files) == {*FILES, *OPTIONAL}


def test_a_release_without_tables_is_loaded_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "older"
    write_release(path, {name: content for name, content in contents().items() if name not in OPTIONAL}, manifest())
    loaded = load_release(path)
    assert (loaded.similar, loaded.complementary, loaded.repurchases) == (None, None, None)


def reranking(*counts: tuple[int, int]) -> dict[str, bytes]:
    entries = [(of, item, 1.0, 0.0, 0.0, 0.0) for of, item in counts]
    return {"reranker.onnx": b"re-ranker", "counts.npy": _npy(np.array(entries, dtype=COUNTED))}


def test_a_release_with_a_re_ranker_has_what_it_goes_by(tmp_path: Path) -> None:
    write_release(tmp_path / "with", contents() | reranking((0, 0), (0, 2), (2, 2)), manifest())
    counts = load_release(tmp_path / "with").counts
    assert counts is not None
    assert counts["item"].tolist() == [0, 2, 2]
    for name in RERANKING:
        alone = contents() | {name: reranking((0, 0))[name]}
        with pytest.raises(UserError, match="missing or unknown"):
            write_release(tmp_path / "half", alone, manifest())


@pytest.mark.parametrize(
    ("counts", "wrong"),
    [
        (((0, 0), (0, 3)), "points outside the 3 items"),
        (((0, 0), (-1, 0)), "points outside the 3 items"),
        (((1, 1), (0, 0)), "order of its items"),
        (((0, 1),), "order of its items"),
    ],
)
def test_counts_that_do_not_fit_are_refused(tmp_path: Path, counts: tuple[tuple[int, int], ...], wrong: str) -> None:
    write_release(tmp_path / "wrong", contents() | reranking(*counts), manifest())
    with pytest.raises(UserError, match=wrong):
        load_release(tmp_path / "wrong")


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (np.array([[(3, 1.0, 5)]] * 3, dtype=ASSOCIATION), "points outside the 3 items"),
        (np.array([[(2, 1.0, 5)]] * 2, dtype=ASSOCIATION), "complementary.npy is"),
        (np.zeros((3, 2), dtype=np.float32), "complementary.npy is float32"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, table: np.ndarray, wrong: str) -> None:
    write_release(tmp_path / "wrong", contents() | {"complementary.npy": _npy(table)}, manifest())
    with pytest.raises(UserError, match=wrong):
        load_release(tmp_path / "wrong")


@pytest.mark.parametrize(
    ("intervals", "wrong"),
    [
        (np.array([1.0, 0.0, np.nan], dtype=np.float32), "not above 0"),
        (np.ones(2, dtype=np.float32), "repurchases.npy is"),
        (np.ones(3), "repurchases.npy is float64"),
    ],
)
def test_intervals_that_do_not_fit_are_refused(tmp_path: Path, intervals: np.ndarray, wrong: str) -> None:
    write_release(tmp_path / "wrong", contents() | {"repurchases.npy": _npy(intervals)}, manifest())
    with pytest.raises(UserError, match=wrong):
        load_release(tmp_path / "wrong")


def test_the_same_content_gives_the_same_bytes(release: Path, tmp_path: Path) -> None:
    write_release(tmp_path / "again", contents(), manifest())
    for file in release.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_the_announcement_names_the_manifest_by_hash(release: Path) -> None:
    told = announcement(release)
    assert (told.version, told.metrics) == (release.name, {"ndcg@10": 0.1})
    assert verify_release(Path(url2pathname(urlsplit(told.uri).path)), Expected.of(told, None)).version == release.name
    with pytest.raises(UserError, match="not the one that was announced"):
        verify_release(release, Expected(manifest_sha256=hashlib.sha256(b"another").hexdigest()))
    with pytest.raises(UserError, match="announced as another, and is 2026"):
        verify_release(release, Expected(version="another"))


@pytest.mark.parametrize("name", [*FILES, *OPTIONAL])
def test_a_changed_file_is_refused_by_name(release: Path, name: str) -> None:
    file = release / name
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    with pytest.raises(UserError, match=rf"{name} was changed"):
        load_release(release)


@pytest.mark.parametrize("name", [*FILES, *OPTIONAL])
def test_a_truncated_or_missing_file_is_refused_by_name(release: Path, name: str) -> None:
    file = release / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{name} has \d+ bytes instead of"):
        verify_release(release)
    file.unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        verify_release(release)


def _rewritten(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def tamper(release: Path) -> None:
        file = release / "manifest.json"
        content = json.loads(file.read_bytes())
        change(content)
        file.write_text(json.dumps(content))

    return tamper


def _symlink_file(release: Path) -> None:
    outside = release.parent / "outside"
    (release / "ranker.onnx").rename(outside)
    (release / "ranker.onnx").symlink_to(outside)


def _symlink_manifest(release: Path) -> None:
    outside = release.parent / "outside.json"
    (release / "manifest.json").rename(outside)
    (release / "manifest.json").symlink_to(outside)


def _replace_by_folder(release: Path) -> None:
    (release / "golden.npz").unlink()
    (release / "golden.npz").mkdir()


def _path_escape(content: dict[str, object]) -> None:
    files = content["files"]
    assert isinstance(files, dict)
    files["../outside"] = files.pop("ranker.onnx")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda release: (release / "extra.py").write_text("print()"), "extra.py does not belong"),
        (lambda release: (release / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda release: (release / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda release: (release / "manifest.json").write_bytes(b" " * (1 << 21)), "more than 1048576 bytes"),
        (_rewritten(lambda content: content.update(format=2)), "format 2, this version reads 3; export it again"),
        (_rewritten(lambda content: content.pop("dimensions")), "dimensions"),
        (_rewritten(_path_escape), "lacks or adds"),
        (_symlink_file, "ranker.onnx is missing or no plain file"),
        (_symlink_manifest, "manifest.json is missing or no plain file"),
        (_replace_by_folder, "golden.npz is missing or no plain file"),
    ],
)
def test_tampering_is_refused(release: Path, tamper: Callable[[Path], object], message: str) -> None:
    tamper(release)
    with pytest.raises(UserError, match=message):
        verify_release(release)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.json", b'["a","b"]', "does not have 3 different ids"),
        ("items.json", b'["a","b","b"]', "does not have 3 different ids"),
        ("item_vectors.npy", _npy(np.zeros((3, 5), dtype=np.float32)), "item_vectors.npy is float32"),
        ("item_vectors.npy", _npy(np.zeros((4, 3), dtype=np.float32).T), "by rows"),
        ("item_vectors.npy", _npy(np.zeros((3, 4), dtype=np.float64)), "item_vectors.npy is float64"),
        ("neighbours.npy", _npy(np.full((3, 2), 3, dtype=np.int32)), "points outside the 3 items"),
        ("golden.npz", b"no archive", "cannot be read"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_release(tmp_path / "r", contents() | {name: content}, manifest())
    with pytest.raises(UserError, match=message):
        load_release(tmp_path / "r")


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    write_release(tmp_path / "r", contents() | {"item_vectors.npy": buffer.getvalue()}, manifest())
    with pytest.raises(UserError, match="cannot be read"):
        load_release(tmp_path / "r")


def test_a_release_is_never_overwritten_nor_half_written(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="never overwritten"):
        write_release(release, contents(), manifest())
    with pytest.raises(UserError, match=r"ranker\.onnx"):
        write_release(release.parent / "other", {n: c for n, c in contents().items() if n != "ranker.onnx"}, manifest())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_release(release.parent / "other", contents(), manifest())
    assert [path.name for path in release.parent.iterdir()] == [release.name]


def test_the_store_lists_prunes_and_skips_broken_releases(tmp_path: Path) -> None:
    store = tmp_path / "releases"
    assert list_releases(store) == []
    assert newest_release(store) is None
    names = [f"2026112{day}T000000Z-0000" for day in range(1, 5)]
    for name in names:
        write_release(store / name, contents(), manifest(name))
    (store / names[-1] / "ranker.onnx").write_bytes(b"broken")
    (store / ".20261129T000000Z-0000.tmp").mkdir()
    newest = newest_release(store)
    assert newest is not None
    assert newest.name == names[2]
    assert [path.name for path in prune_releases(store, keep=2)] == names[:2]
    assert [path.name for path in list_releases(store)] == names[2:]
    with pytest.raises(UserError, match="at least one"):
        prune_releases(store, keep=0)


def test_versions_sort_by_time() -> None:
    assert new_version(NOW) < new_version(NOW + 1000)
    assert new_version(NOW).startswith("20251009T")
    assert msgspec.convert(new_version(NOW), str) != new_version(NOW + 5000)
