"""What a release is worth on a data set, as a report: metrics, where they come from, a replay, and example users."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import DAY_MS, Dataset, Interactions
from mmrec_stream.data.requests import DEFAULT_REPEATS
from mmrec_stream.data.splits import Cases, Split, SplitName, new_likings, newest, split_of
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.baselines import counting
from mmrec_stream.evaluation.baselines.base import TUNING_CASES
from mmrec_stream.evaluation.methods import Judgement, Method, judge, recommend
from mmrec_stream.evaluation.metrics import Figure, Lists
from mmrec_stream.evaluation.prequential import Replay, replay
from mmrec_stream.evaluation.report import Block, Example, Plot, Report, Shown, Table
from mmrec_stream.evaluation.serving import serve
from mmrec_stream.ranking.content import words
from mmrec_stream.ranking.repeats import Repeats
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


RELEASE = "release"
MIX = "release, not re-ranked"
HALVES = {"release, α = 1": 1.0, "release, α = 0": 0.0}
"""The release's own halves: p_user alone, p_item alone."""


@dataclass(frozen=True)
class Judged:
    """A release judged on cases, beside its halves and counting methods, and how it would have done over time."""

    cases: Cases
    learned: Interactions
    methods: Mapping[str, Judgement]
    """By name, `RELEASE` first."""
    replay: Replay | None


def question_of(dataset: Dataset, manifest: Manifest, split: SplitName, since_ms: int) -> Split:
    """What to judge a release on, at most `MOST_CASES`, and what methods beside it may learn from.

    By `time`, a case is a liking of an item new to the user, from `since_ms` on; the history is all before it, and
    methods learn from what was liked before that time.

    Raises:
        UserError: There is no such event.
    """
    log = dataset.interactions
    if split != "time":
        asked = split_of(replace(dataset, interactions=log.where(log.likings)), split)
        return replace(asked, test=_sampled(asked.test))
    cases = new_likings(log, dataset.users)
    wanted = np.flatnonzero(cases.times >= since_ms)
    if not len(wanted):
        raise UserError(
            f"no liking of a new item after {_when(since_ms)}, which is what release {manifest.version} has "
            "learned from; give it newer events, or judge from an earlier time with --since (then it knows some "
            "answers already)"
        )
    known = log.where((log.times < since_ms) & log.likings)
    tuned = newest(new_likings(known, dataset.users), min(TUNING_CASES, len(known) // 10))
    return Split(
        train=known.where(known.times < tuned.times.min(initial=since_ms)),
        validation=tuned,
        test=_sampled(cases.where(wanted)),
        refit=known,
    )


def judge_release(
    scorer: Scorer,
    dataset: Dataset,
    question: Split,
    ks: Sequence[int],
    *,
    repeats: Repeats = DEFAULT_REPEATS,
    replay_since_ms: int | None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Judged:
    """Judge a loaded release, its halves, and counting methods on the same cases.

    Args:
        scorer: The release.
        dataset: What the cases are about.
        question: As of `question_of`.
        ks: List lengths to judge at.
        repeats: When an item that a user has had may come back into the release's lists, as workers are told.
        replay_since_ms: From when on to replay likings with a live and a daily profile; None leaves it out.
        progress: Called with what is under way, cases done, and cases in all.
    """
    cases, length = question.test, max(ks)
    learned = question.train if question.refit is None else question.refit

    def lists_of(what: str, asked: Scorer, some: Cases) -> Lists:
        shown = None if progress is None else (lambda done: progress(what, done, len(some)))
        return serve(asked, dataset, some, length, repeats=repeats, progress=shown)

    lists = {RELEASE: lists_of(RELEASE, scorer, cases)}
    if scorer.reranker is not None:
        lists[MIX] = lists_of(MIX, scorer.without_reranker(), cases)
    lists |= {name: lists_of(name, scorer.at_alpha(alpha), cases) for name, alpha in HALVES.items()}
    for name, method in _beside(dataset, learned).items():
        if progress:
            progress(name, 0, len(cases))
        method.fit(dataset, question)
        lists[name] = recommend(method, cases, dataset.items, length)
    seen = None
    if replay_since_ms is not None:
        seen = replay(
            lambda some: lists_of("replay", scorer, some),
            cases.log,
            dataset.users,
            replay_since_ms,
            k=min(10, length),
            most=2_000,
        )
    judged = {name: judge(dataset, learned, cases, each, ks) for name, each in lists.items()}
    return Judged(cases, learned, judged, seen)


def _beside(dataset: Dataset, learned: Interactions) -> dict[str, Method]:
    """The counting methods that there is something to learn from for."""
    methods: dict[str, Method] = {}
    if len(learned) > 1:
        methods |= {
            "popularity": counting.Popularity(),
            "co-occurrence": counting.DirectedCooccurrence(),
            "item kNN": counting.ItemKnn(),
        }
    if dataset.catalogue is not None and any(words(item) for item in dataset.catalogue):
        methods["content kNN"] = counting.DescriptionKnn()
    return methods


def figures_json(manifest: Manifest, dataset: Dataset, judged: Judged) -> bytes:
    """Every figure of every method as one JSON document; `low` and `high` are the ends of 95% intervals."""
    methods = {
        name: {metric: asdict(figure) for metric, figure in judgement.figures.items()}
        for name, judgement in judged.methods.items()
    }
    told = {
        "release": manifest.version,
        "compression": manifest.compression,
        "data": dataset.name,
        "cases": len(judged.cases),
        "users": len(np.unique(judged.cases.users)),
        "items": dataset.items,
        "learned_events": len(judged.learned),
        "methods": methods,
    }
    return msgspec.json.format(msgspec.json.encode(told))


def report_of(manifest: Manifest, dataset: Dataset, judged: Judged, ks: Sequence[int]) -> Report:
    """The report of a judged release."""
    k = min(ks)
    blocks: list[Block] = [
        _comparison(judged.methods, ks),
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
        note = "By how much of p_user goes to other items when the modality is left out where lists are made."
        blocks.append(Table(f"Share of each modality, fusion {manifest.fusion}", ["modality", "share"], shares, note))
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
        "ties": "the ranker's order of rows; at random for the other methods",
        "intervals": "95%, bootstrap over users",
    }
    return Report(f"Release {manifest.version} on {dataset.name}", facts, blocks)


def _comparison(methods: Mapping[str, Judgement], ks: Sequence[int]) -> Table:
    names = [name for name in methods[RELEASE].figures if int(name.split("@")[1].split()[0]) in ks]
    rows = [[name, *(_figure(method.figures.get(name)) for method in methods.values())] for name in names]
    note = (
        "α = 1 is what the user's sequence says alone, α = 0 what the items say of each other. The other methods count "
        "likings before the judged ones, with settings chosen on the newest of those; content kNN compares words and "
        "labels."
    )
    return Table("Metrics", ["metric", *methods], rows, note)


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
            *(f"{judged.methods[RELEASE].values[metric][inside].mean():.4f}" for metric in metrics),
            *(
                f"{judgement.values[metrics[0]][inside].mean():.4f}"
                for name, judgement in judged.methods.items()
                if name != RELEASE
            ),
        ]
        for label, inside in slices
    ]
    others = [f"{name} {metrics[0]}" for name in judged.methods if name != RELEASE]
    return Table(title, [what, "cases", *metrics, *others], rows)


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
    cases, lists = judged.cases, judged.methods[RELEASE].lists
    generator = np.random.default_rng(0)
    well = np.flatnonzero(judged.methods[RELEASE].values[next(iter(judged.methods[RELEASE].values))] > 0)
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
