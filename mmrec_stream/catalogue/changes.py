"""The one rule for reading catalogue records: the newest value of an item counts, a null value takes it out."""

from collections.abc import Iterable
from dataclasses import dataclass

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.catalogue import CatalogueItem, decode_item

Record = tuple[bytes | None, bytes | None, str]
"""Key, value, and where it lies, for whoever has to look for it."""


@dataclass(frozen=True)
class CatalogueChanges:
    """What records do to a catalogue. No item is both changed and removed: its last record decides."""

    items: list[CatalogueItem]
    """The newest state of each item that is there now."""
    removed: list[str]
    """Ids of items that were taken out."""
    bad: list[str]
    """Place and fault of records that are no catalogue items; they change nothing."""


def newest_items(batches: Iterable[Iterable[Record]]) -> dict[str, CatalogueItem]:
    """A catalogue by item id, from all records of its topic in their order; what is none is passed over."""
    newest: dict[str, CatalogueItem] = {}
    for records in batches:
        changes = read_changes(records)
        for item_id in changes.removed:
            newest.pop(item_id, None)
        newest |= {item.item_id: item for item in changes.items}
    return newest


def read_changes(records: Iterable[Record]) -> CatalogueChanges:
    """What records, in the order of their topic, do to a catalogue."""
    items: dict[str, CatalogueItem] = {}
    removed: dict[str, None] = {}
    bad: list[str] = []
    for key, value, place in records:
        if value is None:
            if key:
                item_id = key.decode(errors="replace")
                items.pop(item_id, None)
                removed[item_id] = None
            continue
        try:
            item = decode_item(value)
        except UNREADABLE as error:
            bad.append(f"{place}: no catalogue item: {error}")
            continue
        removed.pop(item.item_id, None)
        items[item.item_id] = item
    return CatalogueChanges(list(items.values()), list(removed), bad)
