import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.splits import Cases, Ragged, next_clicks
from mmrec_stream.evaluation import metrics


def _random_run(seed: int, cases: int = 40, items: int = 30) -> tuple[NDArray[np.float32], Ragged]:
    generator = np.random.default_rng(seed)
    scores = generator.random((cases, items)).astype(np.float32)
    targets: list[NDArray[np.integer]] = [
        generator.choice(items, generator.integers(1, 6), replace=False) for _ in range(cases)
    ]
    return scores, Ragged.of(targets)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_accuracy_agrees_with_ranx(k: int) -> None:
    ranx = pytest.importorskip("ranx", reason="ranx is in the extra `bench`")
    scores, targets = _random_run(k)
    lists = metrics.top_lists(scores, 20, None, np.arange(30))
    hit = metrics.hits(lists, targets)
    qrels = ranx.Qrels({f"q{c}": {f"i{t}": 1 for t in targets[c]} for c in range(len(targets))})
    run = ranx.Run({f"q{c}": {f"i{i}": float(scores[c, i]) for i in range(30)} for c in range(len(targets))})
    theirs = ranx.evaluate(qrels, run, [f"hit_rate@{k}", f"recall@{k}", f"mrr@{k}", f"ndcg@{k}"])
    assert metrics.hit_rate(hit, k).mean() == pytest.approx(theirs[f"hit_rate@{k}"])
    assert metrics.recall(hit, targets, k).mean() == pytest.approx(theirs[f"recall@{k}"])
    assert metrics.reciprocal_rank(hit, k).mean() == pytest.approx(theirs[f"mrr@{k}"])
    assert metrics.ndcg(hit, targets, k).mean() == pytest.approx(theirs[f"ndcg@{k}"])


@given(st.integers(0, 1000), st.integers(1, 30))
def test_a_perfect_list_scores_one_and_metrics_stay_in_range(seed: int, k: int) -> None:
    scores, targets = _random_run(seed, cases=5)
    for case in range(len(targets)):
        scores[case, targets[case]] += 2.0
    hit = metrics.hits(metrics.top_lists(scores, 30, None, np.arange(30)), targets)
    assert metrics.ndcg(hit, targets, k) == pytest.approx(1.0)
    assert metrics.hit_rate(hit, k) == pytest.approx(1.0)
    assert metrics.recall(hit, targets, 30) == pytest.approx(1.0)


@given(st.integers(0, 1000), st.integers(1, 25))
@example(573, 6)
def test_lists_are_the_best_unbanned_items_in_order(seed: int, length: int) -> None:
    scores, banned = _random_run(seed, cases=4, items=25)
    order = np.random.default_rng(seed).permutation(25)
    lists = metrics.top_lists(scores, length, [banned[c] for c in range(4)], order)
    place = np.argsort(order)
    for case in range(4):
        # Lists compare in single precision, in which two of the scores may be equal: then the drawn order decides.
        best_first = np.lexsort((place, -scores[case].astype(np.float32)))
        allowed = [item for item in best_first if item not in banned[case]][:length]
        assert lists[case].tolist() == allowed + [-1] * (length - len(allowed))


def test_ties_go_by_the_drawn_order_and_unscorable_items_are_left_out() -> None:
    scores = np.array([[1.0, 1.0, 1.0, -np.inf, np.nan]], dtype=np.float32)
    assert metrics.top_lists(scores, 5, None, np.array([2, 4, 0, 3, 1])).tolist() == [[2, 0, 1, -1, -1]]


def test_equal_scores_favour_no_item_over_many_orders() -> None:
    scores = np.zeros((1, 10), dtype=np.float32)
    generator = np.random.default_rng(0)
    first = [int(metrics.top_lists(scores, 3, None, generator.permutation(10))[0, 0]) for _ in range(2000)]
    assert np.bincount(first, minlength=10).min() > 140  # 200 expected, 4.5 standard deviations


def _cases() -> Cases:
    log = Interactions.of(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 0]), np.array([1, 2, 3, 1, 2]))
    return next_clicks(log, users=2).where(np.array([1, 2]))  # histories [0, 1] and [3]


def test_coverage_counts_each_item_once() -> None:
    assert metrics.coverage(np.array([[0, 1, 2], [1, 0, -1]], dtype=np.int32), 2, items=8) == 0.25


def test_novelty_is_the_self_information_of_what_is_shown() -> None:
    popularity = np.array([3, 1, 0, 0])  # shares with one added: 4/8, 2/8, 1/8, 1/8
    lists = np.array([[0, 1], [2, -1]], dtype=np.int32)
    assert metrics.novelty(lists, popularity, 2).tolist() == [1.5, 3.0]


def test_popularity_lift_compares_list_and_history() -> None:
    popularity = np.array([10, 20, 30, 5])
    lists = np.array([[2, -1], [3, -1]], dtype=np.int32)
    assert metrics.popularity_lift(lists, _cases(), popularity, 2).tolist() == [1.0, 0.0]


def test_a_list_with_the_historys_mix_is_calibrated_and_another_is_not() -> None:
    categories = np.array([0, 1, 0, 1])
    mixed = metrics.miscalibration(np.array([[2, 3], [1, 3]], dtype=np.int32), _cases(), categories, 2)
    assert mixed == pytest.approx([0.0, 0.0])
    lopsided = metrics.miscalibration(np.array([[0, 2], [0, 2]], dtype=np.int32), _cases(), categories, 2)
    assert (lopsided > 0.5).all()


def test_the_bootstrap_interval_covers_and_narrows_with_more_users() -> None:
    values = np.random.default_rng(1).random(4000)
    few = metrics.bootstrap(values[:100], np.arange(100))
    many = metrics.bootstrap(values, np.arange(4000))
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    assert few.low < few.value < few.high
    assert many.low < 0.5 < many.high
    assert many.high - many.low < (few.high - few.low) / 4


def test_the_bootstrap_resamples_users_not_cases() -> None:
    values = np.repeat(np.random.default_rng(2).random(20), 50)
    by_user = metrics.bootstrap(values, np.repeat(np.arange(20), 50))
    by_case = metrics.bootstrap(values, np.arange(1000))
    assert by_user.low is not None
    assert by_case.low is not None
    assert by_user.low < by_case.low
