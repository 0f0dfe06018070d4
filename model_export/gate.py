"""The quality gate: a release is judged as it would serve, and one that is worse than the current is refused."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.evaluation import metrics
from mmrec_stream.evaluation.dataset import Dataset
from mmrec_stream.evaluation.splits import Cases
from mmrec_stream.ranking.features import Labels
from mmrec_stream.ranking.scorer import Scorer
from model_export.sequences import ItemFacts, requests

PLACES = 10
"""Places of a list that are judged: NDCG@10."""

BATCH = 256
"""Cases in one scoring run; more gain nothing, and their scores take memory."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate."""

    accepted: bool
    candidate: float
    """NDCG@10 on the validation cases."""
    current: float | None
    """The current release's on the same cases; None where there is none."""
    reason: str


def judge_release(scorer: Scorer, dataset: Dataset, cases: Cases, *, mask_history: bool = True) -> NDArray[np.float64]:
    """NDCG@10 of a loaded release on cases, as it would serve them: its own graphs, its own vocabularies.

    Items that the release does not know are added from the catalogue first, as workers do. Shape (cases,).
    """
    known = set(scorer.table.ids)
    catalogue = dataset.catalogue or [CatalogueItem(item_id=item_id) for item_id in dataset.item_ids]
    if unseen := [item for item in catalogue if item.item_id not in known]:
        scorer.add_items(unseen)
    every = np.arange(len(scorer.table))
    scorer.table.set_available(every, True)
    lists = scorer.release.vocabularies
    facts = ItemFacts.of(list(dataset.item_ids), list(catalogue), lists["categories"], lists["brands"])
    labels = Labels(lists["categories"]), Labels(lists["brands"])
    features = requests(cases, scorer.table, facts, labels, scorer.max_history)
    row_of_item = scorer.table.rows(id_keys(dataset.item_ids))
    item_of_row = np.full(len(scorer.table), -2, dtype=np.int32)  # −2: in the release, but not in this data
    item_of_row[row_of_item] = np.arange(dataset.items)
    if mask_history:
        features = replace(features, excluded=_histories(cases, row_of_item))
    found = np.full((len(cases), min(PLACES, len(scorer.table))), -1, dtype=np.int32)
    for start in range(0, len(cases), BATCH):
        part = slice(start, start + BATCH)
        run = scorer.run(features.part(part), PLACES)
        found[part] = np.where(run.scores > 0, item_of_row[run.rows], -1)
    return metrics.ndcg(metrics.hits(found, cases.targets), cases.targets, PLACES)


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


def _histories(cases: Cases, row_of_item: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of all items that each case has had, padded with −1, (cases, longest)."""
    rows = np.full((len(cases), int(cases.lengths.max(initial=0))), -1, dtype=np.int64)
    for case in range(len(cases)):
        history = cases.history(case)
        rows[case, : len(history)] = row_of_item[history]
    return rows
