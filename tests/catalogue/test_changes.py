"""What catalogue records do to a catalogue, whoever reads them."""

from mmrec_stream.catalogue.changes import Record, read_changes
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item


def published(item_id: str, title: str = "", offset: int = 0) -> Record:
    return item_id.encode(), encode_item(CatalogueItem(item_id=item_id, title=title)), f"catalogue[0]@{offset}"


def taken_out(item_id: str) -> Record:
    return item_id.encode(), None, "catalogue[0]@0"


def test_the_newest_value_of_an_item_counts() -> None:
    changes = read_changes([published("sofa", "Sofa"), published("lamp"), published("sofa", "Green sofa")])
    assert {item.item_id: item.title for item in changes.items} == {"sofa": "Green sofa", "lamp": ""}
    assert changes.removed == []


def test_a_null_value_takes_an_item_out_and_a_later_value_brings_it_back() -> None:
    records = [published("sofa"), taken_out("sofa"), taken_out("lamp"), published("lamp"), taken_out("gone")]
    changes = read_changes(records)
    assert [item.item_id for item in changes.items] == ["lamp"]
    assert changes.removed == ["sofa", "gone"]


def test_a_removal_names_its_item_by_the_key() -> None:
    changes = read_changes([(None, None, "catalogue[0]@0"), (b"", None, "catalogue[0]@1")])
    assert (changes.items, changes.removed, changes.bad) == ([], [], [])


def test_bad_records_are_told_with_their_place_and_change_nothing() -> None:
    nested = b'{"item_id":"sofa","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    changes = read_changes(
        [
            published("sofa", "Sofa"),
            (b"sofa", b"not json", "catalogue[0]@1"),
            (b"sofa", b'{"title":"nameless"}', "catalogue[0]@2"),
            (b"sofa", b"", "catalogue[0]@3"),
            (b"sofa", nested, "catalogue[0]@4"),
        ]
    )
    assert [item.title for item in changes.items] == ["Sofa"]
    assert changes.removed == []
    assert [fault.split(":")[0] for fault in changes.bad] == [f"catalogue[0]@{offset}" for offset in (1, 2, 3, 4)]
