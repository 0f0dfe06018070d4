"""`mmrec tail`: follow a topic as people read it."""

import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import AsJson, Bootstrap
from mmrec_stream.cli.text import printable
from mmrec_stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from confluent_kafka import Message

    from mmrec_stream.contracts.recommendations import RecommendationList
    from mmrec_stream.operations.names import Names


class Topic(StrEnum):
    """The topics that can be followed."""

    RECOMMENDATIONS = "recommendations"
    CLICKS = "clicks"
    PURCHASES = "purchases"
    FEEDBACK = "feedback"
    DEAD_LETTERS = "dead-letters"
    RELEASES = "releases"
    CATALOGUE = "catalogue"


def tail(
    topic: Annotated[Topic, typer.Argument(metavar="TOPIC", help=", ".join(Topic))] = Topic.RECOMMENDATIONS,
    from_start: Annotated[bool, typer.Option("--from-start", help="What lies there already, too.")] = False,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many.")] = None,
    top: Annotated[int, typer.Option(min=1, max=200, help="Items shown of a list.")] = 5,
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Follow a topic until Ctrl-C: lists with titles, scores and latency, events, dead letters, releases.

    The latency of a list is counted from its event's arrival in Kafka to its publication, in ms, and split into
    fetching, folding, waiting with scoring, and publishing.

    Examples: `mmrec tail recommendations --user alice`, `mmrec tail dead-letters --from-start`,
    `mmrec tail clicks --json --count 100`.
    """
    settings = load_settings(bootstrap=bootstrap)
    try:
        for line in islice(_lines(settings, topic, from_start, user, top, as_json), count):
            sys.stdout.write(printable(line) + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def _lines(
    settings: Settings, topic: Topic, from_start: bool, user: str | None, top: int, as_json: bool
) -> Iterator[str]:
    """One text a record that is wanted."""
    from mmrec_stream.kafka.reader import follow, spans
    from mmrec_stream.operations.names import Names, load_names
    from mmrec_stream.topics import Topics

    full_names = Topics.of(settings)
    name = getattr(full_names, topic.replace("-", "_"))
    starts = {name: {p: span.low if from_start else span.high for p, span in spans(settings, name).items()}}
    names = Names()
    if not as_json and topic not in (Topic.DEAD_LETTERS, Topic.RELEASES, Topic.CATALOGUE):
        names, read = load_names(settings)
        starts[full_names.catalogue] = {partition: span.high for partition, span in read.items()}
    show = _as_json if as_json else _renderer(topic, names, top)
    wanted_key = user.encode() if user is not None else None
    for messages in follow(settings, starts):
        for message in messages:
            if message.topic() != name:
                names.learn([message])
            elif wanted_key is None or message.key() == wanted_key:
                yield show(message)


def _as_json(message: "Message") -> str:
    """The record's place and its value: the document where it is JSON, otherwise text with unreadable bytes marked."""
    import msgspec

    from mmrec_stream.contracts.acceptance import UNREADABLE

    value = message.value()
    document: object = None
    if value is not None:
        try:
            document = msgspec.json.decode(value)
        except UNREADABLE:
            document = value.decode(errors="backslashreplace")
    return msgspec.json.encode(
        {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            "key": message.key().decode(errors="backslashreplace") if message.key() is not None else None,
            "value": document,
        }
    ).decode()


def _renderer(topic: Topic, names: "Names", top: int) -> "Callable[[Message], str]":
    """How a record of the topic is shown; a value that breaks the contract is shown with what is wrong."""
    from mmrec_stream.contracts.acceptance import UNREADABLE

    def render(message: "Message") -> str:
        where = f"{message.partition()}/{message.offset()}"
        try:
            return f"{_clock(message.timestamp()[1])} {_text(topic, message, names, top)}"
        except UNREADABLE as error:
            return f"{_clock(message.timestamp()[1])} {where} cannot be read: {error}: {message.value()[:200]!r}"

    return render


def _text(topic: Topic, message: "Message", names: "Names", top: int) -> str:
    from mmrec_stream.contracts.dead_letters import decode_dead_letter
    from mmrec_stream.contracts.releases import decode_release

    key = message.key().decode(errors="replace") if message.key() is not None else "no key"
    if message.value() is None:
        return {Topic.DEAD_LETTERS: f"{key}: published again", Topic.CATALOGUE: f"{key}: taken out"}.get(
            topic, f"{key}: empty"
        )
    match topic:
        case Topic.RECOMMENDATIONS:
            from mmrec_stream.contracts.recommendations import decode_list

            return list_text(decode_list(message.value()), names, top)
        case Topic.DEAD_LETTERS:
            letter = decode_dead_letter(message.value())
            value = letter.value[:120] if letter.value is not None else None
            return f"{key}: {letter.fault}: {letter.detail}: {value!r}"
        case Topic.RELEASES:
            release = decode_release(message.value())
            metrics = ", ".join(f"{name} {value:.4f}" for name, value in release.metrics.items())
            return f"{key}: release {release.version} at {release.uri} {metrics}".rstrip()
        case Topic.CATALOGUE:
            from mmrec_stream.contracts.catalogue import decode_item

            item = decode_item(message.value())
            facts = [item.category, item.brand, None if item.price is None else f"{item.price:g}"]
            facts.append(None if item.sellable_at(int(time.time() * 1000)) else "not sellable")
            return f"{item.item_id}: {item.title} {', '.join(fact for fact in facts if fact)}".rstrip()
        case _:
            return _event_text(message.value(), names)


def list_text(found: "RecommendationList", names: "Names", top: int) -> str:
    """A list as people read it: whose and how long it took, then a line for each of its first `top` items."""
    times = found.times
    steps = (
        ("fetched", times.fetched - times.appended),
        ("folded", times.folded - times.fetched),
        ("scored", times.scored - times.folded),
        ("published", times.published - times.scored),
    )
    split = ", ".join(f"{name} {taken:.1f}" for name, taken in steps)
    kind = f"{len(found.items)} items, {found.strategy}, release {found.release}, α {found.alpha:.2f}"
    lines = [f"{found.user_id}: {kind}", f"    {times.published - times.appended:.1f} ms: {split}"]
    for place, item in enumerate(found.items[:top], start=1):
        halves = f"  user {item.p_user:.4f}  item {item.p_item:.4f}" if item.p_user or item.p_item else ""
        lines.append(f"    {place:>2}. {item.score:.4f}{halves}  {names.item(item.item_id)}")
    return "\n".join(lines)


def _event_text(value: bytes, names: "Names") -> str:
    import msgspec

    from mmrec_stream.contracts.behaviour import decode_event

    event = msgspec.to_builtins(decode_event(value))
    kind, user, item = event.pop("type"), event.pop("user_id"), event.pop("item_id", None)
    lag = event.pop("ts")
    event.pop("v", None)
    more = ", ".join(f"{name} {field}" for name, field in event.items())
    parts = [user, kind, names.item(item) if item else "", f"({more})" if more else "", f"at {_clock(lag)}"]
    return " ".join(part for part in parts if part)


def _clock(milliseconds: int) -> str:
    """A time of day, local."""
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
