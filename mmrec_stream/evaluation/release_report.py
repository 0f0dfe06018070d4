"""What a release is worth on a data set, as a report: metrics, where they come from, a replay, and example users."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.dataset import Dataset, Interactions
from mmrec_stream.evaluation.methods import Judgement, judge
from mmrec_stream.evaluation.metrics import Figure, Lists, top_lists
from mmrec_stream.evaluation.prequential import DAY_MS, Replay, replay
from mmrec_stream.evaluation.report import Block, Example, Plot, Report, Shown, Table
from mmrec_stream.evaluation.serving import serve
from mmrec_stream.evaluation.splits import Cases, SplitName, new_likings, split_of
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.releases.manifest import Manifest

MOST_CASES = 5_000
"""Cases that are judged, drawn at random from more: the standard error of NDCG is then about .003."""

LENGTHS = (1, 2, 3, 5, 10, 20, 50)
"""Least history length of each slice."""

AGES_DAYS = (0, 1, 7, 30, 90)
"""Least age of each slice, in days since the item's first event; before it there is the slice of the unseen."""

EXAMPLES = 8
EXAMPLE_ITEMS = 12
"""As many as fit on a screen's width."""


@dataclass(frozen=True)
class Judged:
    """A release judged on cases, beside popularity, and how it would have done over time."""

    cases: Cases
    learned: Interactions
    release: Judgement
    popularity: Judgement
    replay: Replay | None


def cases_for(dataset: Dataset, manifest: Manifest, split: SplitName, since_ms: int | None) -> tuple[Cases, int]:
    """The cases to judge a release on, at most `MOST_CASES`, and the time before which events count as learned.

    By `time`, a case is a liking of an item new to the user, after `since_ms` or else after the newest event that the
    release was trained on; the history is all before it.

    Raises:
        UserError: There is no such event.
    """
    if split != "time":
        log = dataset.interactions
        cases = split_of(replace(dataset, interactions=log.where(log.likings)), split).test
        return _sampled(cases), int(cases.times.min(initial=np.iinfo(np.int64).max))
    since = manifest.data.last + 1 if since_ms is None else since_ms
    cases = new_likings(dataset.interactions, dataset.users)
    wanted = np.flatnonzero(cases.times >= since)
    if not len(wanted):
        raise UserError(
            f"no liking of a new item after {_when(since)}, which is what release {manifest.version} has learned from; "
            "give it newer events, or judge from an earlier time with --since (then it knows some answers already)"
        )
    return _sampled(cases.where(wanted)), since


def judge_release(
    scorer: Scorer,
    dataset: Dataset,
    cases: Cases,
    since_ms: int,
    ks: Sequence[int],
    *,
    over_time: bool,
    progress: Callable[[str, int, int], None] | None = None,
) -> Judged:
    """Judge a loaded release on cases.

    Args:
        scorer: The release.
        dataset: What the cases are about.
        cases: As of `cases_for`.
        since_ms: Events before it count as learned, for popularity, novelty, and warm and cold items.
        ks: List lengths to judge at.
        over_time: Whether to replay the events since then with a live and a daily profile.
        progress: Called with what is under way, cases done, and cases in all.
    """
    log = dataset.interactions
    learned = log.where(log.times < since_ms)
    length = max(ks)

    def lists_of(what: str, some: Cases) -> Lists:
        shown = None if progress is None else (lambda done: progress(what, done, len(some)))
        return serve(scorer, dataset, some, length, progress=shown)

    lists = lists_of("lists", cases)
    counts = np.bincount(learned.items, minlength=dataset.items).astype(np.float32)
    order = np.random.default_rng(0).permutation(dataset.items)
    popular = [top_lists(counts[None, :], length, [cases.history(case)], order)[0] for case in range(len(cases))]
    return Judged(
        cases,
        learned,
        judge(dataset, learned, cases, lists, ks),
        judge(dataset, learned, cases, np.array(popular, dtype=np.int32), ks),
        replay(lambda some: lists_of("replay", some), cases.log, dataset.users, since_ms, k=min(10, length), most=2_000)
        if over_time
        else None,
    )


def report_of(manifest: Manifest, dataset: Dataset, judged: Judged, ks: Sequence[int]) -> Report:
    """The report of a judged release."""
    k = min(ks)
    blocks: list[Block] = [
        _comparison({"release": judged.release, "popularity": judged.popularity}, ks),
        _slices("By history length", "events before", judged, k, _length_slices(judged.cases)),
        _slices("By item age", "age of the item taken", judged, k, _age_slices(judged)),
        Table(
            "α by history length",
            ["events of the user, from", "α, the weight of p_user"],
            [[str(bucket.min_history), f"{bucket.alpha:.2f}"] for bucket in manifest.alpha],
        ),
    ]
    if manifest.modality_weights:
        shares = [[name, f"{share:.1%}"] for name, share in manifest.modality_weights.items()]
        blocks.append(Table(f"Share of each modality, fusion {manifest.fusion}", ["modality", "mean share"], shares))
    if manifest.metrics:
        blocks.append(
            Table(
                "On the trainer's own validation events",
                ["metric", "value"],
                [[name, f"{value:.4f}"] for name, value in manifest.metrics.items()],
            )
        )
    if judged.replay is not None:
        blocks += _over_time(judged.replay)
    blocks += _examples(dataset, judged)
    facts = {
        "release": manifest.version,
        "trained on": f"{manifest.data.events:,} events until {_when(manifest.data.last)}",
        "judged on": f"{len(judged.cases):,} cases of {len(np.unique(judged.cases.users)):,} users, all "
        f"{dataset.items:,} items ranked, the history left out",
        "encoders": ", ".join(f"{modality}: {encoder}" for modality, encoder in manifest.encoders.items()),
        "fusion": manifest.fusion,
        "compression": manifest.compression,
        "ties": "the ranker's order of rows; popularity's at random",
        "intervals": "95%, bootstrap over users",
    }
    return Report(f"Release {manifest.version} on {dataset.name}", facts, blocks)


def _comparison(methods: dict[str, Judgement], ks: Sequence[int]) -> Table:
    names = [name for name in methods["release"].figures if int(name.split("@")[1].split()[0]) in ks]
    rows = [[name, *(_figure(method.figures.get(name)) for method in methods.values())] for name in names]
    return Table("Metrics", ["metric", *methods], rows)


def _length_slices(cases: Cases) -> list[tuple[str, NDArray[np.bool_]]]:
    edges = [*LENGTHS, np.iinfo(np.int64).max]
    return [
        (f"{low}" if high == low + 1 else f"{low}–{high - 1}" if high < edges[-1] else f"{low} or more", inside)
        for low, high in pairwise(edges)
        if (inside := (cases.lengths >= low) & (cases.lengths < high)).any()
    ]


def _age_slices(judged: Judged) -> list[tuple[str, NDArray[np.bool_]]]:
    """Slices by the age of a case's first target when it was taken."""
    cases, log = judged.cases, judged.cases.log
    born = np.full(int(max(log.items.max(initial=0), cases.targets.values.max(initial=0))) + 1, np.iinfo(np.int64).max)
    np.minimum.at(born, log.items, log.times)
    age = cases.times - born[cases.targets.values[cases.targets.offsets[:-1]]]
    slices = [("never seen before", age <= 0)]
    edges = [*(days * DAY_MS for days in AGES_DAYS), np.iinfo(np.int64).max]
    for low, high in pairwise(edges):
        inside = (age > low) & (age <= high)
        label = f"{low // DAY_MS}–{high // DAY_MS} days" if high < edges[-1] else f"over {low // DAY_MS} days"
        slices.append((label, inside))
    return [(label, inside) for label, inside in slices if inside.any()]


def _slices(title: str, what: str, judged: Judged, k: int, slices: list[tuple[str, NDArray[np.bool_]]]) -> Table:
    metrics = (f"NDCG@{k}", f"HR@{k}")
    rows = [
        [
            label,
            f"{inside.sum():,}",
            *(f"{judged.release.values[metric][inside].mean():.4f}" for metric in metrics),
            *(f"{judged.popularity.values[metric][inside].mean():.4f}" for metric in metrics),
        ]
        for label, inside in slices
    ]
    return Table(title, [what, "cases", *metrics, *(f"popularity {metric}" for metric in metrics)], rows)


def _over_time(seen: Replay) -> list[Block]:
    periods = seen.by_period()
    note = (
        f"{len(seen.times):,} events, each foreseen right before it happened. Live: the profile holds everything up to "
        f"then ({seen.live.mean():.4f} on average). Daily: it is as of midnight ({seen.refreshed.mean():.4f}); "
        f"{1 - seen.known.mean():.0%} of the events were of users it did not know yet and counts as missed."
    )
    series = {
        "live": [(float(number), live) for number, (_, _, live, _) in enumerate(periods)],
        "daily": [(float(number), daily) for number, (_, _, _, daily) in enumerate(periods)],
    }
    rows = [[_when(begin)[:10], f"{count:,}", f"{live:.4f}", f"{daily:.4f}"] for begin, count, live, daily in periods]
    return [
        Plot("Live profile against one refreshed daily", "days since the first event", "NDCG@10", series, note),
        Table("Day by day", ["day", "events", "live NDCG@10", "daily NDCG@10"], rows),
    ]


def _examples(dataset: Dataset, judged: Judged) -> list[Block]:
    """Users drawn at random, half of them among those that were served well."""
    cases, lists = judged.cases, judged.release.lists
    generator = np.random.default_rng(0)
    well = np.flatnonzero(judged.release.values[next(iter(judged.release.values))] > 0)
    chosen = generator.permutation(well)[: EXAMPLES // 2].tolist()
    others = [case for case in generator.permutation(len(cases)).tolist() if case not in chosen]
    examples: list[Block] = []
    for case in chosen + others[: EXAMPLES - len(chosen)]:
        taken = set(cases.targets[case].tolist())
        examples.append(
            Example(
                dataset.user_ids[int(cases.users[case])],
                [_shown(dataset, item, set()) for item in cases.history(case)[-EXAMPLE_ITEMS:]],
                [_shown(dataset, item, taken) for item in lists[case, :EXAMPLE_ITEMS] if item >= 0],
                [_shown(dataset, item, set()) for item in sorted(taken)[:EXAMPLE_ITEMS]],
            )
        )
    return examples


def _shown(dataset: Dataset, item: int, taken: set[int]) -> Shown:
    entry = dataset.catalogue[item] if dataset.catalogue is not None else None
    return Shown(
        dataset.item_ids[item],
        entry.title if entry else "",
        entry.thumbnail if entry else None,
        int(item) in taken,
    )


def _sampled(cases: Cases) -> Cases:
    if len(cases) <= MOST_CASES:
        return cases
    return cases.where(np.sort(np.random.default_rng(0).choice(len(cases), MOST_CASES, replace=False)))


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return ""
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.4f}…{figure.high:.4f})"
    return f"{figure.value:.4f}{interval}"


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
