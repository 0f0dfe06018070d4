"""The list of a worker is the list that evaluation makes of the same events."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.data.dataset import from_events
from mmrec_stream.data.splits import Cases, Ragged
from mmrec_stream.evaluation.serving import serve
from mmrec_stream.profiles.record import RING, Records
from mmrec_stream.ranking.recommend import Recommender, Slate
from mmrec_stream.ranking.repeats import DAY_S, Cycles, Repeats
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.simulator import Shoppers, make_shop
from tests.streams.bench import Bench
from tests.tiny import NOW, reranked_release, tiny_release

PLACES = 5


@pytest.mark.parametrize(
    ("release", "repeats", "learned"),
    [
        (tiny_release, Repeats(), None),
        (tiny_release, Repeats(seen_s=0.0, bought_s=3_600.0), None),
        (tiny_release, Repeats(seen_s=0.0), 2.0 * DAY_S),
        (reranked_release, Repeats(), None),
    ],
    ids=["new", "again", "when due", "re-ranked"],
)
async def test_a_worker_serves_what_evaluation_judges(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    release: Callable[[], Path],
    repeats: Repeats,
    learned: float | None,
) -> None:
    """Also of histories that the ring and the ranker cut, of carts and purchases, and of items without an own event."""
    shop = make_shop(60, seed=3)
    seen = Counter[str]()
    events: list[BehaviourEvent] = []
    for event in Shoppers(shop, 12, seed=5, sessions_per_day=2.0).past(12.0, NOW):
        seen[event.user_id] += 1
        if event.item_id and (event.user_id > "user-03" or seen[event.user_id] <= 20):
            events.append(event)
    dataset = from_events("shop", events, shop)
    log = dataset.interactions
    offsets = log.offsets(dataset.users)
    users = np.flatnonzero(np.diff(offsets) > 0)
    ends = offsets[users + 1]
    none = Ragged(np.empty(0, dtype=np.int64), np.zeros(len(users) + 1, dtype=np.int64))
    cases = Cases(log, users.astype(np.int32), offsets[users], ends, log.times[ends - 1], none)
    assert cases.lengths.max() > RING
    assert cases.lengths.min() < RING
    judged = serve(loaded(release(), learned), dataset, cases, PLACES, repeats=repeats)

    moments = {dataset.user_ids[user]: int(when) for user, when in zip(users.tolist(), cases.times, strict=True)}
    recommend = Recommender.recommend

    def at_the_newest_event(self: Recommender, users: list[str], records: Records, now_ms: int) -> list[Slate]:
        """The events are of last year; each user is served at the moment of the newest one."""
        return [
            recommend(self, [user], records[place : place + 1].copy(), moments[user])[0]
            for place, user in enumerate(users)
        ]

    monkeypatch.setattr(Recommender, "recommend", at_the_newest_event)
    bench.recommender._repeats = repeats
    scorer = loaded(release(), learned)
    scorer.add_items(list(shop))
    bench.recommender.serve(scorer)
    served = await lists_of(bench, events, set(moments))
    ids = dataset.item_ids
    for case, user in enumerate(users.tolist()):
        assert served[dataset.user_ids[user]] == [ids[item] for item in judged[case] if item >= 0]


def loaded(release: Path, learned: float | None) -> Scorer:
    """A release; where something is `learned`, every item is bought again after so many seconds."""
    scorer = Scorer.load(release, provider="cpu", threads=1)
    if learned is not None:
        scorer.cycles = Cycles.of(scorer.table.keys, np.full(len(scorer.table), learned))
    return scorer


async def lists_of(bench: Bench, events: list[BehaviourEvent], users: set[str]) -> dict[str, list[str]]:
    """Each user's last list, once all events are folded."""
    for start in range(0, len(events), 50):
        await bench.chunk(*events[start : start + 50])
    task = asyncio.create_task(bench.lists.run())
    await bench.until(lambda: {one.user_id for one in bench.outbox.published} >= users)
    task.cancel()
    return {one.user_id: [item.item_id for item in one.items] for one in bench.outbox.published}
