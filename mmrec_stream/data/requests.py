"""Cases as the ranker's inputs, made by the stream's own fold and gather: training and judging see what it sees."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys, short_key
from mmrec_stream.data.splits import Cases
from mmrec_stream.profiles import record as profile
from mmrec_stream.profiles.columns import EventColumns
from mmrec_stream.profiles.fold import fold
from mmrec_stream.ranking.features import Labels, features_of
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.ranking.types import Features

FOLDED = 2_000
"""Newest events of a case that are folded: forty rings. What is older has no place left in the profile, and of its
affinities and counts hardly anything but with a user who does more than that in a week."""

DEFAULT_REPEATS = Repeats()
"""As a worker whose settings say nothing else."""


@dataclass(frozen=True)
class ItemFacts:
    """What a fold reads of each item, every array (items,): 0 or −1 where the catalogue is silent."""

    keys: NDArray[np.uint64]
    category_keys: NDArray[np.uint32]
    brand_keys: NDArray[np.uint32]
    price_bands: NDArray[np.int8]
    categories: NDArray[np.int64]
    """1-based index into the model's categories."""
    brands: NDArray[np.int64]

    @classmethod
    def of(
        cls, ids: list[str], catalogue: list[CatalogueItem], categories: list[str], brands: list[str]
    ) -> "ItemFacts":
        """Facts of catalogue entries, in the order of `ids`."""
        category_index = {name: index for index, name in enumerate(categories, start=1)}
        brand_index = {name: index for index, name in enumerate(brands, start=1)}
        return cls(
            id_keys(ids),
            np.array([short_key(item.category) if item.category else 0 for item in catalogue], dtype=np.uint32),
            np.array([short_key(item.brand) if item.brand else 0 for item in catalogue], dtype=np.uint32),
            profile.price_bands(np.array([np.nan if item.price is None else item.price for item in catalogue])),
            np.array([category_index.get(item.category or "", 0) for item in catalogue], dtype=np.int64),
            np.array([brand_index.get(item.brand or "", 0) for item in catalogue], dtype=np.int64),
        )


def profiles_of(cases: Cases, facts: ItemFacts) -> profile.Records:
    """The profiles that the stream's own fold makes of the cases' histories, (cases,)."""
    lengths = np.minimum(cases.lengths, FOLDED)
    owners = np.repeat(np.arange(len(cases)), lengths)
    inner = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    events = np.repeat(cases.ends - lengths, lengths) + inner
    items = cases.log.items[events]
    records = profile.empty(len(cases))
    columns = EventColumns(
        users=[],
        types=cases.log.types[events].astype(np.uint8),
        items=facts.keys[items],
        times_ms=cases.log.times[events],
        offsets=inner.astype(np.int64),
        ratings=cases.log.ratings[events],
        categories=facts.category_keys[items],
        brands=facts.brand_keys[items],
        price_bands=facts.price_bands[items],
    )
    fold(records, owners.astype(np.int64), columns, source=1, tastes=cases.log.rule)
    return records


def requests(
    cases: Cases,
    table: ItemTable,
    facts: ItemFacts,
    labels: tuple[Labels, Labels],
    history: int,
    repeats: Repeats = DEFAULT_REPEATS,
) -> Features:
    """The ranker's inputs for cases, made by the stream's own fold and gather, so that they are what it would send.

    A case stands at the moment of its newest event, as lists are made right after one.
    """
    records = profiles_of(cases, facts)
    now_ms = records["last_ms"].copy()
    rule = cases.log.rule
    return features_of(records, table, *labels, now_ms=now_ms, repeats=repeats, max_history=history, tastes=rule)[0]
