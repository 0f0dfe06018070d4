"""A re-ranker is learned where there is something to learn, and left out where there is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.splits import Split
from mmrec_stream.evaluation import metrics
from mmrec_stream.profiles.record import RING
from mmrec_stream.ranking.reranking import NAMES
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import blank_features
from mmrec_stream.releases.manifest import Compression
from model_export import reranker, reranking
from model_export.compress import compress_release
from model_export.gate import judge_release
from model_export.hybrid import TrainedModel
from model_export.reranker import counts_of
from model_export.reranking import ask, fit_network, gain_of, learn_reranker
from model_export.rounds import release_split
from tests.tiny import reranked_model, reranked_release, tiny_dataset, tiny_model


def test_pairs_are_counted_by_users_order_and_distance() -> None:
    """Two users who take 0, 1, 2, one who takes 2, 0; nobody takes 3."""
    users, items = np.array([0, 0, 0, 1, 1, 1, 2, 2]), np.array([0, 1, 2, 0, 1, 2, 2, 0])
    log = Interactions.of(users, items, np.arange(8) * 1_000)
    counts = counts_of(log, 4)
    assert counts.offsets.tolist() == [0, 3, 6, 9, 9]
    found = {(int(one["of"]), int(one["item"])): [float(one[name]) for name in FIELDS] for one in counts.entries}
    assert {pair: found[pair] for pair in ((0, 0), (1, 1), (2, 2))} == {
        (0, 0): [3, 0, 0, 0],
        (1, 1): [2, 0, 0, 0],
        (2, 2): [3, 0, 0, 0],
    }
    assert found[0, 1] == [2, 2, 0, 2]
    assert found[1, 0] == [2, 0, 2, 0]
    assert found[0, 2] == [3, 1, 1, 0]  # twice at a distance of two, and once before it
    assert [int(counts.entries[counts.offsets[item]]["item"]) for item in range(3)] == [0, 1, 2]


def test_every_item_that_anybody_liked_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was long ago for its only user, with what came right after it."""
    log = Interactions.of(np.zeros(300, dtype=int), np.arange(300), np.arange(300) * 1_000)
    counts = counts_of(log, 300)
    first = counts.entries[counts.offsets[:-1]]
    assert first["item"].tolist() == list(range(300))
    assert (first["users"] == 1).all()
    assert counts.entries[counts.offsets[0] + 1].tolist() == (0, 1, 0, 1, 0, 1)
    monkeypatch.setattr(reranker, "PAIRS", 5)
    fewer = counts_of(log, 300)
    assert np.diff(fewer.offsets).max() == 5
    assert fewer.entries[fewer.offsets[0] + 1].tolist() == (0, 1, 0, 1, 0, 1)


FIELDS = ("users", "after", "before", "next")


def known() -> tuple[TrainedModel, Split]:
    return tiny_model(), release_split(tiny_dataset())


def test_it_finds_what_the_mix_does_not_weigh() -> None:
    """Cases whose targets are what was counted most often after the newest event."""
    model, split = known()
    counts = counts_of(split.train.where(split.train.likings), model.dataset.items)
    asked = ask(model, counts, split.validation, mask_history=True)
    after = asked.features[:, :, NAMES.index("ln after, event 1")]
    taken = np.zeros_like(asked.taken)
    np.put_along_axis(taken, after.argmax(axis=1)[:, None], True, axis=1)
    made_up = replace(asked, taken=taken & (after > 0))
    one, other = (made_up.where(np.arange(start, len(asked), 2)) for start in (0, 1))
    gain = gain_of(fit_network(one, 0), other, 10)
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5


def test_what_says_nothing_makes_no_re_ranker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do cases that are too few, which are not even judged."""
    model, split = known()
    model = replace(model, report=replace(model.report, validation={}))
    assert learn_reranker(model, split.train, split.validation, mask_history=True) is None
    assert not model.report.validation
    monkeypatch.setattr(reranking, "LEAST_CASES", 1)
    monkeypatch.setattr(reranking, "gain_of", lambda *_: np.random.default_rng(0).normal(0, 1, 200))
    assert learn_reranker(model, split.train, split.validation, mask_history=True) is None
    assert model.report.validation["ndcg@10 gained by re-ranking, standard error"] > 0
    monkeypatch.setattr(reranking, "gain_of", lambda *_: np.random.default_rng(0).normal(1, 1, 200))
    assert learn_reranker(model, split.train, split.validation, mask_history=True) is not None


def test_a_release_serves_the_order_that_was_learned() -> None:
    """Scores of all items, as benchmarks judge them, name the same lists where a profile remembers all there was."""
    dataset, model = tiny_dataset(), reranked_model()
    cases = release_split(dataset).validation
    cases = cases.where(np.flatnonzero(cases.lengths <= RING))
    assert len(cases) > 100
    served = judge_release(Scorer.load(reranked_release(), provider="cpu", threads=1), dataset, cases)
    order = np.random.default_rng(0).permutation(dataset.items)
    banned = cases.banned(mask_history=True)
    lists = metrics.top_lists(model.score(cases, "reranked"), 10, banned, order)
    trained = metrics.ndcg(metrics.hits(lists, cases.targets), cases.targets, 10)
    mixed = metrics.top_lists(model.score(cases), 10, banned, order)
    assert (lists[:, 0] != mixed[:, 0]).any()
    assert np.isclose(served.mean(), trained.mean(), atol=0.005)


@pytest.mark.parametrize("compression", ["fp16", "int8"])
def test_variants_of_a_release_keep_its_re_ranker(tmp_path: Path, compression: Compression) -> None:
    variant = compress_release(reranked_release(), compression, tmp_path)
    scorer, full = (Scorer.load(path, provider="cpu", threads=1) for path in (variant, reranked_release()))
    assert scorer.reranker is not None
    features = blank_features(1, 5)
    found, expected = scorer.run(features, 5), full.run(features, 5)
    assert len(np.intersect1d(found.rows, expected.rows)) >= 4
