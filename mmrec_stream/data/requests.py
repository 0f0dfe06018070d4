"""Cases as the ranker's inputs, made by the stream's own fold and gather: training and judging see what it sees."""

from dataclasses import dataclass, replace

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
from mmrec_stream.ranking.types import Features

FOLDED = 500
"""Newest events of a case that are folded: ten rings; what is older has no place left, and no affinity to speak of."""


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


def requests(cases: Cases, table: ItemTable, facts: ItemFacts, labels: tuple[Labels, Labels], history: int) -> Features:
    """The ranker's inputs for cases, made by the stream's own fold and gather, so that they are what it would send.

    A case stands at the moment of its newest event, as lists are made right after one; nothing is excluded.
    """
    records = profiles_of(cases, facts)
    # As of time 0 nothing is brought forward: each profile stays at its own newest event.
    features, _ = features_of(records, table, *labels, now_ms=0, repurchase_s=0.0, max_history=history)
    newest = records["times"].max(axis=1).astype(np.int64)
    sizes = records["size"].astype(np.int64)
    width = features.history_rows.shape[1]
    places = np.maximum(sizes - width, 0)[:, None] + np.arange(width)
    times = np.take_along_axis(records["times"].astype(np.int64), np.minimum(places, profile.RING - 1), axis=1)
    ages = np.where(places < sizes[:, None], newest[:, None] - times, 0).astype(np.float32)
    return replace(features, history_ages=ages, excluded=np.empty((len(cases), 0), dtype=np.int64))
