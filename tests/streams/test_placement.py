"""Who keeps what warm: never the owner, nobody twice, and whoever goes, what he had goes to who was ready for it."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from streams.placement import Member, expected_by, kept_by, shares, standbys

PARTITIONS = st.integers(1, 40)
IDS = st.lists(st.text("abcXYZ019+-", min_size=1, max_size=6), min_size=1, max_size=7, unique=True)


def settled(ids: Iterable[str], partitions: int) -> list[Member]:
    """Members as they are when nothing moves."""
    has: dict[str, set[int]] = {one: set() for one in ids}
    for partition, member in shares([Member(one) for one in has], partitions).items():
        has[member.id].add(partition)
    return [Member(one, partitions=frozenset(held)) for one, held in has.items()]


def owners(ids: Iterable[str], partitions: int) -> dict[int, str]:
    return {partition: member.id for partition, member in shares([Member(one) for one in ids], partitions).items()}


@given(IDS, PARTITIONS, st.integers(0, 4))
def test_each_partition_has_its_standbys_none_twice_and_never_the_owner(
    ids: list[str], partitions: int, count: int
) -> None:
    members, owned = settled(ids, partitions), owners(ids, partitions)
    found = standbys(members, partitions, count)
    assert found.keys() == set(range(partitions))
    for partition, heirs in found.items():
        named = {member.id for member in heirs}
        assert len(heirs) == len(named) == min(count, len(ids) - 1)
        assert owned[partition] not in named
    kept = [partition for member in members for partition in kept_by(member, members, partitions, count)]
    assert len(kept) == partitions * min(count, len(ids) - 1)


@given(IDS.filter(lambda ids: len(ids) > 1), PARTITIONS, st.data())
def test_what_one_who_goes_had_is_warm_at_who_gets_it(ids: list[str], partitions: int, data: st.DataObject) -> None:
    members, owned = settled(ids, partitions), owners(ids, partitions)
    gone = data.draw(st.sampled_from(ids))
    after = owners([one for one in ids if one != gone], partitions)
    warm = {member.id: kept_by(member, members, partitions, 1) for member in members}
    assert all(partition in warm[after[partition]] for partition, owner in owned.items() if owner == gone)


@given(IDS.filter(lambda ids: len(ids) > 2), PARTITIONS, st.data())
def test_with_two_standbys_two_may_go_at_once(ids: list[str], partitions: int, data: st.DataObject) -> None:
    members, owned = settled(ids, partitions), owners(ids, partitions)
    partition = data.draw(st.integers(0, partitions - 1))
    first, second = standbys(members, partitions, 2)[partition]
    left = [one for one in ids if one not in (owned[partition], first.id)]
    assert owners(left, partitions)[partition] == second.id


@given(IDS, PARTITIONS, st.text("abcXYZ019+-", min_size=1, max_size=6))
def test_a_newcomer_with_a_known_id_reads_what_it_will_get(ids: list[str], partitions: int, newcomer: str) -> None:
    ids = [one for one in ids if one != newcomer]
    expected = expected_by(Member(newcomer), settled(ids, partitions), partitions)
    after = owners([*ids, newcomer], partitions)
    assert expected == ([partition for partition, one in after.items() if one == newcomer] if ids else [])


def test_a_newcomer_whose_id_the_group_will_choose_reads_everything_that_others_serve() -> None:
    assert expected_by(Member(""), settled(["a", "b"], 4), 4) == [0, 1, 2, 3]
    assert expected_by(Member(""), [], 4) == []


def test_one_whose_partitions_wait_for_its_name_joins_at_once() -> None:
    members = [Member("id-1", "pod-0", frozenset({0, 1})), Member("id-2", "pod-1", frozenset({2, 3}))]
    assert expected_by(Member("", "pod-0"), members, 4) == []
    assert expected_by(Member("", "pod-2"), members, 4) == [3]


def test_an_owner_is_who_has_the_partition_not_who_would_get_it() -> None:
    members = [Member("a", partitions=frozenset({2, 3})), Member("b", partitions=frozenset({0, 1}))]
    assert kept_by(members[0], members, 4, 1) == [0, 1]
