import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.behaviour import BehaviourEvent, EventType, Purchase, View
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.ranking.popularity import HALF_LIFE_MS, Popularity, recent_weights
from tests.profiles.events import START_MS
from tests.profiles.test_fold import folded


def counted(popularity: Popularity, ids: list[str], times: list[int], kind: EventType = EventType.VIEW) -> None:
    types = np.full(len(ids), kind, dtype=np.uint8)
    popularity.count(ids, id_keys(ids), types, np.array(times, dtype=np.int64))


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 900)), min_size=1, max_size=60), st.integers(1, 60))
def test_counts_fade_by_half_life_however_they_are_cut_into_batches(events: list[tuple[str, int]], size: int) -> None:
    popularity = Popularity()
    for start in range(0, len(events), size):
        batch = events[start : start + size]
        counted(popularity, [item for item, _ in batch], [START_MS + hour * 3_600_000 for _, hour in batch])
    now = max(hour for _, hour in events)
    expected: dict[str, float] = {}
    for item, hour in events:
        expected[item] = expected.get(item, 0) + 2.0 ** ((hour - now) * 3_600_000 / HALF_LIFE_MS)
    ids, keys, shares = popularity.top(5)
    assert keys.tolist() == id_keys(ids).tolist()
    best = max(expected.values())
    found = dict(zip(ids, shares, strict=True))
    for item, count in expected.items():
        if count / best > 1e-12:
            np.testing.assert_allclose(found[item], count / best, rtol=1e-6)
    assert sorted(shares, reverse=True) == list(shares)


def test_a_purchase_counts_as_several_views() -> None:
    popularity = Popularity()
    counted(popularity, ["viewed"] * 4, [START_MS] * 4)
    counted(popularity, ["bought"], [START_MS], EventType.PURCHASE)
    counted(popularity, ["shown"] * 50, [START_MS] * 50, EventType.IMPRESSION)
    assert popularity.top(3)[0] == ["bought", "viewed"]


def test_restored_profiles_tell_what_is_popular() -> None:
    day = 86_400_000
    events: list[BehaviourEvent] = [
        *(View(user_id=f"u{n}", item_id="old hit", ts=START_MS) for n in range(9)),
        *(View(user_id=f"u{n}", item_id="new hit", ts=START_MS + 2 * day) for n in range(4)),
        Purchase(user_id="u1", item_id="not in the catalogue", ts=START_MS + 2 * day),
    ]
    rows = folded(events)
    catalogue = Catalogue()
    catalogue.update([CatalogueItem(item_id="old hit"), CatalogueItem(item_id="new hit")])
    popularity = Popularity()
    popularity.add(*recent_weights(rows.records[: len(rows)], catalogue))
    assert popularity.top(5)[0] == ["new hit"]
