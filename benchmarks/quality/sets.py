"""The data sets of the quality table, read from their raw files as they were published, each with its split."""

import csv
import gzip
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import numpy as np

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.data.dataset import Dataset, Interactions, read_sequences
from mmrec_stream.data.splits import (
    Split,
    cold_items,
    global_time,
    last_basket,
    leave_one_out,
    new_likings,
    next_clicks,
    of_items,
)
from mmrec_stream.errors import UserError

SESSIONS = 99
"""Test sessions of YooChoose that are judged: those that the published lists of its peers cover."""

COLD_PART = 5
"""One in so many articles of H&M is unknown when it is asked for: enough for intervals, and most of the log is left."""

PRICE_SCALE = 1_000.0
"""H&M publishes prices scaled by an unknown factor; times this they look like a shop's."""


@dataclass(frozen=True)
class Target:
    """What a metric must pass, what is aimed at, and whose figure the former is."""

    metric: str
    passing: float
    aim: float
    whose: str


@dataclass(frozen=True)
class Judged:
    """A set as it is judged: its data, its split, the list lengths, and the targets there are."""

    dataset: Dataset
    split: Split
    ks: tuple[int, ...]
    targets: tuple[Target, ...] = ()
    note: str = "leave one out"
    shown: tuple[str, ...] = ()
    """The metrics that a table begins with; without, those of the targets, or HR and NDCG at the first k."""

    @property
    def main(self) -> list[str]:
        """The metrics that a table begins with."""
        named = self.shown or tuple(target.metric for target in self.targets)
        return list(named) or [f"{name}@{self.ks[0]}" for name in ("HR", "NDCG")]


def data_folder() -> Path:
    """Where the public data sets lie, by MMREC_DATA.

    Raises:
        UserError: The variable is not set, or names no folder.
    """
    named = os.environ.get("MMREC_DATA", "")
    if not named or not Path(named).is_dir():
        raise UserError(
            "MMREC_DATA must name the folder of the public data sets (s3rec_sequences, yoochoose_100k_clicks, "
            "hm_fashion_multimodal, social_ciaodvd); a file of your own needs none: --set path/to/sequences.txt"
        )
    return Path(named)


def load(name: str) -> Judged:
    """The set called `name`, or a sequence file at that path, judged by leave-one-out.

    Raises:
        UserError: There is no such set or file.
    """
    if name in SETS:
        return SETS[name](data_folder())
    path = Path(name)
    if path.is_file():
        dataset = read_sequences(path)
        return Judged(dataset, leave_one_out(dataset), (10, 20))
    raise UserError(f"--set {name}: neither a set ({', '.join(SETS)}) nor a sequence file")


def beauty(folder: Path) -> Judged:
    """Amazon Beauty, 5-core, leave one out (Zhou et al., S3-Rec, CIKM 2020)."""
    dataset = _sequences(folder, "Beauty")
    targets = (
        Target("HR@10", 0.0741, 0.090, "EASE, history decayed by .8 a step"),
        Target("NDCG@10", 0.0417, 0.052, "EASE, history decayed by .8 a step"),
    )
    return Judged(dataset, leave_one_out(dataset), (5, 10, 20), targets, "leave one out; S3-Rec published .0647/.0327")


def beauty_shuffled(folder: Path) -> Judged:
    """Beauty with the order within a day drawn at random, as far as it can be told: what the file's order is worth.

    The file has no dates. It was made from days, and within a day its order is that of the product numbers, so that
    each run of rising numbers is shuffled as a whole. Such a run may span days, whose true order is then lost too.
    """
    dataset = _sequences(folder, "Beauty")
    with gzip.open(folder / "s3rec_sequences" / "Beauty_item2asin.json.gz", "rb") as text:
        numbers = msgspec.json.decode(text.read(), type=dict[str, str])
    rank = {item: place for place, item in enumerate(sorted(dataset.item_ids, key=lambda item: numbers[item]))}
    shuffled = replace(dataset, name="beauty-shuffled", interactions=_without_order(dataset, rank))
    return Judged(shuffled, leave_one_out(shuffled), (5, 10, 20), note="leave one out, runs of rising numbers shuffled")


def lastfm(folder: Path) -> Judged:
    """LastFM artists, leave one out, as in the same paper."""
    dataset = _sequences(folder, "LastFM")
    targets = (Target("HR@10", 0.0743, 0.085, "S3-Rec"), Target("NDCG@10", 0.0427, 0.048, "S3-Rec"))
    return Judged(dataset, leave_one_out(dataset), (5, 10, 20), targets, "leave one out")


def _sequences(folder: Path, name: str) -> Dataset:
    """A sequence file with the attributes that its items come with as tags, those first that an item has most often."""
    dataset = read_sequences(folder / "s3rec_sequences" / f"{name}.txt")
    with gzip.open(folder / "s3rec_sequences" / f"{name}_item2attributes.json.gz", "rb") as text:
        attributes = msgspec.json.decode(text.read(), type=dict[str, list[int]])
    catalogue = [
        CatalogueItem(item_id=item, tags=[str(tag) for tag, _ in Counter(attributes.get(item, ())).most_common(64)])
        for item in dataset.item_ids
    ]
    return replace(dataset, catalogue=catalogue)


def yoochoose(folder: Path) -> Judged:
    """YooChoose clicks: every next click of the first 99 test sessions, which published lists are of."""
    targets = (
        Target("HR@20", 0.6098, 0.65, "VSKNN, its own lists"),
        Target("MRR@20", 0.3342, 0.36, "VSKNN, its own lists"),
    )
    dataset, split = _yoochoose(folder)
    sessions = np.unique(split.test.users)[:SESSIONS]
    first = replace(split, test=split.test.where(np.flatnonzero(split.test.users <= sessions[-1])))
    return Judged(dataset, first, (10, 20), targets, f"every next click of the first {SESSIONS} test sessions")


def yoochoose_all(folder: Path) -> Judged:
    """YooChoose clicks: every next click of all test sessions."""
    dataset, split = _yoochoose(folder)
    dataset = replace(dataset, name="yoochoose-all")
    return Judged(dataset, split, (10, 20), (), "every next click of all test sessions", ("HR@20", "MRR@20"))


def _yoochoose(folder: Path) -> tuple[Dataset, Split]:
    """All of it; repeats count, so nothing is masked."""
    base = folder / "yoochoose_100k_clicks"
    parts = {
        part: _clicks(base / f"yoochoose-clicks-100k_{part}.txt.gz")
        for part in ("train_full", "train_tr", "train_valid", "test")
    }
    items = {item: row for row, item in enumerate(sorted({click[1] for clicks in parts.values() for click in clicks}))}
    sessions: dict[str, int] = {}
    logs = {}
    for part, clicks in parts.items():
        # The same session number means another session in another file, but for the training files.
        prefix = "test-" if part == "test" else ""
        users = [sessions.setdefault(prefix + session, len(sessions)) for session, _, _ in clicks]
        logs[part] = Interactions.of(
            np.array(users), np.array([items[item] for _, item, _ in clicks]), np.array([time for _, _, time in clicks])
        )
    dataset = Dataset("yoochoose", logs["train_full"], list(sessions), list(items))
    return dataset, Split(
        train=logs["train_tr"],
        validation=next_clicks(logs["train_valid"], len(sessions)),
        test=next_clicks(logs["test"], len(sessions)),
        refit=logs["train_full"],
        mask_history=False,
    )


def hm(folder: Path) -> Judged:
    """H&M purchases with text and a picture for every article: a fifth of the articles is new to everybody.

    Asked for are the new items of each customer's last date. Every article of the sample was bought by somebody, so
    that those that nobody had bought before are the ones that were first bought on a judged date, and being unknown
    would mark a target. So the catalogue is what somebody had bought before the last two dates of all customers, and
    the unknown ones of it are chosen by the hash of their number: a fifth loses all events but the targets' own, and
    another fifth all before the validation dates.
    """
    base = folder / "hm_fashion_multimodal"
    with (base / "items.csv").open(encoding="utf-8", newline="") as lines:
        articles = list(csv.DictReader(lines))
    items = {article["article_id"]: row for row, article in enumerate(articles)}
    users: dict[str, int] = {}
    rows: list[tuple[int, int, int]] = []
    prices: dict[tuple[int, int, int], float] = {}
    with (base / "transactions.csv").open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            user = users.setdefault(line["customer_id"], len(users))
            row = (user, items[line["article_id"]], _day_ms(line["t_dat"]))
            prices[row] = float(line["price"]) * PRICE_SCALE
            rows.append(row)
    columns = np.array(rows).T
    log = Interactions.of(columns[0], columns[1], columns[2], np.full(len(rows), EventType.PURCHASE))
    features = {
        "text": np.load(base / "features_text_minilm_384.npy", allow_pickle=False).astype(np.float32),
        "image": np.load(base / "features_image_mobilenetv2_pca256.npy", allow_pickle=False).astype(np.float32),
    }
    # Article numbers are given out in turn, and the file is sorted by them.
    whole = Dataset("hm", log, list(users), list(items), None, features, listed=True)
    split = last_basket(whole)
    # What an article was first sold at is known of a new one too; what it costs on a judged date is not.
    first_price: dict[int, float] = {}
    for place in np.argsort(split.train.times, kind="stable"):
        row = (int(split.train.users[place]), int(split.train.items[place]), int(split.train.times[place]))
        first_price.setdefault(row[1], prices[row])
    with zipfile.ZipFile(base / "images_128.zip") as pictures:
        catalogue = [
            _article(article, first_price.get(row), pictures.read(f"images_128/{article['article_id']}.jpg"))
            for row, article in enumerate(articles)
        ]
    known = np.bincount(split.train.items, minlength=whole.items) > 0
    dataset, split = of_items(replace(whole, catalogue=catalogue), split, known)
    part = id_keys(dataset.item_ids) % np.uint64(COLD_PART)
    split = cold_items(split, test=part == 0, validation=part == 1)
    note = f"last date out; one in {COLD_PART} articles has no events before"
    return Judged(dataset, split, (20, 100), (), note, ("Recall@20", "Recall@100"))


def ciao(folder: Path) -> Judged:
    """CiaoDVD ratings with dates, genres and a trust network, leave one out: the last film that a user liked."""
    dataset = _ciao(folder)
    return Judged(dataset, leave_one_out(dataset), (10, 20), note="last liking out")


def ciao_time(folder: Path) -> Judged:
    """CiaoDVD by time: learned from the first nine tenths of all ratings, judged on each liking after them."""
    dataset = replace(_ciao(folder), name="ciao-time")
    split = global_time(dataset)
    cases = new_likings(dataset.interactions, dataset.users)
    tuned_from, judged_from = split.validation.times.min(), split.test.times.min()
    split = replace(
        split,
        validation=cases.where(np.flatnonzero((cases.times >= tuned_from) & (cases.times < judged_from))),
        test=cases.where(np.flatnonzero(cases.times >= judged_from)),
    )
    return Judged(dataset, split, (10, 20), note="global time split, every liking after it by all that its user did")


def _ciao(folder: Path) -> Dataset:
    base = folder / "social_ciaodvd"
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    genres: dict[str, str] = {}
    rows: list[tuple[int, int, int]] = []
    stars: list[float] = []
    for user, item, genre, _, rating, when in _rows(base / "movie-ratings.txt"):
        genres[item] = genre
        rows.append((users.setdefault(user, len(users)), items.setdefault(item, len(items)), _day_ms(when)))
        stars.append(float(rating))
    edges = [
        (users.setdefault(one, len(users)), users.setdefault(other, len(users)))
        for one, other, _ in _rows(base / "trusts.txt")
    ]
    columns = np.array(rows).T
    rated = np.full(len(rows), EventType.RATING)
    log = Interactions.of(columns[0], columns[1], columns[2], rated, np.array(stars))
    catalogue = [CatalogueItem(item_id=item, category=f"genre {genres[item]}") for item in items]
    return Dataset("ciao", log, list(users), list(items), catalogue, social=np.array(edges, dtype=np.int32))


SETS: dict[str, Callable[[Path], Judged]] = {
    "beauty": beauty,
    "beauty-shuffled": beauty_shuffled,
    "lastfm": lastfm,
    "yoochoose": yoochoose,
    "yoochoose-all": yoochoose_all,
    "hm": hm,
    "ciao": ciao,
    "ciao-time": ciao_time,
}


def _without_order(dataset: Dataset, rank: Mapping[str, int]) -> Interactions:
    """The log with each user's runs of items of rising `rank` (by id) in a random order, always the same."""
    log = dataset.interactions
    ranks = np.array([rank[item] for item in dataset.item_ids])[log.items]
    begins = np.r_[True, (log.users[1:] != log.users[:-1]) | (ranks[1:] < ranks[:-1])]
    order = np.lexsort((np.random.default_rng(0).random(len(log)), np.cumsum(begins)))
    return replace(log, items=log.items[order])


def _clicks(path: Path) -> list[tuple[str, str, int]]:
    """Session, item and time in ms of every click."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return [
            (line["SessionId"], line["ItemId"], round(float(line["Time"]) * 1000))
            for line in csv.DictReader(lines, delimiter="\t")
        ]


def _article(article: dict[str, str], price: float | None, picture: bytes) -> CatalogueItem:
    named = ("product_code", "section_name", "department_name", "index_name", "garment_group_name", "catalogue_section")
    looks = ("colour_group_name", "perceived_colour_master_name", "graphical_appearance_name", "product_group_name")
    return CatalogueItem(
        item_id=article["article_id"],
        title=article["prod_name"],
        description=article["detail_desc"],
        category=article["product_type_name"] or None,
        price=price,
        tags=[f"{name}: {article[name]}" for name in (*named, *looks) if article[name]],
        thumbnail=picture,
    )


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.reader(lines)


def _day_ms(text: str) -> int:
    day = date.fromisoformat(text.strip())
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
