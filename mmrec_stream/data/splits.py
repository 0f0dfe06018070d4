"""Splits: which interactions a model may learn from, and the cases it is then asked about.

A case is one moment of one user: the history up to it, and what the user then took.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.errors import UserError

SplitName = Literal["time", "leave-one-out", "last-basket"]


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths in one array: list i is values[offsets[i]:offsets[i + 1]]."""

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Sequence[NDArray[np.integer]]) -> "Ragged":
        """The lists, concatenated."""
        values = np.concatenate(lists).astype(np.int64) if lists else np.empty(0, dtype=np.int64)
        return cls(values, np.cumsum([0, *map(len, lists)], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each list, shape (lists,)."""
        return np.diff(self.offsets)

    def where(self, keep: NDArray[np.integer]) -> "Ragged":
        """The lists that `keep` numbers, in that order."""
        lengths = self.lengths[keep]
        offsets = np.r_[0, np.cumsum(lengths)]
        inner = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Ragged(self.values[np.repeat(self.offsets[:-1][keep], lengths) + inner], offsets)

    def among(self, wanted: NDArray[np.bool_]) -> "Ragged":
        """The lists without the values that are not `wanted`, (values' range,)."""
        there = wanted[self.values]
        return Ragged(self.values[there], np.r_[0, np.cumsum(there)][self.offsets])


@dataclass(frozen=True)
class Cases:
    """Moments to recommend at. Histories are oldest first and never empty.

    A history is a run of rows of `log`, so that nothing is copied: case i has seen log[starts[i]:ends[i]].
    """

    log: Interactions
    users: NDArray[np.int32]
    """(cases,)."""
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    times: NDArray[np.int64]
    """The moment of each case in ms, (cases,): when its first target was taken."""
    targets: Ragged
    """Items that were taken, without repeats."""
    withheld: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Items that are no candidates, in no list of any case."""

    def __len__(self) -> int:
        return len(self.users)

    def history(self, index: int) -> NDArray[np.int32]:
        """The items that case `index` has seen, oldest first."""
        return self.log.items[self.starts[index] : self.ends[index]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each history, shape (cases,)."""
        return self.ends - self.starts

    def where(self, keep: NDArray[np.integer]) -> "Cases":
        """The cases that `keep` numbers."""
        return Cases(
            self.log,
            self.users[keep],
            self.starts[keep],
            self.ends[keep],
            self.times[keep],
            self.targets.where(keep),
            self.withheld,
        )

    def banned(self, *, mask_history: bool) -> list[NDArray[np.integer]]:
        """The items that the list of each case must not have: those withheld, and its history if that is masked."""
        if not mask_history:
            return [self.withheld] * len(self)
        return [np.r_[self.history(case), self.withheld] for case in range(len(self))]


@dataclass(frozen=True)
class Split:
    """What may be learned from, what may be tuned on, and what is judged on.

    A method is fitted on `train`, chooses its settings on `validation`, and is judged on `test`. Where `refit` is
    given, it is fitted on that (training and validation events together) with the settings chosen before, and the
    refitted model is judged.
    """

    train: Interactions
    validation: Cases
    test: Cases
    refit: Interactions | None = None
    mask_history: bool = True
    """Whether what a user has had before may not be recommended and does not count as a target."""


def leave_one_out(dataset: Dataset) -> Split:
    """Each user's last liking is the test target, the one before it the validation target.

    Fitted on what came before both; the test's histories hold all before the test target. What is no liking, such as a
    poor rating, is part of histories and never a target. Users with fewer than three likings are learned from and not
    judged.
    """
    log = dataset.interactions
    liked = np.flatnonzero(log.likings)
    likings = np.bincount(log.users[liked], minlength=dataset.users)
    judged = np.flatnonzero(likings >= 3)
    last = np.cumsum(likings)[judged] - 1
    starts, tune, test = log.offsets(dataset.users)[judged], liked[last - 1], liked[last]
    first_held_out = np.full(dataset.users, len(log))
    first_held_out[judged] = tune
    return Split(
        train=log.where(np.arange(len(log)) < first_held_out[log.users]),
        validation=_next_item(log, judged, starts, tune),
        test=_next_item(log, judged, starts, test),
    )


def last_basket(dataset: Dataset) -> Split:
    """Each user's last day is the test basket, of the days before it the last one is the validation basket.

    Targets are what the user had not had before. Users with a single day are learned from and not judged, those
    with two are judged but not tuned on.
    """
    log = dataset.interactions
    days = log.times // 86_400_000
    first_of_day = np.r_[True, (log.users[1:] != log.users[:-1]) | (days[1:] != days[:-1])]
    basket_starts = np.flatnonzero(first_of_day)
    basket_users = log.users[basket_starts]
    basket_ends = np.r_[basket_starts[1:], len(log)]
    last = np.r_[basket_users[1:] != basket_users[:-1], True]
    rank = np.arange(len(basket_users)) - np.searchsorted(basket_users, basket_users)
    user_starts = log.offsets(dataset.users)[basket_users]
    test = np.flatnonzero(last & (rank >= 1))
    tune = test[rank[test] >= 2] - 1
    in_test, in_validation = np.zeros(len(log), dtype=bool), np.zeros(len(log), dtype=bool)
    for basket in test:
        in_test[basket_starts[basket] : basket_ends[basket]] = True
    for basket in tune:
        in_validation[basket_starts[basket] : basket_ends[basket]] = True
    return Split(
        train=log.where(~(in_test | in_validation)),
        validation=_new_items(log, basket_users[tune], user_starts[tune], basket_starts[tune], basket_ends[tune]),
        test=_new_items(log, basket_users[test], user_starts[test], basket_starts[test], basket_ends[test]),
        refit=log.where(~in_test),
    )


def cold_items(split: Split, test: NDArray[np.bool_], validation: NDArray[np.bool_]) -> Split:
    """The split with some items that nobody has taken before they are judged on.

    Items that are chosen whatever became of them tell how well a method foresees what is new: being unknown says
    nothing of being a target, as it does where the unknown items are those that were first taken on a judged day.

    Args:
        split: Of any kind.
        test: Items that lose all events but those of the test cases' targets, (items,).
        validation: Items that lose all events before the validation cases, so that settings are chosen for unknown
            items as well, (items,). What is cold on test is no candidate there.

    Returns:
        The split without those events, and without cases that have no history or no target left.
    """
    tuned_on = _among(split.validation, ~(test | validation), ~test)
    return Split(
        train=split.train.where(~(test | validation)[split.train.items]),
        validation=replace(tuned_on, withheld=np.union1d(tuned_on.withheld, np.flatnonzero(test))),
        test=_among(split.test, ~test, np.ones_like(test)),
        refit=None if split.refit is None else split.refit.where(~test[split.refit.items]),
        mask_history=split.mask_history,
    )


def of_items(dataset: Dataset, split: Split, kept: NDArray[np.bool_]) -> tuple[Dataset, Split]:
    """Data set and split with a catalogue of the `kept` items, (items,), alone, numbered anew in their order."""
    rows, numbers = np.flatnonzero(kept).tolist(), np.cumsum(kept) - 1

    def log_of(log: Interactions) -> Interactions:
        chosen = log.where(kept[log.items])
        return replace(chosen, items=numbers[chosen.items].astype(np.int32))

    def cases_of(cases: Cases) -> Cases:
        left = _among(cases, kept, kept)
        targets = replace(left.targets, values=numbers[left.targets.values])
        withheld = numbers[left.withheld[kept[left.withheld]]]
        return replace(left, log=log_of(left.log), targets=targets, withheld=withheld)

    smaller = replace(
        dataset,
        interactions=log_of(dataset.interactions),
        item_ids=[dataset.item_ids[row] for row in rows],
        catalogue=None if dataset.catalogue is None else [dataset.catalogue[row] for row in rows],
        features={name: matrix[rows] for name, matrix in dataset.features.items()},
    )
    refit = None if split.refit is None else log_of(split.refit)
    parts = (log_of(split.train), cases_of(split.validation), cases_of(split.test))
    return smaller, Split(*parts, refit, split.mask_history)


def global_time(dataset: Dataset, test_share: float = 0.1, validation_share: float = 0.1) -> Split:
    """Two moments cut the log: fitted on what came before the first, tuned between them, judged after the second.

    `test_share` and `validation_share` are shares of the interactions. A case is each user's first liking of a
    new item after the cut, with all that the user did before the cut as history; users without history are not judged.

    Raises:
        UserError: The log is too short to leave anything to learn from or to judge on.
    """
    log = dataset.interactions
    if not 0 < test_share < 1 or not 0 < validation_share < 1 - test_share:
        raise UserError("a time split needs shares above 0 that leave something to learn from")
    tune_from, test_from = np.quantile(log.times, [1 - test_share - validation_share, 1 - test_share]).astype(np.int64)
    split = Split(
        train=log.where(log.times < tune_from),
        validation=_after_cut(log.where(log.times < test_from), dataset.users, int(tune_from)),
        test=_after_cut(log, dataset.users, int(test_from)),
        refit=log.where(log.times < test_from),
    )
    if not len(split.train) or not len(split.validation) or not len(split.test):
        raise UserError(
            f"data set {dataset.name}: {len(log)} interactions leave nothing to learn from or to judge on by time; "
            "use leave-one-out or a longer log"
        )
    return split


def split_of(dataset: Dataset, name: SplitName) -> Split:
    """The split called `name`; a log without a clock has no time split, so leave-one-out is used for it."""
    if name == "time" and dataset.timed:
        return global_time(dataset)
    return last_basket(dataset) if name == "last-basket" else leave_one_out(dataset)


def next_clicks(log: Interactions, users: int, first_position: int = 1) -> Cases:
    """One case for every interaction after a user's first: all before it is history, it alone is the target."""
    rows = np.flatnonzero(log.positions() >= first_position)
    owners = log.users[rows]
    return _next_item(log, owners, log.offsets(users)[owners], rows)


def new_likings(log: Interactions, users: int) -> Cases:
    """One case for every liking of an item that its user had not had before: all before it is history.

    What a user has only been shown is not part of a history.
    """
    log = log.without_impressions()
    cases = next_clicks(log, users)
    return cases.where(np.flatnonzero((log.firsts & log.likings)[cases.ends]))


def newest(cases: Cases, most: int) -> Cases:
    """The newest `most` of the cases, in their order."""
    chosen = np.argsort(cases.times, kind="stable")[max(len(cases) - most, 0) :]
    return cases.where(np.sort(chosen))


def _next_item(
    log: Interactions, users: NDArray[np.integer], starts: NDArray[np.int64], targets: NDArray[np.int64]
) -> Cases:
    """The cases whose history ends right before the row that is their target."""
    return Cases(
        log,
        users.astype(np.int32),
        starts,
        targets,
        log.times[targets],
        Ragged(log.items[targets].astype(np.int64), np.arange(len(targets) + 1, dtype=np.int64)),
    )


def _new_items(
    log: Interactions,
    users: NDArray[np.int32],
    starts: NDArray[np.int64],
    cuts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> Cases:
    """The cases whose targets are the items of rows cuts:ends that are not in starts:cuts, where there are any."""
    targets = [
        np.setdiff1d(log.items[cut:end], log.items[start:cut])
        for start, cut, end in zip(starts, cuts, ends, strict=True)
    ]
    judged = np.array([case for case, items in enumerate(targets) if len(items)], dtype=np.int64)
    return Cases(
        log,
        users[judged],
        starts[judged],
        cuts[judged],
        log.times[cuts[judged]],
        Ragged.of([targets[i] for i in judged]),
    )


def _among(cases: Cases, known: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> Cases:
    """Cases with histories of the `known` items and targets of the `wanted` ones, (items,), where they have both."""
    kept = known[cases.log.items]
    place = np.r_[0, np.cumsum(kept)]
    log, starts, ends = cases.log.where(kept), place[cases.starts], place[cases.ends]
    left = Cases(log, cases.users, starts, ends, cases.times, cases.targets.among(wanted), cases.withheld)
    return left.where(np.flatnonzero((left.lengths > 0) & (left.targets.lengths > 0)))


def _after_cut(log: Interactions, users: int, cut: int) -> Cases:
    """Each user's first liking of a new item at or after `cut`; the history is all before the cut."""
    liked = log.likings
    offsets = log.offsets(users)
    before = np.bincount(log.users[log.times < cut], minlength=users)
    starts, cuts, ends = offsets[:-1], offsets[:-1] + before, offsets[1:]
    judged: list[int] = []
    firsts: list[int] = []
    for user in np.flatnonzero((before > 0) & (cuts < ends)):
        before_cut, after_cut = slice(starts[user], cuts[user]), slice(cuts[user], ends[user])
        new = np.flatnonzero(liked[after_cut] & ~np.isin(log.items[after_cut], log.items[before_cut]))
        if len(new):
            judged.append(int(user))
            firsts.append(int(cuts[user] + new[0]))
    owners, rows = np.array(judged, dtype=np.int64), np.array(firsts, dtype=np.int64)
    return Cases(
        log,
        owners.astype(np.int32),
        starts[owners],
        cuts[owners],
        log.times[rows],
        Ragged(log.items[rows].astype(np.int64), np.arange(len(rows) + 1, dtype=np.int64)),
    )
