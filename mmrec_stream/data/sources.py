"""Where training data comes from: a folder with JSON lines, or the topics up to their end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mmrec_stream.catalogue.changes import newest_items
from mmrec_stream.contracts.behaviour import BehaviourRecord, decode_event
from mmrec_stream.contracts.catalogue import decode_item
from mmrec_stream.data.dataset import Dataset, from_events
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.reader import keyed, read_batches
from mmrec_stream.pictures.reading import with_pictures
from mmrec_stream.pictures.sources import sources_of
from mmrec_stream.profiles.tastes import SHOP_TASTES, Tastes
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

EVENTS = "events.jsonl"
CATALOGUE = "catalogue.jsonl"

T = TypeVar("T")


def read_folder(path: Path, rule: Tastes = SHOP_TASTES) -> Dataset:
    """The data set of a folder: behaviour events in events.jsonl, and products in catalogue.jsonl if it is there.

    `rule` says what each event says of a taste.

    Raises:
        UserError: There are no events, or a line is not of its contract; names file, line and field.
    """
    if not (path / EVENTS).is_file():
        raise UserError(f"{path}: no {EVENTS} in it; `mmrec simulate --out {path}` writes an example")
    catalogue = _lines(path / CATALOGUE, decode_item) if (path / CATALOGUE).is_file() else iter(())
    return from_events(path.name, _lines(path / EVENTS, decode_event), catalogue, rule)


def read_topics(settings: Settings, counted: Callable[[int], None] | None = None) -> Dataset:
    """The data set of the behaviour and catalogue topics, from their beginning to their end at the time of the call.

    What workers would put among the dead letters is passed over. Of a catalogue item its newest value counts; one
    that was taken out is left out. Pictures that lie elsewhere are read, as workers do.

    Args:
        settings: Where the brokers are, the topics' prefix, and the preset.
        counted: Called with how many events have been read so far.

    Raises:
        UserError: No broker answers, or a topic does not exist.
    """
    topics = Topics.of(settings)
    catalogue = newest_items(keyed(batch) for batch in read_batches(settings, topics.catalogue))
    items = with_pictures(sources_of(settings), catalogue.values())
    rule = Tastes.of(settings.preset)
    return from_events("kafka", _events(settings, topics, counted), items, rule)


def _events(settings: Settings, topics: Topics, counted: Callable[[int], None] | None) -> Iterator[BehaviourRecord]:
    done = 0
    for topic in topics.behaviour:
        for batch in read_batches(settings, topic):
            for message in batch:
                event = _event(message.value())
                if event is not None:
                    yield event
            done += len(batch)
            if counted:
                counted(done)


def _event(value: bytes | None) -> BehaviourRecord | None:
    if not value:
        return None
    try:
        event: BehaviourRecord = decode_event(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event


def _lines(file: Path, decode: Callable[[bytes], T]) -> Iterator[T]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UserError(f"{file}, line {number}: {error}") from None
