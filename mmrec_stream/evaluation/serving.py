"""Lists for cases as the stream would serve them: the stream's own requests, and a release's own graphs."""

from collections.abc import Callable

import numpy as np

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.requests import DEFAULT_REPEATS, ItemFacts, requests
from mmrec_stream.data.splits import Cases
from mmrec_stream.evaluation.metrics import Lists
from mmrec_stream.ranking.features import Labels
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.ranking.scorer import Scorer

BATCH = 256
"""Cases in one scoring run; more gain nothing, and their scores take memory."""


def serve(
    scorer: Scorer,
    dataset: Dataset,
    cases: Cases,
    length: int,
    *,
    repeats: Repeats = DEFAULT_REPEATS,
    progress: Callable[[int], None] | None = None,
) -> Lists:
    """A loaded release's lists for cases, as item numbers of the data set, (cases, length), padded with -1.

    Items that the release does not know are added from the catalogue first, as workers do; all are available.

    Args:
        scorer: The release.
        dataset: What the cases are about.
        cases: Whom to recommend to, and when.
        length: Places of a list.
        repeats: When an item that a user has had may come back, as workers are told; the release may know more.
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
    features = requests(cases, scorer.table, facts, labels, scorer.max_history, repeats.learned(scorer.cycles))
    row_of_item = scorer.table.rows(id_keys(dataset.item_ids))
    item_of_row = np.full(len(scorer.table), -2, dtype=np.int32)  # −2: in the release, but not in this data
    item_of_row[row_of_item] = np.arange(dataset.items)
    found = np.full((len(cases), min(length, len(scorer.table))), -1, dtype=np.int32)
    for start in range(0, len(cases), BATCH):
        part = slice(start, start + BATCH)
        run = scorer.run(features.part(part), length)
        found[part] = np.where(run.scores > 0, item_of_row[run.rows], -1)
        if progress:
            progress(min(start + BATCH, len(cases)))
    return found
