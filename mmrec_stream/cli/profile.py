"""`mmrec profile`: one user's profile as people read it."""

import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrec_stream.cli.options import AsJson, Bootstrap
from mmrec_stream.cli.text import console, printable
from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings, load_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from mmrec_stream.operations.names import Names
    from mmrec_stream.topics import Topics

WINDOW_NAMES = ("hour", "day", "week")


def profile(
    user: Annotated[str, typer.Argument(help="User id.")],
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show what is known of a user: interactions, cart and purchases, tastes, counts, and how far the log is folded.

    Read from the profiles' changelog alone, while workers run or not. Items, categories and brands are kept by hash
    and shown by name where the catalogue topic has them. Decayed values are as of the present.

    Example: `mmrec profile alice`
    """
    from mmrec_stream.kafka.reader import spans
    from mmrec_stream.operations.names import load_names
    from mmrec_stream.profiles.fold import decay_to
    from mmrec_stream.profiles.tastes import DAY_MS, Tastes
    from mmrec_stream.topics import Topics, changelog_topic

    settings = load_settings(bootstrap=bootstrap)
    partitions = len(spans(settings, changelog_topic(settings)))
    record = find_profile(settings, user, partitions)
    if record is None:
        raise UserError(f"nothing is known of user {user!r}: no event of theirs was folded")
    now_ms = int(time.time() * 1000)
    tastes = Tastes.of(settings.preset)
    decay_to(record, now_ms, tastes)
    names, _ = load_names(settings)
    document = describe(record[0], names, Topics.of(settings), partitions)
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.encode({"user": user, **document}).decode() + "\n")
    else:
        _print(console(), user, document, tastes.half_life_ms / DAY_MS)


def find_profile(settings: Settings, user: str, partitions: int) -> "NDArray[np.void] | None":
    """The newest profile of a user in the changelog of `partitions` partitions, shape (1,); None if there is none.

    Raises:
        UserError: no broker answers, the changelog does not exist, or the profile cannot be read.
    """
    from mmrec_stream.contracts.identity import partition_of
    from mmrec_stream.kafka.reader import read_batches
    from mmrec_stream.profiles.rows import ProfileRows
    from mmrec_stream.topics import changelog_topic

    changelog, key = changelog_topic(settings), user.encode()
    partition = partition_of(key, partitions)
    values = [
        message.value()
        for messages in read_batches(settings, changelog, [partition])
        for message in messages
        if message.key() == key
    ]
    rows = ProfileRows()
    restored = rows.restore([key] * len(values), values)
    row = rows.row(user)
    if row is None and restored.unreadable:
        raise UserError(f"{changelog}, partition {partition}, user {user!r}: {restored.examples[0].reason}")
    return None if row is None else rows.records[row : row + 1].copy()


def describe(record: "np.void", names: "Names", topics: "Topics", partitions: int) -> dict[str, Any]:
    """A profile record as plain values, newest and heaviest first."""
    from mmrec_stream.contracts.behaviour import EventType
    from mmrec_stream.contracts.identity import source_key
    from mmrec_stream.profiles.record import PRICE_EDGES

    sources = {
        source_key(topic, partition): f"{topic}/{partition}"
        for topic in topics.behaviour
        for partition in range(partitions)
    }
    bands = [
        f"below {PRICE_EDGES[0]:g}",
        *(f"{low:g} to {high:g}" for low, high in pairwise(PRICE_EDGES)),
        f"{PRICE_EDGES[-1]:g} and more",
    ]
    size = int(record["size"])
    newest = range(size - 1, -1, -1)
    return {
        "events": int(record["events"]),
        "first": int(record["first_s"]) * 1000,
        "interactions": [
            {
                "time": int(record["times"][place]) * 1000,
                "type": EventType(int(record["types"][place])).name.lower(),
                "item": names.item_of(int(record["items"][place])),
            }
            for place in newest
        ],
        "held": [
            {
                "item": names.item_of(int(item)),
                "as": "bought" if kind == EventType.PURCHASE else "in the cart",
                "since": int(seconds) * 1000,
            }
            for item, kind, seconds in zip(
                record["held_items"], record["held_types"], record["held_times"], strict=True
            )
            if kind
        ],
        "categories": _weights(record["category_keys"], record["category_weights"], names),
        "brands": _weights(record["brand_keys"], record["brand_weights"], names),
        "price_bands": {
            band: round(float(weight), 4)
            for band, weight in zip(bands, record["price_weights"], strict=True)
            if weight > 0
        },
        "counts": {
            window: {
                EventType(code).name.lower(): round(float(count), 3)
                for code, count in enumerate(counts)
                if code and count >= 0.0005
            }
            for window, counts in zip(WINDOW_NAMES, record["counts"], strict=True)
        },
        "folded": {
            sources.get(int(key), f"source #{int(key):08x}"): int(offset)
            for key, offset in zip(record["source_keys"], record["source_offsets"], strict=True)
            if key
        },
    }


def _weights(keys: "NDArray[np.uint32]", weights: "NDArray[np.float32]", names: "Names") -> dict[str, float]:
    pairs = sorted(zip(keys.tolist(), weights.tolist(), strict=True), key=lambda pair: -pair[1])
    return {names.label_of(key): round(weight, 4) for key, weight in pairs if key}


def _print(out: "Console", user: str, document: dict[str, Any], half_life_days: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    def shown(text: str) -> str:
        return escape(printable(text))

    out.print(f"[bold]{shown(user)}[/]: {document['events']:,} events since {_date(document['first'])}")
    if document["held"]:
        out.print("\n[bold]Cart and purchases[/]")
        for held in document["held"]:
            out.print(f"  {shown(held['item'])}, {held['as']} since {_date(held['since'])}", highlight=False)
    out.print("\n[bold]Interactions[/], newest first")
    for done in document["interactions"]:
        out.print(f"  {_date(done['time'])}  {done['type']:<17} {shown(done['item'])}", highlight=False)
    days = "day" if half_life_days == 1 else f"{half_life_days:g} days"
    for title, field in (("Categories", "categories"), ("Brands", "brands"), ("Price bands", "price_bands")):
        if document[field]:
            out.print(f"\n[bold]{title}[/], weight halved every {days}")
            for name, weight in document[field].items():
                out.print(f"  {weight:8.3f}  {shown(name)}", highlight=False)
    counts = Table(box=None, pad_edge=False, title="Decayed counts, by half-life", title_justify="left")
    counts.add_column("")
    for window in document["counts"]:
        counts.add_column(window, justify="right")
    for kind in document["counts"]["week"]:
        counts.add_row(kind, *(f"{window.get(kind, 0):.2f}" for window in document["counts"].values()))
    out.print()
    out.print(counts)
    out.print("\n[bold]Folded up to offset[/]")
    for source, offset in document["folded"].items():
        out.print(f"  {source}: {offset}", highlight=False)


def _date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
