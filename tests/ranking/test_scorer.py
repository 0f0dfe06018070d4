"""The scorer serves a real release: lists obey the masks, damage is refused, items can be added while it runs."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from msgspec import structs
from numpy.typing import NDArray
from onnx import numpy_helper

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.errors import UserError
from mmrec_stream.ranking.providers import PROBE, choose_device, cuda_failure
from mmrec_stream.ranking.scorer import GROUP, Scorer
from mmrec_stream.ranking.types import Features, blank_features
from mmrec_stream.releases import Expected
from mmrec_stream.simulator import make_shop
from model_export.export import serialize
from model_export.release import npy_bytes
from tests.tiny import TINY_ALPHA, tiny_dataset, tiny_release, tiny_release_at


@pytest.fixture(scope="module")
def shared() -> Scorer:
    """For tests that do not change the table."""
    return Scorer.load(tiny_release(), provider="cpu", threads=1)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer.load(tiny_release(), provider="cpu", threads=1)


def users(count: int, length: int = 5, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, tiny_dataset().items, (count, length))
    return replace(blank_features(count, length), history_rows=rows)


@pytest.mark.parametrize("count", [1, 3, 65])
@pytest.mark.parametrize("length", [1, 20])
@pytest.mark.parametrize("k", [1, 10])
def test_lists_are_sorted_distinct_and_mixed_as_promised(shared: Scorer, count: int, length: int, k: int) -> None:
    lists = shared.run(users(count, length), k)
    assert lists.rows.shape == lists.scores.shape == (count, k)
    assert (np.diff(lists.scores, axis=1) <= 0).all()
    assert all(len(set(row)) == k for row in lists.rows.tolist())
    alpha = lists.alpha[:, None]
    assert np.allclose(lists.scores, alpha * lists.p_user + (1 - alpha) * lists.p_item, atol=1e-5)
    assert (lists.scores > 0).all()


@pytest.mark.parametrize("count", [9, 3 * GROUP + 1])
def test_alone_or_in_a_batch_a_user_gets_the_same_list(shared: Scorer, count: int) -> None:
    features = users(count)
    lengths = np.random.default_rng(1).integers(1, features.history_rows.shape[1] + 1, count)
    features = replace(features, lengths=lengths)
    together = shared.run(features, 10)
    for user in range(count):
        alone = shared.run(features.part(slice(user, user + 1)), 10)
        assert np.allclose(alone.scores[0], together.scores[user], rtol=1e-4, atol=1e-7)
        assert np.array_equal(alone.alpha[0], together.alpha[user])


def test_padding_makes_no_difference(shared: Scorer) -> None:
    short = users(4, 5)
    long = replace(
        short,
        history_rows=np.pad(short.history_rows, ((0, 0), (0, 7))),
        history_types=np.pad(short.history_types, ((0, 0), (0, 7))),
        history_ages=np.pad(short.history_ages, ((0, 0), (0, 7))),
    )
    one, other = shared.run(short, 10), shared.run(long, 10)
    assert np.allclose(one.scores, other.scores, rtol=1e-4, atol=1e-7)


def test_excluded_and_unavailable_items_are_not_listed(scorer: Scorer) -> None:
    features = users(6)
    best = scorer.run(features, 3).rows
    excluded = np.concatenate([best, np.full((6, 2), -1)], axis=1)
    without = scorer.run(replace(features, excluded=excluded), 10).rows
    assert all(not set(gone) & set(row) for gone, row in zip(best.tolist(), without.tolist(), strict=True))
    scorer.table.set_available(np.unique(best), False)
    later = scorer.run(features, 10).rows
    assert not set(later.ravel().tolist()) & set(best.ravel().tolist())


def test_places_beyond_what_may_be_listed_have_no_score(scorer: Scorer) -> None:
    items = len(scorer.table)
    scorer.table.set_available(np.arange(3, items), False)
    excluded = np.array([[0]])
    lists = scorer.run(replace(users(1), excluded=excluded), items)
    assert set(lists.rows[0][lists.scores[0] > 0].tolist()) == {1, 2}


def test_no_exclusions_at_all_and_more_places_than_items(shared: Scorer) -> None:
    features = replace(users(2), excluded=np.empty((2, 0), dtype=np.int64))
    assert shared.run(features, 10_000).rows.shape == (2, len(shared.table))


def test_the_newest_event_changes_the_list(shared: Scorer) -> None:
    features = users(1)
    changed = features.history_rows.copy()
    changed[0, -1] = (changed[0, -1] + 17) % len(shared.table)
    one, other = shared.run(features, 10), shared.run(replace(features, history_rows=changed), 10)
    assert not np.array_equal(one.rows, other.rows)


def test_an_item_from_the_catalogue_is_recommendable_at_once(scorer: Scorer) -> None:
    before = len(scorer.table)
    product = make_shop(80, seed=5)[77]
    fresh = CatalogueItem(
        item_id="fresh", title=product.title, category=product.category, thumbnail=product.thumbnail, price=20.0
    )
    sold_out = CatalogueItem(item_id="sold-out", title=product.title, stock=0)
    rows = scorer.add_items([fresh, sold_out, tiny_dataset().catalogue[3]])  # type: ignore[index]
    assert rows.tolist() == [before, before + 1, scorer.table.row(tiny_dataset().item_ids[3])]
    assert np.linalg.norm(scorer.table.vectors[before]) > 0.01
    lists = scorer.run(users(4), before + 2)
    listed = lists.rows[0][lists.scores[0] > 0].tolist()
    assert before in listed
    assert before + 1 not in listed
    after_it = replace(users(1), history_rows=np.full((1, 5), before))
    assert (scorer.run(after_it, 10).scores > 0).all()


def test_a_changed_text_changes_the_vector_and_a_changed_price_costs_no_encoding(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(80, seed=5)
    trained = CatalogueItem(item_id=tiny_dataset().item_ids[3], title=shop[3].title)
    fresh = CatalogueItem(item_id="fresh", title=shop[70].title)
    rows = scorer.add_items([trained, fresh])
    before = scorer.table.vectors[rows].copy()
    encoded: list[str] = []
    encode = scorer.encode

    def noted(items: list[CatalogueItem]) -> Any:
        encoded.extend(item.item_id for item in items)
        return encode(items)

    monkeypatch.setattr(scorer, "encode", noted)
    scorer.add_items([structs.replace(trained, price=5.0), structs.replace(fresh, stock=0)])
    assert not encoded
    assert (scorer.table.vectors[rows] == before).all()
    assert scorer.table.available[rows].tolist() == [True, False]
    scorer.add_items([structs.replace(trained, title=shop[50].title), structs.replace(fresh, title=shop[40].title)])
    assert encoded == [trained.item_id, "fresh"]
    assert (scorer.table.vectors[rows] != before).any(axis=1).all()


def test_items_without_anything_known_are_added_too(scorer: Scorer) -> None:
    (row,) = scorer.add_items([CatalogueItem(item_id="bare")])
    assert np.isfinite(scorer.table.vectors[row]).all()
    assert np.isfinite(scorer.run(replace(users(1), history_rows=np.full((1, 5), row)), 5).scores).all()


def test_the_table_may_change_while_users_are_scored(scorer: Scorer) -> None:
    features = users(8)
    failures: list[BaseException] = []

    def add() -> None:
        try:
            for number in range(200):
                scorer.table.add([f"n{number}"], np.full((1, 16), 0.01, dtype=np.float32))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    while thread.is_alive():
        lists = scorer.run(features, 10)
        assert np.isfinite(lists.scores).all()
    thread.join()
    assert not failures
    assert scorer.run(features, 10_000).rows.shape[1] == tiny_dataset().items + 200


def _copy(tmp_path: Path, release: Path | None = None) -> Path:
    return Path(shutil.copytree(release or tiny_release(), tmp_path / "copy"))


def _resign(release: Path, name: str, content: bytes) -> None:
    """Replace a file and make the manifest agree, as someone who means harm would."""
    (release / name).write_bytes(content)
    manifest = json.loads((release / "manifest.json").read_bytes())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (release / "manifest.json").write_text(json.dumps(manifest))


def test_a_damaged_release_is_not_loaded(tmp_path: Path) -> None:
    release = _copy(tmp_path)
    content = bytearray((release / "ranker.onnx").read_bytes())
    content[len(content) // 2] ^= 255
    (release / "ranker.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"ranker\.onnx was changed"):
        Scorer.load(release, provider="cpu")


def test_a_graph_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    release = _copy(tmp_path)
    _resign(release, "ranker.onnx", b"not a model")
    with pytest.raises(UserError, match="ONNX Runtime cannot load it") as refused:
        Scorer.load(release, provider="cpu")
    assert "\n" not in str(refused.value)


def _reversed(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array[::-1]


def _permuted(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.random.default_rng(0).permutation(array)


def _shifted(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.roll(array, 1, axis=0)


def _perturbed(array: NDArray[Any]) -> NDArray[Any]:
    noise = np.random.default_rng(0).normal(1.0, 0.03, array.shape)
    return np.asarray(array * noise, dtype=array.dtype)


@pytest.mark.parametrize("alpha", [0.0, TINY_ALPHA, 1.0])
@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("item_vectors.npy", _reversed, "p_user"),
        ("item_vectors.npy", _permuted, "p_user"),
        ("item_vectors.npy", _shifted, "p_user"),
        ("item_vectors.npy", _perturbed, "p_user"),
        ("neighbours.npy", _reversed, "p_item"),
        ("neighbours.npy", _shifted, "p_item"),
        ("neighbour_weights.npy", _perturbed, "p_item"),
    ],
)
def test_another_item_table_is_refused_whatever_alpha(
    tmp_path: Path, alpha: float, name: str, change: Callable[[NDArray[np.generic]], NDArray[np.generic]], told: str
) -> None:
    release = _copy(tmp_path, tiny_release_at(alpha))
    _resign(release, name, npy_bytes(change(np.load(release / name))))
    with pytest.raises(UserError, match=rf"gives other results than where it was exported \(.*{told}"):
        Scorer.load(release, provider="cpu")


@pytest.mark.parametrize("alpha", [0.0, TINY_ALPHA, 1.0])
@pytest.mark.parametrize(
    ("name", "told"), [("ranker.onnx", "p_user"), ("item_encoder.onnx", "item vectors"), ("user_encoder.onnx", "")]
)
def test_other_encoders_are_refused_whatever_alpha(tmp_path: Path, alpha: float, name: str, told: str) -> None:
    release = _copy(tmp_path, tiny_release_at(alpha))
    model = onnx.load(release / name)
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > 64:
            weight.CopyFrom(numpy_helper.from_array(_perturbed(values), weight.name))
    _resign(release, name, serialize(model))
    if name == "user_encoder.onnx":  # which only ranking in two stages reads
        scorer = Scorer.load(release, provider="cpu")
        with pytest.raises(UserError, match=r"other results than where it was exported \(user_vectors\)"):
            scorer.retrieve("exact")
        return
    with pytest.raises(UserError, match=rf"gives other results than where it was exported \(.*{told}"):
        Scorer.load(release, provider="cpu")


@pytest.mark.parametrize("alpha", [0.0, TINY_ALPHA, 1.0])
def test_a_release_serves_on_the_other_side_of_rounding(tmp_path: Path, alpha: float) -> None:
    """Other instruction sets differ by as much as a millionth of a vector does."""
    release = _copy(tmp_path, tiny_release_at(alpha))
    vectors = np.load(release / "item_vectors.npy")
    noise = np.random.default_rng(0).normal(1.0, 1e-6, vectors.shape)
    _resign(release, "item_vectors.npy", npy_bytes((vectors * noise).astype(np.float32)))
    scorer = Scorer.load(release, provider="cpu")
    assert np.allclose(scorer.run(users(2), 3).alpha, alpha, atol=1e-5)
    scorer.retrieve("exact")


def test_another_release_than_the_announced_one_is_refused() -> None:
    with pytest.raises(UserError, match="not the one that was announced"):
        Scorer.load(tiny_release(), provider="cpu", expected=Expected(manifest_sha256="0" * 64))


def test_the_probe_model_is_what_it_says() -> None:
    session = ort.InferenceSession(PROBE, providers=["CPUExecutionProvider"])
    left, right = np.arange(9, dtype=np.float32).reshape(3, 3), np.eye(3, dtype=np.float32)
    assert np.array_equal(session.run(None, {"a": left, "b": right})[0], left)


def test_the_device_is_what_works() -> None:
    assert choose_device("cpu") == "cpu"
    failure = cuda_failure()
    if failure is None:
        assert choose_device("auto") == choose_device("cuda") == "cuda"
        return
    assert choose_device("auto") == "cpu"
    with pytest.raises(UserError, match="CUDA does not work here"):
        choose_device("cuda")
