"""Calibration: which α a history length gets, by what each is worth on validation cases."""

import numpy as np

from model_export.calibration import MIN_BUCKET_CASES, choose_alphas
from model_export.ranker import BUCKETS

LENGTHS = np.repeat(BUCKETS, 4 * MIN_BUCKET_CASES)


def quality_of(best: dict[int, int], gain: float, noise: float) -> np.ndarray:
    """What three α are worth: the second for all, but for the least history lengths in `best`."""
    quality = np.random.default_rng(0).normal(0.0, noise, (3, len(LENGTHS)))
    quality[1] += gain
    for low, row in best.items():
        quality[row, low == LENGTHS] += 2 * gain
    return quality


def test_a_history_length_has_its_own_alpha_where_it_is_clearly_better() -> None:
    chosen = choose_alphas(quality_of({1: 0, 20: 2}, gain=0.1, noise=0.05), LENGTHS)
    assert chosen.tolist() == [0, 1, 1, 1, 1, 2]


def test_what_noise_alone_makes_best_is_not_chosen() -> None:
    quality = quality_of({}, gain=0.0, noise=1.0)
    quality[1] += 0.02
    own = [int(quality[:, low == LENGTHS].mean(axis=1).argmax()) for low in BUCKETS]
    chosen = choose_alphas(quality, LENGTHS)
    overall = int(quality.mean(axis=1).argmax())
    assert (chosen != overall).sum() < (np.array(own) != overall).sum()


def test_few_cases_of_a_length_choose_nothing() -> None:
    lengths = np.r_[LENGTHS[LENGTHS > 1], np.ones(MIN_BUCKET_CASES - 1, dtype=int)]
    quality = np.zeros((2, len(lengths)))
    quality[1, lengths > 1] = 1.0
    quality[0, lengths == 1] = 1.0
    assert choose_alphas(quality, lengths).tolist() == [1] * len(BUCKETS)
