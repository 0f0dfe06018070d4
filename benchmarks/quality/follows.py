"""What following a brand does to a release's lists: `python -m benchmarks.quality.follows RELEASE --data FOLDER`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.results import console
from mmrec_stream.contracts.behaviour import EventType, Follow
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.requests import ItemFacts, profiles_of
from mmrec_stream.data.sources import read_folder
from mmrec_stream.data.splits import Cases, Ragged
from mmrec_stream.errors import UserError
from mmrec_stream.profiles import record as profile
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.ranking.features import Labels, features_of
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.ranking.scorer import Scorer

PLACES = 20

USERS = 200
"""Profiles of each kind: the mean share of a brand is then known to a few percent of itself."""

KNOWN_USER = 20
"""Events of a user whose affinities are many times a follow."""


@dataclass(frozen=True)
class Effect:
    """What a follow does for some profiles, one entry a brand, (brands,)."""

    before: NDArray[np.float64]
    """Mean probability of all of the brand's products together."""
    after: NDArray[np.float64]
    places_before: NDArray[np.float64]
    """Mean share of the first places that the brand's products have."""
    places_after: NDArray[np.float64]


def main(
    release: Annotated[Path, typer.Argument(help="The release's folder.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with events.jsonl and catalogue.jsonl.")],
) -> None:
    """Let profiles follow each of the release's brands in turn, and print what that moves.

    Example: mmrec simulate --days-before 14 --rate 0 --out log; mmrec train --data log --minutes 0.5 --out releases;
    python -m benchmarks.quality.follows releases/VERSION --data log
    """
    scorer, dataset = Scorer.load(release, provider="cpu", threads=1), read_folder(data)
    if not scorer.release.vocabularies["brands"]:
        raise UserError(f"{release}: it knows of no brand")
    for name, cases in (("a single view", single_views(dataset)), (f"{KNOWN_USER} events and more", known(dataset))):
        effect = effect_of(scorer, dataset, cases)
        lifts = effect.after / effect.before - 1
        console.print(
            f"{len(cases)} profiles with {name}: the probability of the brand's products"
            f" {effect.after.sum() / effect.before.sum() - 1:+.1%} ({lifts.min():+.1%} to {lifts.max():+.1%} by brand);"
            f" their share of the first {PLACES} places {effect.places_before.mean():.1%}"
            f" before and {effect.places_after.mean():.1%} after",
            highlight=False,
        )


def single_views(dataset: Dataset) -> Cases:
    """Users who have viewed one product each, at the end of the log."""
    items = np.linspace(0, dataset.items - 1, min(USERS, dataset.items)).astype(np.int64)
    users = np.arange(len(items))
    times = np.full(len(items), dataset.interactions.times.max())
    log = Interactions.of(users, items, times, np.full(len(items), EventType.VIEW))
    return Cases(log, log.users, users, users + 1, times, Ragged.of([items[:0]] * len(items)))


def known(dataset: Dataset) -> Cases:
    """Users of the log with many events, with all of them.

    Raises:
        UserError: There is none.
    """
    log = dataset.interactions.without_impressions()
    offsets = log.offsets(dataset.users)
    users = np.flatnonzero(np.diff(offsets) >= KNOWN_USER)
    if not len(users):
        raise UserError(f"{dataset.name}: nobody has {KNOWN_USER} events; give it a longer log")
    users = users[np.linspace(0, len(users) - 1, min(USERS, len(users))).astype(np.int64)]
    none = Ragged.of([users[:0]] * len(users))
    ends = offsets[users + 1]
    return Cases(log, users.astype(np.int32), offsets[users], ends, log.times[ends - 1], none)


def effect_of(scorer: Scorer, dataset: Dataset, cases: Cases) -> Effect:
    """What it does for the cases to follow each brand, at the end of the log, by the stream's own fold and gather."""
    lists = scorer.release.vocabularies
    labels = Labels(lists["categories"]), Labels(lists["brands"])
    catalogue = list(dataset.catalogue or [])
    facts = ItemFacts.of(list(dataset.item_ids), catalogue, lists["categories"], lists["brands"])
    brand_of_row = np.zeros(len(scorer.table), dtype=np.int64)
    rows = scorer.table.rows(id_keys(dataset.item_ids))
    brand_of_row[rows[rows >= 0]] = facts.brands[rows >= 0]
    records, now = profiles_of(cases, facts), int(dataset.interactions.times.max())

    def shares(records: profile.Records) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probability, and share of the first places, of each brand's products, (brands,) each."""
        inputs, _ = features_of(
            records.copy(), scorer.table, *labels, now_ms=now, repeats=Repeats(0.0, 0.0), max_history=scorer.max_history
        )
        found = scorer.run(inputs, len(scorer.table))
        brands = brand_of_row[found.rows]
        size = len(lists["brands"]) + 1
        # What is in the cart has a score far below 0, and no place in a list.
        scores = np.maximum(found.scores, 0.0)
        probability = np.bincount(brands.ravel(), scores.ravel(), size)[1:] / len(records)
        places = np.bincount(brands[:, :PLACES].ravel(), minlength=size)[1:] / (len(records) * PLACES)
        return probability, places

    before, places_before = shares(records)
    after, places_after = np.zeros_like(before), np.zeros_like(before)
    for number, brand in enumerate(track(lists["brands"], "following", console=console, transient=True)):
        followers = records.copy()
        follows = [Follow(user_id=f"u{row}", brand=brand, ts=now) for row in range(len(cases))]
        fold(followers, np.arange(len(cases)), columns_of(follows, list(range(len(cases)))), source=2)
        probability, places = shares(followers)
        after[number], places_after[number] = probability[number], places[number]
    return Effect(before, after, places_before, places_after)


if __name__ == "__main__":
    typer.run(main)
