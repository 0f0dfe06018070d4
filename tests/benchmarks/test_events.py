from collections import Counter
from itertools import islice

from benchmarks.events import messages, one_each
from benchmarks.workload import changelog
from mmrec_stream.contracts.behaviour import decode_event
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.profiles.record import RING, from_bytes


def test_events_keep_the_contract_and_their_place() -> None:
    last = 0
    for message in messages(3_000, users=200, partitions=4):
        event = decode_event(message.value)
        assert event.user_id.encode() == message.key
        assert message.partition == partition_of(message.key, 4)
        assert event.ts >= last
        last = event.ts


def test_the_same_seed_gives_the_same_events_and_the_mixture_is_a_shops() -> None:
    first, again = list(messages(20_000, users=500)), list(messages(20_000, users=500))
    assert first == again
    kinds = Counter(type(decode_event(message.value)).__name__ for message in first)
    assert 0.55 < kinds["View"] / 20_000 < 0.65
    assert kinds["Purchase"] > kinds["Follow"] > 0
    assert 100 < sum(len(message.value) for message in first) / len(first) < 125
    assert len({message.key for message in first}) > 490


def test_one_each_has_every_user_once() -> None:
    assert sorted(message.key for message in one_each(50)) == sorted(f"u{user:05d}".encode() for user in range(50))


def test_a_made_changelog_holds_full_profiles() -> None:
    rows = list(islice(changelog(10_000), 100))
    records = from_bytes([row.value for row in rows])
    assert len({row.key for row in rows}) == 100
    assert (records["size"] == RING).mean() > 0.7
    assert all(row.partition == partition_of(row.key, 4) for row in rows)
