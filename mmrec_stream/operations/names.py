"""What things are called, by the catalogue topic: titles of items, and the words behind the keys in profiles."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Message

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.identity import id_key, short_key
from mmrec_stream.kafka.reader import Span, read_batches, spans
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics


class _Named(msgspec.Struct):
    """The part of a catalogue item that names it; the rest (text, picture, vectors) is passed over unread."""

    item_id: str
    title: str = ""
    category: str | None = None
    brand: str | None = None


_decode = msgspec.json.Decoder(_Named).decode


@dataclass
class Names:
    """Titles by item id, item ids by key, and categories and brands by key."""

    titles: dict[str, str] = field(default_factory=dict)
    items: dict[int, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)

    def learn(self, messages: Iterable[Message]) -> None:
        """Take the names in catalogue records. Removed items keep theirs; records that are no items teach nothing."""
        for message in messages:
            if message.value() is None:
                continue
            try:
                item = _decode(message.value())
            except UNREADABLE:
                continue
            self.items[id_key(item.item_id)] = item.item_id
            if item.title:
                self.titles[item.item_id] = item.title
            for label in (item.category, item.brand):
                if label:
                    self.labels[short_key(label)] = label

    def item(self, item_id: str) -> str:
        """The item as people read it: title and id where there is a title."""
        title = self.titles.get(item_id)
        return f"{title} ({item_id})" if title else item_id

    def item_of(self, key: int) -> str:
        """The item behind a key, or the key where the catalogue does not have it."""
        item_id = self.items.get(key)
        return self.item(item_id) if item_id is not None else f"item #{key:016x}"

    def label_of(self, key: int) -> str:
        """The category or brand behind a key, or the key."""
        return self.labels.get(key, f"#{key:08x}")


def load_names(settings: Settings) -> tuple[Names, dict[int, Span]]:
    """The names in the catalogue topic, and how far it was read.

    Raises:
        UserError: no broker answers, or the topic does not exist.
    """
    topic = Topics.of(settings).catalogue
    there = spans(settings, topic)
    names = Names()
    for messages in read_batches(settings, topic, there, None, {p: span.high for p, span in there.items()}):
        names.learn(messages)
    return names, there
