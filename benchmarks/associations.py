"""What the two tables of a release are worth: baskets completed, next looks foreseen, and known pairs found.

Everything is fitted on events before a moment and judged on those after it. The public sets are read from MMREC_DATA.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import scipy.sparse as sp
import typer
from numpy.typing import NDArray

from benchmarks.quality.sets import data_folder
from benchmarks.results import Report, Target
from mmrec_stream.contracts.behaviour import BehaviourEvent, EventType, Forget
from mmrec_stream.data.dataset import Dataset, Interactions, from_events
from mmrec_stream.data.item_item import cosine_cooccurrence, description_terms, unit_rows
from mmrec_stream.data.repurchases import repurchase_intervals
from mmrec_stream.evaluation.metrics import Figure, bootstrap
from mmrec_stream.ranking.repeats import DAY_S, Repeats
from mmrec_stream.replay.mapping import builtin
from mmrec_stream.replay.reading import Source, read_events, read_items
from mmrec_stream.replay.rows import Reject
from mmrec_stream.simulator import Shoppers, make_shop
from mmrec_stream.storefront.related import Kind, Relations
from model_export.config import ModelConfig
from model_export.related import TAKES, complementary_table, sessions, similar_table
from model_export.release import build_release
from model_export.rounds import release_split
from model_export.training import fit

END_MS = 1_764_460_800_000
"""When the synthetic log ends: a midnight, past for every clock."""

BASKETS = 3_000
"""Baskets judged at most: an interval of .016 either way."""

POPULAR_MS = 28 * 86_400_000
"""How far back popularity looks, as in the quality table."""

MOST_ALIKE = 0.5
"""Cosine of words above which two titles say the same thing in another colour."""

PLACES = 10
WIDGET = 6
"""Places of the row on a product page."""


Scores = NDArray[np.float64]
Table = NDArray[np.void]
Systems = Mapping[str, sp.csr_matrix | NDArray[np.float64]]
"""Scores of all items, or by what is asked with, (items, items), by name."""

Followers = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Items, and what followed each."""


def command(
    quick: Annotated[bool, typer.Option(help="Smaller samples and a shorter training.")] = False,
    minutes: Annotated[float, typer.Option(help="Most minutes of training for the order by taste.")] = 0.5,
) -> None:
    """Judge the tables on Online Retail, REES46 and the synthetic shop."""
    report = Report("associations", quick=quick)
    folder = data_folder()
    online_retail = folder / "uci_online_retail" / "online_retail.parquet"
    _online_retail(report, online_retail, 500 if quick else BASKETS)
    _bought_again(report, online_retail)
    _rees46(report, folder / "rees46_2019oct_sample" / "2019-Oct_first_rows.csv")
    _known_pairs(report)
    _by_taste(report, 0.1 if quick else minutes)
    report.close()


def _online_retail(report: Report, path: Path, most: int) -> None:
    """One line of a basket is hidden, or half of them; the others say which."""
    dataset = _read("online-retail", path, "invoice")
    log = dataset.interactions.where(dataset.interactions.types == EventType.PURCHASE)
    cut = int(np.quantile(log.times, 0.8))
    train, test = log.where(log.times < cut), log.where(log.times >= cut)
    baskets = _baskets(test, dataset.items)
    baskets = baskets[np.diff(baskets.indptr) >= 2]
    rng = np.random.default_rng(0)
    if baskets.shape[0] > most:
        baskets = baskets[np.sort(rng.choice(baskets.shape[0], most, replace=False))]
    assert dataset.catalogue is not None
    words = description_terms(dataset.catalogue)
    began = time.monotonic()
    table = complementary_table(train, [item.category for item in dataset.catalogue], words)
    report.add("baskets.seconds", "complementary", time.monotonic() - began, "s", events=len(train))
    recent = train.where(train.times >= cut - POPULAR_MS)
    own = _matrix(table)
    known = _baskets(train, dataset.items)
    together = sp.csr_matrix(known.T @ known)
    together.setdiag(0.0)
    bought = np.bincount(recent.items, minlength=dataset.items).astype(np.float64)
    cosine = cosine_cooccurrence(replace(train, users=sessions(train).astype(np.int32)), dataset.items)
    likeness = _matrix(similar_table(train, [words]))
    systems: Systems = {
        "popular in the last 28 days": bought,
        "bought together, counted": together,
        "item kNN (cosine)": cosine,
        "similar (titles alone: nobody looks in this set)": likeness,
        "complementary": own,
        "complementary, without titles alike": _apart(own, words),
    }
    # The same line hidden for everybody, in one order of ties.
    hidden = {
        "one line hidden, HR@10": _hide(baskets, np.random.default_rng(1), share=0.0),
        "half hidden, recall@10": _hide(baskets, np.random.default_rng(1), share=0.5),
    }
    for case, (asked, wanted) in hidden.items():
        for name, system in systems.items():
            found = _recall(_scores(system, asked), asked, wanted)
            mean = _mean(found)
            report.add(f"baskets.{case}", name, mean.value, "", low=mean.low, high=mean.high, baskets=len(found))


def _bought_again(report: Report, path: Path) -> None:
    """How many repurchases of the last fifth of the time a list might have had, by learned intervals and by a month."""
    dataset = _read("online-retail", path, None)
    log = dataset.interactions.where(dataset.interactions.types == EventType.PURCHASE)
    cut = int(np.quantile(log.times, 0.8))
    known = log.where(log.times < cut)
    learned = repurchase_intervals(known, dataset.items, None)
    pair = log.users.astype(np.int64) * dataset.items + log.items
    order = np.lexsort((log.times, pair))
    pair, times, items = pair[order], log.times[order], log.items[order]
    gaps_s = np.diff(times) / 1000
    again = (pair[1:] == pair[:-1]) & (gaps_s > DAY_S) & (times[1:] >= cut)
    holders = np.bincount(np.unique(known.users.astype(np.int64) * dataset.items + known.items) % dataset.items)
    month = Repeats().bought_s
    stays = np.where(np.isnan(learned), month, learned)
    mean = float(np.average(stays[: len(holders)], weights=holders))
    report.add("bought again.items with an interval", "learned", float((~np.isnan(learned)).mean()), "of items")
    rules = {"learned": stays, "as long for all": np.full(len(stays), mean), "a month": np.full(len(stays), month)}
    for name, kept in rules.items():
        due = gaps_s[again] >= kept[items[1:][again]]
        out = float(np.average(kept[: len(holders)], weights=holders)) / DAY_S
        report.add("bought again.when it is due", name, float(due.mean()), "", cases=int(again.sum()), days_out=out)


def _rees46(report: Report, path: Path) -> None:
    """The next look in a session, and the next product taken: fitted on the first two thirds of the sample."""
    dataset = _read("rees46", path, None)
    log = dataset.interactions
    cut = int(np.quantile(log.times, 2 / 3))
    train, test = log.where(log.times < cut), log.where(log.times >= cut)
    assert dataset.catalogue is not None
    categories = [item.category for item in dataset.catalogue]
    words = description_terms(dataset.catalogue)
    similar = similar_table(train, [words])
    completing = complementary_table(train, categories, words)
    looks = train.where(np.isin(train.types, (EventType.VIEW, EventType.CLICK)))
    seen = np.bincount(looks.items, minlength=dataset.items).astype(np.float64)
    counted = sp.csr_matrix((lambda m: m.T @ m)(_baskets(looks, dataset.items)))
    counted.setdiag(0.0)
    taken = np.bincount(train.items[np.isin(train.types, TAKES)], minlength=dataset.items).astype(np.float64)
    cases: Mapping[str, tuple[Followers, Systems]] = {
        "next look, HR@10": (
            _followers(test, (EventType.VIEW,), (EventType.VIEW,)),
            {"popular": seen, "looked at together, counted": counted, "similar": _matrix(similar)},
        ),
        "next product taken, HR@10": (
            _followers(test, TAKES, TAKES),
            {"popular": taken, "similar": _matrix(similar), "complementary": _matrix(completing)},
        ),
    }
    for case, ((first, then), systems) in cases.items():
        for name, system in systems.items():
            asked, wanted = _one_each(first, dataset.items), _one_each(then, dataset.items)
            found = _recall(_scores(system, asked), asked, wanted)
            mean = _mean(found)
            report.add(f"rees46.{case}", name, mean.value, "", low=mean.low, high=mean.high, cases=len(found))
    carts = int(np.isin(train.types, TAKES).sum())
    shown = int((completing["count"] > 0).sum())
    report.add("rees46.pairs that visitors have shown", "complementary", shown, "pairs", carts_and_purchases=carts)
    filled = float((completing["item"][:, 0] >= 0).mean())
    report.add("rees46.products with complements", "complementary", filled, "of all")


def _known_pairs(report: Report) -> None:
    """The shop was made with pairs that go together: which of them are found, and what else is named."""
    for days in (3.0, 14.0, 56.0):
        shop = make_shop(2_000, pictures=False)
        dataset = from_events("shop", Shoppers(shop, 2_000).past(days, END_MS), shop)
        began = time.monotonic()
        table = _complements(dataset, dataset.interactions)
        seconds = time.monotonic() - began
        rows = np.arange(len(shop))[:, None]
        there, shown = table["item"] >= 0, table["count"] > 0
        true = (shop.complements[:, None, :] == table["item"][:, :, None]).any(axis=2)
        own, other = shop.category[np.broadcast_to(rows, there.shape)], shop.category[np.maximum(table["item"], 0)]
        goes = np.zeros((shop.category.max() + 1,) * 2, dtype=bool)
        goes[np.repeat(shop.category, shop.complements.shape[1]), shop.category[shop.complements.ravel()]] = True
        log = f"{days:.0f} days, {len(dataset.interactions)} events"
        target = Target(0.9)
        report.add(
            "pairs.precision of those that visitors have shown", log, float(true[shown].mean()), "", target=target
        )
        report.add("pairs.share of the known pairs", log, float(true[shown].sum() / shop.complements.size), "")
        report.add("pairs.products with a pair of their own", log, float(shown.any(axis=1).mean()), "of all")
        right = float(goes[own, other][there].mean())
        report.add("pairs.places in a category that goes with it", log, right, "of all", target=target)
        report.add("pairs.products with complements", log, float(there.any(axis=1).mean()), "of all")
        report.add("pairs.seconds", log, seconds, "s")
        likeness = similar_table(dataset.interactions, [_words(dataset)])
        alike = shop.category[likeness["item"][:, :WIDGET]] == shop.category[:, None]
        report.add("similar.first six of the same category", log, float(alike.mean()), "of all")


def _by_taste(report: Report, minutes: float) -> None:
    """Whether what a visitor does next stands higher in their own order than in everybody's."""
    shop = make_shop(2_000)
    dataset = from_events("shop", Shoppers(shop, 2_000).past(14.0, END_MS), shop)
    log = dataset.interactions
    cut = END_MS - 2 * 86_400_000
    earlier = replace(dataset, interactions=log.where(log.times < cut))
    with TemporaryDirectory() as store:
        model = fit(earlier, release_split(earlier), ModelConfig(minutes=minutes))
        relations = Relations(build_release(model, Path(store), END_MS))
        _judge_orders(report, relations, "similar", dataset, log, cut, (EventType.VIEW,))
        _judge_orders(report, relations, "complementary", dataset, log, cut, TAKES)


def _judge_orders(
    report: Report,
    relations: Relations,
    kind: Kind,
    dataset: Dataset,
    log: Interactions,
    cut: int,
    before: Sequence[EventType],
) -> None:
    ids = dataset.item_ids
    common, own = [], []
    for place, following in zip(*_steps(log, before, (EventType.VIEW,)), strict=True):
        if log.times[place] < cut:
            continue
        start = int(np.searchsorted(log.users, log.users[place]))
        current, wanted = ids[log.items[place]], ids[log.items[following]]
        trail = [ids[item] for item in dict.fromkeys(log.items[max(start, place - 4) : place + 1].tolist())]
        trail = [item_id for item_id in trail if item_id != current]
        found = relations.of(kind, current)
        if not trail or wanted not in {one.item_id for one in found}:
            continue
        common.append([one.item_id for one in found].index(wanted))
        own.append([one.item_id for one in relations.by_taste(found, trail)].index(wanted))
    for name, ranks in (("everybody's order", common), ("the visitor's own", own)):
        first = np.array(ranks) < WIDGET
        mean = _mean(first.astype(np.float64))
        report.add(f"taste.next look among the first six, {kind}", name, mean.value, "", low=mean.low, high=mean.high)
        report.add(f"taste.MRR, {kind}", name, float((1 / (1 + np.array(ranks))).mean()), "", cases=len(ranks))


def _read(name: str, path: Path, anonymous: str | None) -> Dataset:
    source = Source(path, builtin(name), anonymous)

    def events() -> Iterator[BehaviourEvent]:
        for chunk in read_events(source):
            for outcome in chunk.outcomes:
                if not isinstance(outcome, Reject | Forget):
                    yield outcome

    return from_events(name, events(), read_items(source))


def _complements(dataset: Dataset, log: Interactions) -> Table:
    assert dataset.catalogue is not None
    return complementary_table(log, [item.category for item in dataset.catalogue], _words(dataset))


def _words(dataset: Dataset) -> sp.csr_matrix:
    assert dataset.catalogue is not None
    return description_terms(dataset.catalogue)


def _baskets(log: Interactions, items: int) -> sp.csr_matrix:
    """What each session has, (sessions, items), 1 each."""
    session = sessions(log)
    shape = int(session.max(initial=-1)) + 1, items
    found = sp.csr_matrix((np.ones(len(log)), (session, log.items)), shape=shape)
    found.sum_duplicates()
    found.data[:] = 1.0
    return found


def _hide(baskets: sp.csr_matrix, rng: np.random.Generator, share: float) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """What is asked with, and what is hidden: that share of each basket's lines, and one at least."""
    hidden = np.zeros(baskets.nnz, dtype=bool)
    for low, high in zip(baskets.indptr[:-1].tolist(), baskets.indptr[1:].tolist(), strict=True):
        count = max(1, int((high - low) * share))
        hidden[low + rng.permutation(high - low)[:count]] = True
    return _kept(baskets, ~hidden), _kept(baskets, hidden)


def _kept(matrix: sp.csr_matrix, keep: NDArray[np.bool_]) -> sp.csr_matrix:
    some = matrix.copy()
    some.data = np.where(keep, 1.0, 0.0)
    some.eliminate_zeros()
    return some


def _steps(
    log: Interactions, before: Sequence[EventType], after: Sequence[EventType]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of events of one kind, and of the next ones of the other kind about another item of the session."""
    session = sessions(log)
    nexts = np.flatnonzero(np.isin(log.types, after))
    places, following = [], []
    for place in np.flatnonzero(np.isin(log.types, before)).tolist():
        for other in nexts[np.searchsorted(nexts, place + 1) :][:20].tolist():
            if session[other] != session[place]:
                break
            if log.items[other] != log.items[place]:
                places.append(place)
                following.append(other)
                break
    return np.array(places, dtype=np.int64), np.array(following, dtype=np.int64)


def _followers(log: Interactions, before: Sequence[EventType], after: Sequence[EventType]) -> Followers:
    places, following = _steps(log, before, after)
    return log.items[places], log.items[following]


def _one_each(items: NDArray[np.int32], count: int) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(items)), (np.arange(len(items)), items)), shape=(len(items), count))


def _matrix(table: Table) -> sp.csr_matrix:
    rows, places = np.nonzero(table["item"] >= 0)
    entries = table["weight"][rows, places].astype(np.float64), (rows, table["item"][rows, places])
    return sp.csr_matrix(entries, shape=(len(table), len(table)))


def _apart(matrix: sp.csr_matrix, words: sp.csr_matrix) -> sp.csr_matrix:
    """The matrix without pairs whose titles say nearly the same."""
    unit = unit_rows(words)
    pairs = matrix.tocoo()
    cosine = np.asarray(unit[pairs.row].multiply(unit[pairs.col]).sum(axis=1)).ravel()
    kept = cosine < MOST_ALIKE
    return sp.csr_matrix((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=matrix.shape)


def _scores(system: sp.csr_matrix | NDArray[np.float64], asked: sp.csr_matrix) -> Scores:
    if isinstance(system, np.ndarray):
        return np.tile(system, (asked.shape[0], 1))
    return np.asarray((asked @ system).toarray(), dtype=np.float64)


def _recall(scores: Scores, asked: sp.csr_matrix, wanted: sp.csr_matrix) -> NDArray[np.float64]:
    """Share of what is wanted among the best `PLACES` of each row, what was asked with left out; ties by one draw."""
    scores = scores + np.random.default_rng(0).random(scores.shape[1]) * 1e-12
    blank = scores < 1e-11  # what a system says nothing of is no candidate
    scores[asked.nonzero()] = -1.0
    best = np.argpartition(-scores, PLACES, axis=1)[:, :PLACES]
    goal = wanted.toarray() > 0
    hits = (np.take_along_axis(goal, best, axis=1) & ~np.take_along_axis(blank, best, axis=1)).sum(axis=1)
    return np.asarray(hits / goal.sum(axis=1))


def _mean(values: NDArray[np.float64]) -> Figure:
    """With a 95% bootstrap interval."""
    return bootstrap(values, np.arange(len(values)))
