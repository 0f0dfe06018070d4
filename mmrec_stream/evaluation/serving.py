"""Lists for cases as the stream would serve them: the stream's own requests, and a release's own graphs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.requests import ItemFacts, requests
from mmrec_stream.data.splits import Cases
from mmrec_stream.evaluation.metrics import Lists
from mmrec_stream.ranking.features import Labels
from mmrec_stream.ranking.scorer import Scorer

BATCH = 256
"""Cases in one scoring run; more gain nothing, and their scores take memory."""


def serve(
    scorer: Scorer,
    dataset: Dataset,
    cases: Cases,
    length: int,
    *,
    mask_history: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Lists:
    """A loaded release's lists for cases, as item numbers of the data set, (cases, length), padded with -1.

    Items that the release does not know are added from the catalogue first, as workers do; all are available.

    Args:
        scorer: The release.
        dataset: What the cases are about.
        cases: Whom to recommend to, and when.
        length: Places of a list.
        mask_history: Whether what a user has had is left out.
        progress: Called with how many cases are done.
    """
    known = set(scorer.table.ids)
    catalogue = dataset.catalogue or [CatalogueItem(item_id=item_id) for item_id in dataset.item_ids]
    if unseen := [item for item in catalogue if item.item_id not in known]:
        scorer.add_items(unseen)
    scorer.table.set_available(np.arange(len(scorer.table)), True)
    lists = scorer.release.vocabularies
    facts = ItemFacts.of(list(dataset.item_ids), list(catalogue), lists["categories"], lists["brands"])
    labels = Labels(lists["categories"]), Labels(lists["brands"])
    features = requests(cases, scorer.table, facts, labels, scorer.max_history)
    row_of_item = scorer.table.rows(id_keys(dataset.item_ids))
    item_of_row = np.full(len(scorer.table), -2, dtype=np.int32)  # −2: in the release, but not in this data
    item_of_row[row_of_item] = np.arange(dataset.items)
    if mask_history:
        features = replace(features, excluded=_histories(cases, row_of_item))
    found = np.full((len(cases), min(length, len(scorer.table))), -1, dtype=np.int32)
    for start in range(0, len(cases), BATCH):
        part = slice(start, start + BATCH)
        run = scorer.run(features.part(part), length)
        found[part] = np.where(run.scores > 0, item_of_row[run.rows], -1)
        if progress:
            progress(min(start + BATCH, len(cases)))
    return found


def _histories(cases: Cases, row_of_item: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of all items that each case has had, padded with −1, (cases, longest)."""
    rows = np.full((len(cases), int(cases.lengths.max(initial=0))), -1, dtype=np.int64)
    for case in range(len(cases)):
        history = cases.history(case)
        rows[case, : len(history)] = row_of_item[history]
    return rows
