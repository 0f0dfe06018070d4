"""From a log to what the model reads: training sequences, and requests for cases as the stream would make them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys, short_key
from mmrec_stream.evaluation.dataset import Interactions
from mmrec_stream.evaluation.splits import Cases
from mmrec_stream.profiles import record as profile
from mmrec_stream.profiles.columns import EventColumns
from mmrec_stream.profiles.fold import AFFINITY_HALF_LIFE_MS, AFFINITY_WEIGHTS, fold
from mmrec_stream.ranking.features import Labels, features_of
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.types import Features

TARGET_TYPES = (EventType.VIEW, EventType.CLICK, EventType.ADD_TO_CART, EventType.PURCHASE, EventType.RATING)
"""What the model learns to foresee: a liking. Taking back, or being shown something, is none."""

NO_TARGET = -1

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


@dataclass(frozen=True)
class Sequences:
    """Pieces of users' histories to train on; all arrays (pieces, length), padded on the right."""

    rows: NDArray[np.int64]
    types: NDArray[np.int64]
    times: NDArray[np.float64]
    """Seconds since 1970."""
    targets: NDArray[np.int64]
    """The item that came next, `NO_TARGET` where there is none to learn from."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int, generator: np.random.Generator) -> Iterator["Sequences"]:
        """All pieces once, in random order; each batch as long as its longest piece."""
        order = generator.permutation(len(self))
        for start in range(0, len(self), size):
            chosen = order[start : start + size]
            length = int((self.types[chosen] > 0).sum(1).max())
            yield Sequences(
                self.rows[chosen, :length],
                self.types[chosen, :length],
                self.times[chosen, :length],
                self.targets[chosen, :length],
            )


def without_impressions(log: Interactions) -> Interactions:
    """The interactions that a history consists of."""
    return log.where(log.types != EventType.IMPRESSION)


def training_sequences(log: Interactions, length: int, *, repeats: bool) -> Sequences:
    """Cut users' histories into pieces of at most `length` events, each with what came next.

    The target of a place is the next event of `TARGET_TYPES`, without `repeats` the next one about an item that the
    user has not had before.
    """
    log = without_impressions(log)
    count = len(log)
    positions = log.positions()
    pieces = np.cumsum(positions % length == 0) - 1
    shape = (int(pieces[-1]) + 1 if count else 0, length)
    place = positions % length
    rows, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    times = np.zeros(shape, dtype=np.float64)
    targets = np.full(shape, NO_TARGET, dtype=np.int64)
    rows[pieces, place], types[pieces, place] = log.items, log.types
    times[pieces, place] = log.times / 1000.0
    targets[pieces, place] = _next_targets(log, repeats)
    # Padding stands at the last event's time, so that no gap into it is negative.
    last = times.max(axis=1, initial=0.0, keepdims=True)
    times = np.where(types > 0, times, last)
    useful = (targets != NO_TARGET).any(axis=1)
    return Sequences(rows[useful], types[useful], times[useful], targets[useful])


def _next_targets(log: Interactions, repeats: bool) -> NDArray[np.int64]:
    """What each event's place in its history should foresee, (events,)."""
    count = len(log)
    wanted = np.isin(log.types, np.array(TARGET_TYPES))
    if not repeats:
        pairs = log.users.astype(np.int64) << 32 | log.items
        _, first = np.unique(pairs, return_index=True)
        fresh = np.zeros(count, dtype=bool)
        fresh[first] = True
        wanted &= fresh
    # The nearest wanted event after each one, and its user, by looking back from the end.
    following = np.where(wanted, np.arange(count), count)
    following = np.minimum.accumulate(following[::-1])[::-1]
    following = np.r_[following[1:], count][:count]
    inside = following < count
    following = np.minimum(following, max(count - 1, 0))
    inside &= log.users[following] == log.users if count else inside
    return np.where(inside, log.items[following], NO_TARGET).astype(np.int64)


def side_inputs(batch: Sequences, facts: ItemFacts | None) -> tuple[NDArray[np.float32], ...]:
    """What a profile would hold at each place of the sequences: the decayed affinities and counts.

    Returns:
        Weights of each earlier event in the affinities (batch, length, length), price bands (batch, length, 8), and
        type counts (batch, length, 3, 11).
    """
    ages = np.maximum(batch.times[:, :, None] - batch.times[:, None, :], 0.0)
    length = batch.rows.shape[1]
    past = np.tril(np.ones((length, length), dtype=bool)) & (batch.types > 0)[:, None, :]
    liking = np.zeros(profile.TYPE_SLOTS, dtype=np.float32)
    for code, weight in AFFINITY_WEIGHTS.items():
        liking[code] = weight
    half_life = AFFINITY_HALF_LIFE_MS / 1000.0
    weights = (past * np.exp2(-ages / half_life) * liking[batch.types][:, None, :]).astype(np.float32)
    bands = np.zeros((*batch.rows.shape, profile.PRICE_BANDS), dtype=np.float32)
    if facts is not None:
        own = facts.price_bands[batch.rows]
        bands[own >= 0, own[own >= 0]] = 1.0
    one_hot = np.eye(profile.TYPE_SLOTS, dtype=np.float32)[batch.types]
    one_hot[:, :, 0] = 0.0
    counts = np.stack(
        [(past * np.exp2(-ages / (window / 1000.0))).astype(np.float32) @ one_hot for window in profile.WINDOWS_MS],
        axis=2,
    )
    return weights, weights @ bands, counts


def requests(cases: Cases, table: ItemTable, facts: ItemFacts, labels: tuple[Labels, Labels], history: int) -> Features:
    """The ranker's inputs for cases, made by the stream's own fold and gather, so that they are what it would send.

    A case stands at the moment of its newest event, as lists are made right after one; nothing is excluded.
    """
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
        ratings=np.zeros(len(events), dtype=np.float32),
        categories=facts.category_keys[items],
        brands=facts.brand_keys[items],
        price_bands=facts.price_bands[items],
    )
    fold(records, owners.astype(np.int64), columns, source=1)
    # As of time 0 nothing is brought forward: each profile stays at its own newest event.
    features, _ = features_of(records, table, *labels, now_ms=0, repurchase_s=0.0, max_history=history)
    newest = records["times"].max(axis=1).astype(np.int64)
    sizes = records["size"].astype(np.int64)
    width = features.history_rows.shape[1]
    places = np.maximum(sizes - width, 0)[:, None] + np.arange(width)
    times = np.take_along_axis(records["times"].astype(np.int64), np.minimum(places, profile.RING - 1), axis=1)
    ages = np.where(places < sizes[:, None], newest[:, None] - times, 0).astype(np.float32)
    return replace(features, history_ages=ages, excluded=np.empty((len(cases), 0), dtype=np.int64))
