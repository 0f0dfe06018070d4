"""The group on real brokers: what is fetched from where, and what a change of the assignment leaves of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from faust.types import TP

from mmrec_stream.brokers import embedded, why_no_embedded
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, topic_plan
from streams import group as module
from streams.chunks import Chunk
from streams.group import GROUP_FATAL, GroupClient, GroupError
from streams.ownership import Ownership
from tests.conftest import RunningBroker
from tests.streams.owners import KeptChangelog

SETTINGS = Settings(_env_file=None, bootstrap="127.0.0.1:1")  # type: ignore[call-arg]


@dataclass
class Holder:
    """Takes every partition that it is given; what it is told, in order."""

    owners: dict[int, Ownership] = field(default_factory=dict)
    committed: dict[TP, int | None] = field(default_factory=dict)
    placed: set[TP] = field(default_factory=set)
    revoked: list[tuple[set[TP], bool]] = field(default_factory=list)
    lost: list[set[TP]] = field(default_factory=list)
    gaps: list[tuple[str, int]] = field(default_factory=list)
    handing_over: Callable[[], Any] = lambda: None
    """What is done before partitions are given up."""

    async def on_assigned(self, committed: Mapping[TP, int | None]) -> Mapping[TP, tuple[Ownership, int]]:
        self.committed |= committed
        placed: dict[TP, tuple[Ownership, int]] = {}
        for tp, offset in committed.items():
            owner = self.owners.get(tp.partition)
            if owner is None:
                owner = self.owners[tp.partition] = owner_of(tp.partition, {tp.topic: offset})
            owner.fetched.setdefault(tp.topic, offset or 0)
            placed[tp] = (owner, OFFSET_BEGINNING if offset is None else offset)
        return placed

    async def on_revoked(self, partitions: set[TP], *, may_return: bool) -> None:
        if (done := self.handing_over()) is not None:
            await done
        self.revoked.append((partitions, may_return))
        self._close(partitions)

    def on_lost(self, partitions: set[TP]) -> None:
        self.lost.append(partitions)
        self._close(partitions)

    def on_gap(self, topic: str, records: int) -> None:
        self.gaps.append((topic, records))

    def on_placed(self, owners: Mapping[TP, Ownership]) -> None:
        self.placed |= owners.keys()

    def _close(self, partitions: set[TP]) -> None:
        self.placed -= partitions
        for tp in partitions:
            if (owner := self.owners.pop(tp.partition, None)) is not None:
                owner.close()


def owner_of(partition: int, positions: Mapping[str, int | None]) -> Ownership:
    return Ownership(partition, positions, cast("Any", KeptChangelog()))


class Member:
    """A worker's client and what it has fetched."""

    def __init__(self, settings: Settings, protocol: str) -> None:
        self.holder = Holder()
        self.client = GroupClient(settings, protocol, self.holder)
        self.chunks: list[Chunk] = []

    @property
    def got(self) -> dict[TP, list[int]]:
        """Offsets fetched of each partition, in their order."""
        found: dict[TP, list[int]] = {}
        for one in self.chunks:
            found.setdefault(TP(one.topic, one.partition), []).extend(one.offsets)
        return found

    async def until(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        """Fetch until then."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.chunks += await self.client.fetch(0.05)

    async def fetches(self, count: int = 10) -> None:
        """Fetch some times more: what was to come would have come."""
        for _ in range(count):
            self.chunks += await self.client.fetch(0.05)


@pytest.fixture
def protocol(broker: RunningBroker) -> str:
    return "consumer" if broker.is_kafka else "classic"


@pytest.fixture
async def join(settings: Settings, topics: Topics, protocol: str) -> AsyncIterator[Callable[[], Member]]:
    """Makes members of one group that share the clicks."""
    members: list[Member] = []

    def join(protocol: str = protocol) -> Member:
        member = Member(settings, protocol)
        member.client.subscribe([topics.clicks])
        members.append(member)
        return member

    yield join
    for member in members:
        if not member.client.leaving:
            await member.client.leave()


@pytest.fixture
def places(topics: Topics, settings: Settings) -> list[TP]:
    return [TP(topics.clicks, number) for number in range(settings.partitions)]


def unreachable(member: Member) -> bool:
    return member.client.unreachable_since is not None


def send(settings: Settings, tp: TP, count: int) -> None:
    with BatchProducer(settings) as producer:
        for number in range(count):
            producer.send(tp.topic, b"%d" % number, key=b"ann", partition=tp.partition)


async def test_nothing_is_fetched_of_a_partition_until_it_is_resumed(
    join: Callable[[], Member], places: list[TP], settings: Settings
) -> None:
    send(settings, places[0], 5)
    send(settings, places[1], 5)
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    assert member.client.member
    assert member.holder.committed == dict.fromkeys(places)
    await member.fetches()
    assert member.chunks == []
    member.client.resume({places[0]})
    await member.until(lambda: member.got == {places[0]: [0, 1, 2, 3, 4]})
    await member.fetches()
    assert len(member.got) == 1
    member.client.pause({places[0]})
    member.client.resume({places[1]})
    send(settings, places[0], 1)
    await member.until(lambda: places[1] in member.got)
    await member.fetches()
    assert member.got == {places[0]: [0, 1, 2, 3, 4], places[1]: [0, 1, 2, 3, 4]}
    member.client.resume({places[0]})
    await member.until(lambda: member.got[places[0]] == [0, 1, 2, 3, 4, 5])


async def test_a_chunk_says_whose_it_is_when_it_came_and_what_waits_behind_it(
    join: Callable[[], Member], places: list[TP], settings: Settings
) -> None:
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    send(settings, places[2], 3)
    member.client.resume(places)
    await member.until(lambda: places[2] in member.got)
    (chunk,) = [one for one in member.chunks if one.offsets[-1] == 2]
    assert (chunk.owner, chunk.behind) == (member.holder.owners[2], 0)
    assert chunk.owner.fetched[places[2].topic] == 3
    assert chunk.keys == [b"ann"] * len(chunk)
    assert chunk.fetched * 1000 >= chunk.times_ms[-1] > 1_600_000_000_000


async def test_who_comes_next_goes_on_where_the_group_has_committed(
    join: Callable[[], Member], places: list[TP], settings: Settings
) -> None:
    for place in places[:2]:
        send(settings, place, 10)
    first = join()
    await first.until(lambda: first.holder.placed == set(places))
    assert await first.client.commit({places[0]: 7})
    await first.client.leave()
    second = join()
    await second.until(lambda: second.holder.placed == set(places))
    assert second.holder.committed == {**dict.fromkeys(places), places[0]: 7}
    second.client.resume(places)
    await second.until(lambda: len(second.got) == 2 and len(second.got[places[1]]) == 10)
    await second.fetches(3)
    assert second.got == {places[0]: [7, 8, 9], places[1]: list(range(10))}


async def test_what_is_finished_before_a_partition_is_handed_over_is_committed_in_time(
    join: Callable[[], Member], places: list[TP], settings: Settings
) -> None:
    send(settings, places[0], 10)
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    owners = set(member.holder.owners.values())
    taken: list[bool] = []

    async def handing_over() -> None:
        assert not any(owner.closed for owner in owners)
        taken.append(await member.client.commit({places[0]: 4}))

    member.holder.handing_over = handing_over
    await member.client.leave()
    assert taken == [True]
    assert [partitions for partitions, _ in member.holder.revoked] == [set(places)]
    assert all(owner.closed for owner in owners)
    assert await member.client.fetch(0.01) == []
    after = join()
    await after.until(lambda: after.holder.placed == set(places))
    assert after.holder.committed[places[0]] == 4


async def test_a_partition_belongs_to_one_member_at_a_time_and_no_record_of_it_to_the_earlier_one(
    join: Callable[[], Member], places: list[TP], settings: Settings, protocol: str
) -> None:
    first = join()
    await first.until(lambda: first.holder.placed == set(places))
    first.client.resume(places)
    second = join()

    async def both() -> None:
        for member in (first, second):
            member.chunks += [one for one in await member.client.fetch(0.02) if not one.owner.closed]

    async with asyncio.timeout(90):
        while not (second.holder.placed and first.holder.placed | second.holder.placed == set(places)):
            await both()
    assert not first.holder.placed & second.holder.placed
    for member in (first, second):
        member.client.resume(member.holder.placed)
    for place in places:
        send(settings, place, 5)
    async with asyncio.timeout(60):
        while len(first.got) + len(second.got) < len(places):
            await both()
    assert set(first.got) == first.holder.placed
    assert set(second.got) == second.holder.placed
    moved = second.holder.placed
    (revoked, may_return), *_ = first.holder.revoked
    assert (revoked, may_return) == ((moved, False) if protocol == "consumer" else (set(places), True))


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_input_that_was_deleted_before_it_was_read_is_told_and_passed(
    kafka_settings: Settings, kafka_topics: Topics, protocol: str
) -> None:
    settings, topic = kafka_settings, kafka_topics.clicks
    places = [TP(topic, number) for number in range(settings.partitions)]
    place, paused = places[1], places[2]

    def join() -> Member:
        member = Member(settings, protocol)
        member.client.subscribe([topic])
        return member

    for one in (place, paused, places[3]):
        send(settings, one, 10)
    first = join()
    await first.until(lambda: first.holder.placed == set(places))
    assert await first.client.commit({place: 2, paused: 3, places[3]: 4})
    await first.client.leave()
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    (deleted,) = admin.delete_records([TopicPartition(*place, 6)]).values()
    await asyncio.to_thread(deleted.result, 30)
    second = join()
    await second.until(lambda: second.holder.placed == set(places))
    second.client.resume({place, places[3]})
    await second.until(lambda: place in second.got)
    await second.fetches()
    assert second.got == {place: [6, 7, 8, 9], places[3]: list(range(4, 10))}
    assert second.holder.gaps == [(topic, 4)]
    assert second.holder.owners[1].fetched[topic] == 10
    second.client.resume({paused})
    await second.until(lambda: second.got.get(paused) == list(range(3, 10)))
    await second.client.leave()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_offsets_that_have_gone_back_end_it_with_a_reason(
    kafka_settings: Settings, kafka_topics: Topics, protocol: str
) -> None:
    send(kafka_settings, TP(kafka_topics.clicks, 1), 3)
    first, second = Member(kafka_settings, protocol), Member(kafka_settings, protocol)
    first.client.subscribe([kafka_topics.clicks])
    await first.until(lambda: len(first.holder.placed) == kafka_settings.partitions)
    assert await first.client.commit({TP(kafka_topics.clicks, 1): 50})
    await first.client.leave()
    second.client.subscribe([kafka_topics.clicks])
    await second.until(lambda: len(second.holder.placed) == kafka_settings.partitions)
    second.client.resume(second.holder.placed)
    with pytest.raises(GroupError, match=r"ends at 3, and 50 was to be read next: the topic was made anew"):
        await second.until(lambda: False)
    await second.client.leave()


async def test_a_new_ownership_of_a_partition_that_stays_begins_at_what_is_committed(
    join: Callable[[], Member], places: list[TP], settings: Settings
) -> None:
    place = places[1]
    send(settings, place, 6)
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    member.client.resume(places)
    await member.until(lambda: member.got.get(place) == list(range(6)))
    assert await member.client.commit({place: 2})
    earlier = member.holder.owners.pop(1)
    earlier.close()
    later = member.holder.owners[1] = owner_of(1, {place.topic: earlier.fetched[place.topic]})
    await member.client.rebind(later)
    assert later.fetched == {place.topic: 2}
    send(settings, place, 1)
    member.chunks.clear()
    await member.fetches()
    assert member.chunks == []  # until it is resumed
    member.client.resume({place})
    await member.until(lambda: member.got.get(place) == [2, 3, 4, 5, 6])
    assert {one.owner for one in member.chunks} == {later}


async def test_an_ownership_that_is_over_takes_no_partition_from_its_successor(
    join: Callable[[], Member], places: list[TP], settings: Settings
) -> None:
    place = places[1]
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    member.client.resume(places)
    over = owner_of(1, {place.topic: 0})
    over.close()
    await member.client.rebind(over)
    send(settings, place, 3)
    await member.until(lambda: member.got.get(place) == [0, 1, 2])
    assert {one.owner for one in member.chunks} == {member.holder.owners[1]}


async def test_partitions_that_are_gone_can_be_paused_and_resumed_without_harm(
    join: Callable[[], Member], places: list[TP]
) -> None:
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    elsewhere = {TP(places[0].topic, 99), TP("no.such.topic", 0)}
    member.client.pause(elsewhere)
    member.client.resume(elsewhere)


async def test_commits_of_who_is_no_longer_a_member_are_refused(
    join: Callable[[], Member], places: list[TP], settings: Settings
) -> None:
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    member.client._consumer.unsubscribe()
    await member.until(lambda: not member.holder.placed)
    assert not await member.client.commit({places[0]: 1})


@pytest.mark.broker
@pytest.mark.skipif(why_no_embedded() is not None, reason=str(why_no_embedded()))
async def test_a_client_whose_broker_goes_away_says_so_though_it_has_nothing_to_do() -> None:
    with embedded() as broker:
        settings = SETTINGS.model_copy(update={"bootstrap": broker.bootstrap})
        Cluster(settings).create(topic_plan(settings))
        member = Member(settings, "classic")
        member.client.subscribe([Topics.of(settings).clicks])
        await member.until(lambda: bool(member.holder.placed))
        assert await member.client.reachable()
        assert not unreachable(member)
    await member.until(lambda: unreachable(member))
    assert not await member.client.reachable()
    assert unreachable(member)
    with broker:
        async with asyncio.timeout(60):
            while not await member.client.reachable():
                await member.fetches(1)
        assert not unreachable(member)
        await member.client.leave()


@pytest.mark.usefixtures("kafka_topics")
async def test_of_two_workers_with_one_name_one_ends_with_a_reason(kafka_settings: Settings) -> None:
    settings = kafka_settings.model_copy(update={"worker_name": "one"})
    members = [Member(settings, "classic"), Member(settings, "classic")]
    for member in members:
        member.client.subscribe([Topics.of(settings).clicks])
    with pytest.raises(GroupError, match=r"fenced by other consumer with same group\.instance\.id"):
        await asyncio.gather(*(member.until(lambda: False) for member in members))
    for member in members:
        await member.client.leave()


def answer(code: int) -> Any:
    """What the client hands out in a record's place."""
    error = KafkaError(code, "what the broker says")
    return SimpleNamespace(error=lambda: error, topic=lambda: "clicks", partition=lambda: 0)


@pytest.fixture
async def lonely() -> AsyncIterator[GroupClient]:
    client = GroupClient(SETTINGS, "classic", Holder())
    yield client
    if not client.leaving:
        await client.leave()


@pytest.mark.parametrize("code", sorted(GROUP_FATAL))
async def test_an_answer_that_no_waiting_mends_ends_it_with_a_reason(lonely: GroupClient, code: int) -> None:
    with pytest.raises(GroupError, match="what the broker says"):
        lonely._faulty(answer(code))


async def test_an_answer_that_passes_ends_nothing(lonely: GroupClient, caplog: pytest.LogCaptureFixture) -> None:
    for code in (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._TRANSPORT):
        assert lonely._faulty(answer(code))
    assert "what the broker says" not in caplog.text


async def test_nothing_is_asked_of_a_client_that_has_left(lonely: GroupClient) -> None:
    await lonely.leave()
    lonely.pause({TP("clicks", 0)})
    lonely.resume({TP("clicks", 0)})
    assert not await lonely.commit({TP("clicks", 0): 1})
    assert not await lonely.reachable()
    assert lonely.member == ""


async def test_a_client_leaves_when_what_it_was_asked_is_answered(
    lonely: GroupClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.3)
    asked = [asyncio.create_task(lonely.reachable()) for _ in range(3)]
    await asyncio.sleep(0)
    await lonely.leave()
    assert await asyncio.gather(*asked) == [False] * 3


async def test_partitions_that_are_resumed_as_it_leaves_hold_nothing_up(
    join: Callable[[], Member], places: list[TP]
) -> None:
    member = join()
    await member.until(lambda: member.holder.placed == set(places))
    taken: list[bool] = []

    async def handing_over() -> None:
        taken.append(await member.client.commit({places[0]: 2}))

    member.holder.handing_over = handing_over
    busy = asyncio.create_task(member.client.commit({places[0]: 1}))
    await asyncio.sleep(0)  # what is asked for by the resuming waits behind the commit
    member.client.resume(places)
    async with asyncio.timeout(30):
        await member.client.leave()
    assert [await busy, *taken] == [True, True]


async def test_a_place_without_records_is_mended_later_when_the_broker_is_away(
    lonely: GroupClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.1)
    place = TP("clicks", 0)
    lonely._owners[place] = owner_of(0, {"clicks": 7})
    lonely._astray.add(place)
    assert await lonely.fetch(0.01) == []
    assert lonely._astray == {place}
