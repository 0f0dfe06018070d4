"""Rounds of training: data in, a judged release out, announced only if it is no worse than the current one."""

import re
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.splits import Split, new_likings, newest
from mmrec_stream.errors import UserError
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.releases import new_version, newest_release, prune_releases
from model_export.config import ModelConfig
from model_export.gate import Verdict, judge_release, verdict
from model_export.release import build_release
from model_export.training import Progress, fit

HELD_OUT_CASES = 2_000
"""Newest cases held out of training: enough for a standard error of .005 in NDCG."""

HELD_OUT_SHARE = 0.1
"""Most of the events that are held out, for small logs."""

TEST_SHARE = 0.4
"""Share of the held-out cases, the newest of them, that nothing is chosen on. The gate compares two releases on the
same cases, where the error of the difference is a fraction of that of either, so that fewer do."""

KEPT_RELEASES = 5
"""Releases that stay on disk: the one that serves, one that a slow worker still loads, and some to go back to."""


@dataclass(frozen=True)
class Round:
    """What a round came to: a release, or why there is none."""

    path: Path | None
    verdict: Verdict
    events: int
    seconds: float


def release_split(dataset: Dataset) -> Split:
    """What a release learns from, what it is tuned on, and the newest events, which the gate judges it on.

    A case is one liking: the user's history right before it, and the item, which must be new to the user. Neither early
    stopping nor calibration sees the test cases, which all come after those.

    Raises:
        UserError: The log is too short.
    """
    log = dataset.interactions.without_impressions()
    most = min(HELD_OUT_CASES, int(len(log) * HELD_OUT_SHARE))
    chosen = newest(new_likings(log, dataset.users), most)
    if not len(chosen):
        raise UserError(f"{dataset.name}: {len(log)} events are too few to train on; wait for more, or simulate some")
    train = log.where(log.times < chosen.times.min())
    from_ms = np.quantile(chosen.times, 1 - TEST_SHARE)
    tuned, judged = np.flatnonzero(chosen.times <= from_ms), np.flatnonzero(chosen.times > from_ms)
    return Split(train=train, validation=chosen.where(tuned), test=chosen.where(judged))


def train_round(
    dataset: Dataset,
    store: Path,
    config: ModelConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    threads: int = 0,
    checkpoint: Path | None = None,
) -> Round:
    """Train, export, judge, and put the release into the store if the gate lets it pass.

    Raises:
        UserError: There is too little data, or the export does not hold what the model promises.
    """
    began = time.monotonic()
    split = release_split(dataset)
    # The exported ranker sees one profile at a time, so that α must be fitted to p_user without whom users follow.
    model = fit(replace(dataset, social=None), split, config, progress=progress, checkpoint=checkpoint)
    created = int(time.time() * 1000)
    version = new_version(created)
    # Built under a hidden name: nobody takes a candidate for a release before it is judged.
    candidate = build_release(model, store / ".candidates", created, version)
    try:
        current = newest_release(store)
        judged = judge_release(Scorer.load(candidate, provider="cpu", threads=threads), dataset, split.test)
        before = None
        if current is not None:
            before = judge_release(Scorer.load(current, provider="cpu", threads=threads), dataset, split.test)
        said = verdict(judged, before)
        path = store / version if said.accepted else None
        if path is not None:
            candidate.rename(path)
            prune_releases(store, KEPT_RELEASES)
        return Round(path, said, len(dataset.interactions), time.monotonic() - began)
    finally:
        shutil.rmtree(store / ".candidates", ignore_errors=True)


def interval_seconds(text: str) -> float:
    """The seconds of `90s`, `15m`, `2h`.

    Raises:
        UserError: It is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or float(match[1]) <= 0:
        raise UserError(f"--every {text}: give a number and a unit, such as 90s, 15m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def keep_training(
    read: Callable[[], Dataset],
    one_round: Callable[[Dataset], None],
    report: Callable[[str], None],
    every_s: float,
    *,
    rounds: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """A round every `every_s` seconds, from start to start, as long as there are events that the last one lacked.

    A round that fails is reported and leaves everything as it was; the next one is tried in its time.

    Args:
        read: Gives all data up to now.
        one_round: Trains on it.
        report: Takes a readable line.
        every_s: Seconds.
        rounds: How many; without end if None.
        sleep: Waits for seconds.
    """
    seen = -1
    done = 0
    while rounds is None or done < rounds:
        began = time.monotonic()
        try:
            dataset = read()
            if len(dataset.interactions) == seen:
                report("no new events since the last round")
            else:
                # Before the round: the same events with the same seed would fail the same way.
                seen = len(dataset.interactions)
                one_round(dataset)
        except UserError as error:
            report(f"this round made no release: {error}")
        except Exception:
            report(f"this round made no release:\n{traceback.format_exc()}")
        done += 1
        if rounds is None or done < rounds:
            sleep(max(0.0, began + every_s - time.monotonic()))
