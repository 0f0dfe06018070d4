"""Whether a field's preset knows its people's tastes better than a shop's rule does: on generated logs and public sets.

Judged is the category of the next thing that somebody likes: whether it is the strongest of the profile's tastes just
before. The tastes are those that workers fold, by each preset in turn. Beside it, how much of what people come back to
each preset's rule on repeats would keep out of their lists.

The generated people follow their field's ways as its preset describes them in words; their times and shares are none of
the preset's.
"""

import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.results import Report, console
from mmrec_stream.contracts.behaviour import AddToCart, BehaviourEvent, Click, EventType, Purchase, Rating, View
from mmrec_stream.contracts.identity import id_keys, short_key, source_key
from mmrec_stream.presets import load_preset, preset_names
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.profiles.tastes import DAY_MS, Tastes
from mmrec_stream.ranking.repeats import Repeats, barred_keys

START_MS = 1_760_000_000_000
SOURCE = source_key("presets", 0)

FEW = 100
"""A share of fewer cases than this is not reported."""

Did = tuple[float, str, str, str]
"""Days since the start, the field's word, category, item."""
Person = Iterator[Did]

TYPES: dict[str, type[View] | type[Click] | type[AddToCart] | type[Purchase]] = {
    "view": View,
    "click": Click,
    "add_to_cart": AddToCart,
    "purchase": Purchase,
}


def video(rng: np.random.Generator) -> Person:
    """Weekends: a dozen titles looked over, whatever is advertised, and two begun; what is liked is watched to its end.

    One of three favourite genres becomes another every two months or so.
    """
    liked = rng.choice(12, 3, replace=False)
    for weekend in range(26):
        if rng.random() < 7 / 60:
            liked[rng.integers(3)] = rng.integers(12)
        advertised = rng.integers(12)
        for evening in range(2):
            day = weekend * 7 + evening + rng.random() / 4
            for look in range(12):
                genre = advertised if rng.random() < 0.6 else rng.integers(12)
                yield day + look / 1e3, "trailer", f"genre-{genre}", f"title-{genre}-{rng.integers(200)}"
            for begun in range(2):
                genre = rng.choice(liked) if rng.random() < 0.7 else rng.integers(12)
                title = f"title-{genre}-{rng.integers(200)}"
                yield day + 0.05 + begun / 20, "start", f"genre-{genre}", title
                if rng.random() < (0.8 if genre in liked else 0.3):
                    yield day + 0.06 + begun / 20, "finish", f"genre-{genre}", title


def music(rng: np.random.Generator) -> Person:
    """Evenings of radio in the mood of the day; now and then a track is kept, of styles that are liked for half a year.

    What was kept is heard again and again.
    """
    liked, kept = rng.choice(12, 2, replace=False), list[tuple[int, str]]()
    for day in range(180):
        if rng.random() < 1 / 180:
            liked[rng.integers(2)] = rng.integers(12)
        if rng.random() < 0.6:
            mood = rng.integers(12)
            for play in range(15):
                yield day + 0.7 + play / 500, "play", f"style-{mood}", f"track-{mood}-{rng.integers(500)}"
        if rng.random() < 0.2:
            style = rng.choice(liked, p=[0.7, 0.3]) if rng.random() < 0.85 else rng.integers(12)
            track = f"track-{style}-{rng.integers(500)}"
            kept.append((int(style), track))
            yield day + 0.8, "like", f"style-{style}", track
        if kept and rng.random() < 0.5:
            style, track = kept[rng.integers(len(kept))]
            yield day + 0.9, "like", f"style-{style}", track


def news(rng: np.random.Generator) -> Person:
    """Every day headlines are opened and some articles read: of the stories that there are, each lasting for days."""
    favour = rng.gumbel(0, 1, 400)
    for day in range(60):
        if rng.random() < 0.25:
            continue
        # Four stories begin a day, and fade by half in a day.
        stories = np.arange(max(0, 4 * day - 20), 4 * day + 4)
        weight = np.exp(favour[stories]) * 0.5 ** (day - stories // 4)
        for number in range(8):
            story = rng.choice(stories, p=weight / weight.sum())
            article = f"article-{story}-{rng.integers(10_000)}"
            yield day + 0.3 + number / 50, "open", f"story-{story}", article
            if rng.random() < 0.4:
                yield day + 0.31 + number / 50, "read", f"story-{story}", article


def travel(rng: np.random.Generator) -> Person:
    """A journey is looked for during weeks and booked; in between, places are looked at out of curiosity."""
    day, kind = float(rng.integers(20)), int(rng.integers(8))
    while day < 360:
        end = day + rng.uniform(14, 42)
        while day < end:
            # A session is about the journey, or about what an advertisement has shown.
            about = kind if rng.random() < 0.6 else int(rng.integers(8))
            for look in range(int(rng.integers(3, 9))):
                yield day + look / 200, "details", f"kind-{about}", f"place-{about}-{rng.integers(40)}"
            if about == kind and rng.random() < 0.4:
                yield day + 0.1, "favourite", f"kind-{about}", f"place-{about}-{rng.integers(40)}"
            day += rng.exponential(3.0)
        yield day, "book", f"kind-{kind}", f"place-{kind}-{rng.integers(40)}"
        day += rng.uniform(50, 130)
        kind = kind if rng.random() < 0.4 else int(rng.integers(8))


GENERATED: dict[str, tuple[Callable[[np.random.Generator], Person], str]] = {
    "video": (video, "finish"),
    "music": (music, "like"),
    "news": (news, "read"),
    "travel": (travel, "book"),
}
"""By preset: its people, and the word for liking."""


def command(
    quick: Annotated[bool, typer.Option(help="A fifth of the people.")] = False,
    people: Annotated[int, typer.Option(help="Of each generated field.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the generated logs.")] = 7,
) -> None:
    """Tastes by each preset, judged by what is liked next: of generated people of each field, and two public sets."""
    report = Report("presets", quick=quick, seed=seed)
    people = people // 5 if quick else people
    for field, (make, liked) in GENERATED.items():
        words = load_preset(field).events
        rng = np.random.default_rng([seed, len(field)])
        logs = [[_event(f"p{n}", did, words[did[1]]) for did in make(rng)] for n in range(people)]
        _judge(report, f"{field}, generated", field, logs, EventType[words[liked].upper()])
    if folder := os.environ.get("MMREC_DATA"):
        public = {"video": ("CiaoDVD", _ciao), "music": ("LastFM", _lastfm)}
        for field, (name, read) in public.items():
            logs = read(Path(folder))
            _judge(report, f"{field}, {name}", field, logs[: len(logs) // 5] if quick else logs, None)
    else:
        console.print("MMREC_DATA is not set: the public sets are left out", style="yellow")
    report.close()


def _event(user: str, did: Did, kind: str) -> BehaviourEvent:
    days, _, category, item = did
    return TYPES[kind](user_id=user, item_id=item, category=category, ts=START_MS + round(days * DAY_MS))


def _ciao(folder: Path) -> list[list[BehaviourEvent]]:
    """Films by genre, rated on a date; what got four stars or five was liked."""
    found: dict[str, list[BehaviourEvent]] = defaultdict(list)
    for line in (folder / "social_ciaodvd" / "movie-ratings.txt").read_text().splitlines():
        user, film, genre, _, stars, date = line.split(",")
        ts = round(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)
        found[user].append(Rating(user_id=user, item_id=film, category=f"genre-{genre}", rating=float(stars), ts=ts))
    return [sorted(log, key=lambda event: event.ts) for log in found.values() if len(log) >= 5]


def _lastfm(folder: Path) -> list[list[BehaviourEvent]]:
    """Artists by their commonest tag, in the order in which somebody took to them; the set has no times: one a day."""
    sets = folder / "s3rec_sequences"
    tags = json.loads(gzip.decompress((sets / "LastFM_item2attributes.json.gz").read_bytes()))
    style = {artist: f"tag-{Counter(found).most_common(1)[0][0]}" for artist, found in tags.items() if found}
    logs = []
    for line in (sets / "LastFM.txt").read_text().splitlines():
        user, *artists = line.split()
        taken = [(float(day), "like", style[artist], artist) for day, artist in enumerate(artists) if artist in style]
        logs.append([_event(user, did, "purchase") for did in taken])
    return logs


def _judge(report: Report, name: str, field: str, logs: list[list[BehaviourEvent]], liked: EventType | None) -> None:
    """The next liking's category against each preset's tastes, and what its rule on repeats keeps out.

    Args:
        report: where figures go.
        name: of the log.
        field: whose preset is the log's own.
        logs: a person's events each, in time order.
        liked: which events are likings; None: every purchase, and ratings of four stars or more.
    """
    shares, out = dict[str, float](), dict[str, float]()
    logs = [log for log in logs if log]
    for preset in preset_names():
        hits, again, barred = list[bool](), 0, 0
        defaults = load_preset(preset).defaults
        repeats, tastes = Repeats.of_days(defaults.seen_days, defaults.repurchase_days), Tastes.of(preset)
        for log in logs:
            seen, known = list[bool](), set[str]()
            rows, done = ProfileRows(), 0
            (row,) = rows.rows_of(["somebody"])
            keys = id_keys([event.item_id for event in log])
            for at, event in enumerate(log):
                if not _is_liking(event, liked):
                    continue
                fresh = columns_of(log[done:at], range(done, at))
                fold(rows.records, np.full(at - done, row), fresh, SOURCE, tastes)
                done = at
                if known:
                    record = rows.records[row : row + 1]
                    names, weights = record["category_keys"][0], record["category_weights"][0]
                    if weights.max() > 0:
                        seen.append(int(names[np.argmax(weights)]) == short_key(event.category or ""))
                    if event.item_id in known:
                        again += 1
                        barred += bool(np.isin(keys[at], barred_keys(record, np.array(event.ts // 1000), repeats)))
                known.add(event.item_id)
            hits += seen
        shares[preset] = float(np.mean(hits))
        report.add(f"next liking is of the strongest taste: {name}", preset, shares[preset], "share", cases=len(hits))
        if again >= FEW:
            out[preset] = barred / again
    for preset, share in out.items():
        report.add(f"comes back and is kept out: {name}", preset, share, "share")
    report.add(f"own preset to a shop's: {name}", field, shares[field] / shares["shop"], "×")


def _is_liking(event: BehaviourEvent, liked: EventType | None) -> bool:
    if liked is not None:
        return liked == event.CODE
    return event.CODE == EventType.PURCHASE or (isinstance(event, Rating) and event.rating >= 4)
