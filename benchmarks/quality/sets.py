"""The data sets of the quality table, read from their raw files as they were published, each with its split."""

import csv
import gzip
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.data.dataset import Dataset, Interactions, read_sequences
from mmrec_stream.data.splits import Split, last_basket, leave_one_out, next_clicks
from mmrec_stream.errors import UserError

SESSIONS = 99
"""Test sessions of YooChoose that are judged: those that the published lists of its peers cover."""

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
    note: str = ""


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
    dataset = read_sequences(folder / "s3rec_sequences" / "Beauty.txt")
    targets = (
        Target("HR@10", 0.0741, 0.090, "EASE, history decayed by .8 a step"),
        Target("NDCG@10", 0.0417, 0.052, "EASE, history decayed by .8 a step"),
    )
    return Judged(dataset, leave_one_out(dataset), (5, 10, 20), targets, "leave one out; S3-Rec published .0647/.0327")


def lastfm(folder: Path) -> Judged:
    """LastFM artists, leave one out, as in the same paper."""
    dataset = read_sequences(folder / "s3rec_sequences" / "LastFM.txt")
    targets = (Target("HR@10", 0.0743, 0.085, "S3-Rec"), Target("NDCG@10", 0.0427, 0.048, "S3-Rec"))
    return Judged(dataset, leave_one_out(dataset), (5, 10, 20), targets, "leave one out")


def yoochoose(folder: Path) -> Judged:
    """YooChoose clicks: every next click of the first 99 test sessions; repeats count, so nothing is masked."""
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
    test = logs["test"]
    judged = np.unique(test.users)[:SESSIONS]
    test = test.where(test.users <= judged[-1])
    dataset = Dataset("yoochoose", logs["train_full"], list(sessions), list(items))
    split = Split(
        train=logs["train_tr"],
        validation=next_clicks(logs["train_valid"], len(sessions)),
        test=next_clicks(test, len(sessions)),
        refit=logs["train_full"],
        mask_history=False,
    )
    targets = (
        Target("HR@20", 0.6098, 0.65, "VSKNN, its own lists"),
        Target("MRR@20", 0.3342, 0.36, "VSKNN, its own lists"),
    )
    return Judged(dataset, split, (10, 20), targets, f"every next click of the first {SESSIONS} test sessions")


def hm(folder: Path) -> Judged:
    """H&M purchases with text and a picture for every article: the new items of each customer's last date."""
    base = folder / "hm_fashion_multimodal"
    with (base / "items.csv").open(encoding="utf-8", newline="") as lines:
        articles = list(csv.DictReader(lines))
    items = {article["article_id"]: row for row, article in enumerate(articles)}
    users: dict[str, int] = {}
    rows: list[tuple[int, int, int]] = []
    prices: dict[int, float] = {}
    with (base / "transactions.csv").open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            item = items[line["article_id"]]
            user = users.setdefault(line["customer_id"], len(users))
            rows.append((user, item, _day_ms(line["t_dat"])))
            prices.setdefault(item, float(line["price"]) * PRICE_SCALE)
    columns = np.array(rows).T
    log = Interactions.of(columns[0], columns[1], columns[2], np.full(len(rows), EventType.PURCHASE))
    with zipfile.ZipFile(base / "images_128.zip") as pictures:
        catalogue = [
            _article(article, prices.get(row), pictures.read(f"images_128/{article['article_id']}.jpg"))
            for row, article in enumerate(articles)
        ]
    features = {
        "text": np.load(base / "features_text_minilm_384.npy", allow_pickle=False).astype(np.float32),
        "image": np.load(base / "features_image_mobilenetv2_pca256.npy", allow_pickle=False).astype(np.float32),
    }
    # Article numbers are given out in turn, and the file is sorted by them.
    dataset = Dataset("hm", log, list(users), list(items), catalogue, features, listed=True)
    targets = (
        Target("Recall@20", 0.0294, 0.060, "text and image kNN"),
        Target("Recall@100", 0.0652, 0.120, "text and image kNN"),
    )
    return Judged(dataset, last_basket(dataset), (20, 100), targets, "last date out, all 17,033 articles")


def ciao(folder: Path) -> Judged:
    """CiaoDVD ratings with dates, genres and a trust network, leave one out."""
    base = folder / "social_ciaodvd"
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    genres: dict[str, str] = {}
    rows: list[tuple[int, int, int]] = []
    for user, item, genre, _, _, when in _rows(base / "movie-ratings.txt"):
        genres[item] = genre
        rows.append((users.setdefault(user, len(users)), items.setdefault(item, len(items)), _day_ms(when)))
    edges = [
        (users.setdefault(one, len(users)), users.setdefault(other, len(users)))
        for one, other, _ in _rows(base / "trusts.txt")
    ]
    columns = np.array(rows).T
    log = Interactions.of(columns[0], columns[1], columns[2], np.full(len(rows), EventType.RATING))
    catalogue = [CatalogueItem(item_id=item, category=f"genre {genres[item]}") for item in items]
    dataset = Dataset("ciao", log, list(users), list(items), catalogue, social=np.array(edges, dtype=np.int32))
    return Judged(dataset, leave_one_out(dataset), (10, 20), note="leave one out")


SETS: dict[str, Callable[[Path], Judged]] = {
    "beauty": beauty,
    "lastfm": lastfm,
    "yoochoose": yoochoose,
    "hm": hm,
    "ciao": ciao,
}


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
