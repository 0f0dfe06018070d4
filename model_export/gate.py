"""The quality gate: a release is judged as it would serve, and one that is worse than the current is refused."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.requests import DEFAULT_REPEATS
from mmrec_stream.data.splits import Cases
from mmrec_stream.evaluation import metrics
from mmrec_stream.evaluation.serving import serve
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.ranking.scorer import Scorer

PLACES = 10
"""Places of a list that are judged: NDCG@10."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate."""

    accepted: bool
    candidate: float
    """NDCG@10 on the test cases."""
    current: float | None
    """The current release's on the same cases; None where there is none."""
    reason: str


def judge_release(
    scorer: Scorer, dataset: Dataset, cases: Cases, repeats: Repeats = DEFAULT_REPEATS
) -> NDArray[np.float64]:
    """NDCG@10 of a loaded release on cases, as it would serve them, (cases,)."""
    lists = serve(scorer, dataset, cases, PLACES, repeats=repeats)
    return metrics.ndcg(metrics.hits(lists, cases.targets), cases.targets, PLACES)


def verdict(candidate: NDArray[np.float64], current: NDArray[np.float64] | None) -> Verdict:
    """Whether a candidate may replace the current release, by their NDCG@10 on the same cases, (cases,) each.

    It may be worse by one standard error of the paired difference: two models of the same quality differ by that
    much, and refusing every second retraining would leave the stream with an old model.
    """
    mean = float(candidate.mean()) if len(candidate) else 0.0
    if current is None:
        return Verdict(True, mean, None, "there is no release to compare with")
    difference = candidate - current
    error = float(difference.std() / max(len(difference), 1) ** 0.5) if len(difference) else 0.0
    accepted = not len(difference) or float(difference.mean()) >= -error
    before = float(current.mean()) if len(current) else 0.0
    compared = f"NDCG@{PLACES} {mean:.4f} against {before:.4f} of the current release, standard error {error:.4f}"
    return Verdict(accepted, mean, before, compared)
