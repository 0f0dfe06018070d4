"""The way of a chunk without brokers: confirmations and commits are in the test's hands."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from faust.types import TP

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.behaviour import BehaviourEvent, Forget, Impression, Purchase, View, encode_event
from mmrec_stream.contracts.dead_letters import DeadLetter, decode_dead_letter
from mmrec_stream.contracts.recommendations import RecommendationList, decode_list
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.ranking.recommend import Recommender
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams.lists import Lists
from streams.metrics import Metrics
from streams.ownership import Ownership, Ticket
from streams.pipeline import CAUGHT_UP, Pipeline
from tests.streams.chunks import chunk_of
from tests.streams.owners import KeptChangelog, own, write

SETTINGS = Settings(_env_file=None, partitions=1, score_batch=8)  # type: ignore[call-arg]
TOPICS = Topics.of(SETTINGS)


class HeldOutbox:
    """Keeps what is sent until the test says whether it was delivered."""

    def __init__(self) -> None:
        self.published: list[RecommendationList] = []
        self.taken_back: list[str] = []
        """Users whose list was taken back."""
        self.letters: list[DeadLetter] = []
        self._waiting: list[Callable[[bool], None]] = []

    async def room(self) -> None: ...

    def letter(self, topic: str, key: bytes, value: bytes, ticket: Ticket) -> None:
        assert topic == TOPICS.dead_letters
        self.letters.append(decode_dead_letter(value))
        ticket.add()
        self._waiting.append(lambda _: ticket.settle())

    def lists(
        self, topic: str, records: Sequence[tuple[str, bytes | None]], outcome: Callable[[int, bool], None]
    ) -> None:
        assert topic == TOPICS.recommendations
        for place, (user, value) in enumerate(records):
            if value is None:
                self.taken_back.append(user)
            else:
                self.published.append(decode_list(value))
                assert self.published[-1].user_id == user
            self._waiting.append(lambda delivered, place=place: outcome(place, delivered))  # type: ignore[misc]

    def confirm(self, *, delivered: bool = True, first: int | None = None) -> None:
        """All that was sent so far, or the first ones, was delivered, or was not."""
        told, self._waiting = self._waiting[:first], self._waiting[len(self._waiting[:first]) :]
        for tell in told:
            tell(delivered)

    @property
    def causes(self) -> list[tuple[str, str, int]]:
        """User, topic and offset that each list was made for."""
        return [(one.user_id, one.cause.topic, one.cause.offset) for one in self.published]


@dataclass
class Bench:
    """One worker's pipeline and lists, and an ownership of partition 0."""

    outbox: HeldOutbox = field(default_factory=HeldOutbox)
    metrics: Metrics = field(default_factory=Metrics)
    changelog: KeptChangelog = field(default_factory=KeptChangelog)
    begun: list[int] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS.behaviour, 0))

    def __post_init__(self) -> None:
        catalogue, popularity = Catalogue(), Popularity()
        self.recommender = Recommender(catalogue, popularity, list_size=5, repeats=Repeats())
        outbox = cast("Any", self.outbox)
        self.entitled = True
        self.lists = Lists(
            SETTINGS, TOPICS.recommendations, self.recommender, outbox, self.metrics, lambda: self.entitled
        )
        self.pipeline = Pipeline(
            SETTINGS,
            catalogue,
            popularity,
            self.lists,
            outbox,
            self.metrics,
            lambda columns, fresh: None,
            lambda user: None,
        )
        self.owner = own(self.changelog, self.ends)

    async def chunk(
        self,
        *events: BehaviourEvent | Forget | bytes,
        topic: str = TOPICS.clicks,
        more: bool = False,
        age_s: float = 0.0,
        behind: int = 0,
        owner: Ownership | None = None,
    ) -> int:
        """Hand over a chunk; its last offset.

        Args:
            events: its records.
            topic: where they come from.
            more: whether others of its fetch follow.
            age_s: how long the broker has had them.
            behind: records that wait after it.
            owner: whose it is; the present one's where None.
        """
        values = [event if isinstance(event, bytes) else encode_event(event) for event in events]
        first = self.ends[topic]
        self.ends[topic] += len(values)
        last = self.ends[topic] - 1

        def begin() -> bool:
            self.begun.append(last)
            return more

        now = time.time()
        chunk = chunk_of(
            TP(topic, 0),
            values,
            range(first, first + len(values)),
            owner=owner or self.owner,
            time_ms=int((now - age_s) * 1000),
            fetched=now,
            behind=behind,
        )
        await self.pipeline.accept(chunk, begin)
        return last

    async def old_chunk(self, *events: BehaviourEvent | Forget | bytes, topic: str = TOPICS.clicks) -> int:
        """As `chunk`, of an hour ago, with as many records behind it as a worker has that catches up."""
        return await self.chunk(*events, topic=topic, age_s=3_600, behind=CAUGHT_UP + 1)

    async def write(self) -> None:
        """Commit what has changed to the changelog."""
        await write(self.owner)

    def finished(self, topic: str = TOPICS.clicks) -> int | None:
        """The next offset to read after all that is finished; None if nothing is."""
        return self.owner.committable().get(topic)

    def hand_over(self, **positions: int) -> None:
        """Close the ownership; a new one begins with the changelog's rows, and with `positions` of `Topics`' fields."""
        self.owner.close()
        self.ends |= {getattr(TOPICS, name): offset for name, offset in positions.items()}
        self.owner = own(self.changelog, self.ends)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it, ten seconds at most."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def turns(self, count: int = 20) -> None:
        """Let the loop turn: what is ready to happen happens."""
        for _ in range(count):
            await asyncio.sleep(0)


def now_ms() -> int:
    return int(time.time() * 1000)


def view(user: str, item: str = "lamp") -> View:
    return View(user_id=user, item_id=item, ts=now_ms())


def purchase(user: str, item: str = "lamp") -> Purchase:
    return Purchase(user_id=user, item_id=item, ts=now_ms())


def impression(user: str, item: str = "lamp") -> Impression:
    return Impression(user_id=user, item_id=item, list_id="l", position=0, ts=now_ms())


def forget(user: str) -> Forget:
    return Forget(user_id=user, ts=now_ms())
