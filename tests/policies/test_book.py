"""The rules in force, whatever is on the topic and however much of it compaction has left."""

from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.rules import RuleSet, encode_rules
from mmrec_stream.policies.book import RuleBook

Record = tuple[bytes, bytes | None]


def good(version: int) -> Record:
    rules = RuleSet(id="shop", version=version)
    return rules.key, encode_rules(rules)


def broken(version: int) -> Record:
    return f"broken/{version}".encode(), b'{"id":"shop","filters":[{"id":"f","only":"item.prise"}]}'


def read(records: list[Record]) -> RuleBook:
    book = RuleBook()
    for key, value in records:
        book.take(key, value)
    return book


def name(book: RuleBook) -> str | None:
    return None if book.in_force is None else book.in_force.name


@given(st.lists(st.tuples(st.sampled_from(["good", "broken", "null"]), st.integers(1, 4)), max_size=20), st.data())
def test_compaction_changes_nothing_about_what_is_in_force(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    records: list[Record] = []
    for kind, version in steps:
        record = broken(version) if kind == "broken" else good(version)
        records.append((record[0], None if kind == "null" else record[1]))
    book = read(records)
    last = {key: place for place, (key, _) in enumerate(records)}
    compacted = [
        record
        for place, record in enumerate(records)
        if last[record[0]] == place and (record[1] is not None or data.draw(st.booleans()))
    ]
    again = read(compacted)
    assert name(again) == name(book)
    assert set(again.keys) == set(book.keys)
    usable = [key for key, value in compacted if value is not None and key.startswith(b"shop/")]
    assert name(book) == (usable[-1].decode() if usable else None)


def test_what_was_good_stays_where_what_follows_it_under_its_key_is_broken() -> None:
    key, value = good(1)
    book = read([(key, value)])
    assert book.take(key, b"{") is not None
    assert name(book) == "shop/1"
    assert book.take(*broken(2)) is not None
    assert name(book) == "shop/1"
    assert book.take(key, None) is None
    assert name(book) is None
    assert book.keys == [b"broken/2"]
