"""Closes the loop: shoppers see some of the lists published for them, and what they do about it is published too."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Self

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.contracts.recommendations import RecommendationList, decode_list
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import open_consumer
from mmrec_stream.settings import Settings
from mmrec_stream.simulator.shoppers import Shoppers
from mmrec_stream.topics import Topics

SHOWN = 0.05
"""Share of the lists that are looked at. Each look is about ten events and each of its clicks a new list: at .05 the
reactions add half to the events, at .2 they would outgrow them."""

LOOKS_AFTER_MS = (500, 3_000)
"""A list is looked at this long after it was published: the user is on a page and comes to the next."""

BATCH = 1_000
"""Lists taken at a time; more wait for the next time."""


class Merged:
    """Events to come, by time, with reactions thrown in as they arise."""

    def __init__(self, events: Iterable[BehaviourEvent]) -> None:
        """Begin with `events`, which are in time order."""
        self._events = iter(events)
        self._heap: list[tuple[int, int, BehaviourEvent]] = []
        self._serial = count()
        self._next = next(self._events, None)

    def add(self, events: Iterable[BehaviourEvent]) -> None:
        """Add events; those whose time has passed come next."""
        for event in events:
            heapq.heappush(self._heap, (event.ts, next(self._serial), event))

    def __iter__(self) -> Iterator[BehaviourEvent]:
        """Every event by time; ends when both are used up."""
        while self._next is not None or self._heap:
            if self._next is None or (self._heap and self._heap[0][0] < self._next.ts):
                yield heapq.heappop(self._heap)[2]
            else:
                event, self._next = self._next, next(self._events, None)
                yield event


def reactions(
    shoppers: Shoppers, lists: Iterable[RecommendationList], rng: np.random.Generator, now_ms: int
) -> Iterator[BehaviourEvent]:
    """What the shoppers do with those of the lists that they come to see."""
    for shown in lists:
        if rng.random() < SHOWN and shown.user_id in shoppers:
            ts = now_ms + int(rng.integers(*LOOKS_AFTER_MS))
            names = [place.item_id for place in shown.items]
            yield from shoppers.react(shown.user_id, names, rng, ts=ts, list_id=shown.list_id)


class ListReader:
    """Reads the lists that are published from now on, without joining a group."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        """Stand at the end of every partition of the recommendations topic.

        Raises:
            UserError: no broker answers.
        """
        partitions = Cluster(settings).partitions().get(topics.recommendations, 0)
        self._consumer: Consumer = open_consumer(settings, f"{settings.app_id}-simulator")
        self._consumer.assign([TopicPartition(topics.recommendations, p, OFFSET_END) for p in range(partitions)])

    def take(self) -> list[RecommendationList]:
        """The lists that have come in, without waiting."""
        messages = self._consumer.consume(BATCH, 0)
        return [decode_list(value) for m in messages if not m.error() and (value := m.value()) is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()
