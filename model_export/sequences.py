"""From a log to what the model learns from: sequences, and what the profile would hold at each of their places."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.requests import ItemFacts
from mmrec_stream.profiles import record as profile

NO_TARGET = -1

LENGTH_BLUR = 1.3
"""Factor within which lengths count as alike. On Amazon Beauty, where pieces have 6 events in the mean and up to 50,
batches in random order are eight times as long as their events, these a tenth."""


@dataclass(frozen=True)
class Sequences:
    """Pieces of users' histories to train on; all arrays (pieces, length), padded on the right."""

    rows: NDArray[np.int64]
    types: NDArray[np.int64]
    tastes: NDArray[np.float32]
    """How much each event adds to the profile's affinities."""
    times: NDArray[np.float64]
    """Whole seconds since 1970."""
    targets: NDArray[np.int64]
    """The item that came next, `NO_TARGET` where there is none to learn from."""
    half_life_s: float
    """Seconds in which what an event adds to the affinities fades by half."""

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int, generator: np.random.Generator) -> Iterator["Sequences"]:
        """All pieces once, in random order; each batch is of pieces of like length, and as long as its longest one."""
        lengths = (self.types > 0).sum(1)
        # Blurred, so that the company of a piece changes from pass to pass.
        order = np.argsort(lengths * generator.uniform(1.0, LENGTH_BLUR, len(self)), kind="stable")
        starts = np.arange(0, len(self), size)
        for start in generator.permutation(starts):
            chosen = order[start : start + size]
            length = int(lengths[chosen].max())
            yield Sequences(
                self.rows[chosen, :length],
                self.types[chosen, :length],
                self.tastes[chosen, :length],
                self.times[chosen, :length],
                self.targets[chosen, :length],
                self.half_life_s,
            )


def training_sequences(log: Interactions, length: int, *, repeats: bool) -> Sequences:
    """Cut users' histories into pieces of at most `length` events, each with what came next.

    Pieces overlap by half, so that an event far into a long history is foreseen by at least half a piece of what came
    before it, as it is when asked for; each is foreseen once. The target of a place is the next liking, without
    `repeats` the next one of an item that the user has not had before. The log is one without impressions.
    """
    positions = log.positions()
    step = -(-length // 2)
    # The first piece that an event lies in knows most of what came before it.
    own = np.maximum(-(-(positions + 1 - length) // step), 0)
    ends = np.flatnonzero(np.r_[log.users[1:] != log.users[:-1], np.ones(min(len(log), 1), dtype=bool)])
    counts, events = own[ends] + 1, np.diff(ends, prepend=-1)
    first, last = np.repeat(np.cumsum(counts) - counts, events), np.repeat(counts - 1, events)
    shape = (int(counts.sum()), length)
    rows, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    tastes = np.zeros(shape, dtype=np.float32)
    times = np.zeros(shape, dtype=np.float64)
    targets = np.full(shape, NO_TARGET, dtype=np.int64)
    following = _next_targets(log, repeats)
    for piece in (positions // step, positions // step - 1):
        place = positions - piece * step
        held = np.flatnonzero((piece >= 0) & (piece <= last) & (place < length))
        where = first[held] + piece[held], place[held]
        rows[where], types[where], tastes[where] = log.items[held], log.types[held], log.tastes[held]
        # Whole seconds, as a profile keeps them: a gap must fall into the same bucket here and there.
        times[where] = log.times[held] // 1000
        targets[where] = np.where(own[held] == piece[held], following[held], NO_TARGET)
    # Padding stands at the last event's time, so that no gap into it is negative.
    latest = times.max(axis=1, initial=0.0, keepdims=True)
    times = np.where(types > 0, times, latest)
    useful = (targets != NO_TARGET).any(axis=1)
    half_life_s = log.rule.half_life_ms / 1000.0
    return Sequences(rows[useful], types[useful], tastes[useful], times[useful], targets[useful], half_life_s)


def _next_targets(log: Interactions, repeats: bool) -> NDArray[np.int64]:
    """What each event's place in its history should foresee, (events,)."""
    count = len(log)
    wanted = log.likings
    if not repeats:
        wanted &= log.firsts
    # The nearest wanted event after each one, and its user, by looking back from the end.
    following = np.where(wanted, np.arange(count), count)
    following = np.minimum.accumulate(following[::-1])[::-1]
    following = np.r_[following[1:], count][:count]
    inside = following < count
    following = np.minimum(following, max(count - 1, 0))
    inside &= log.users[following] == log.users if count else inside
    return np.where(inside, log.items[following], NO_TARGET).astype(np.int64)


def side_inputs(batch: Sequences, facts: ItemFacts | None) -> tuple[NDArray[np.float32], ...]:
    """What a profile would hold at each place of the sequences: the decayed affinities and counts.

    Returns:
        Weights of each earlier event in the affinities (batch, length, length), price bands (batch, length, 8), and
        type counts (batch, length, 3, 11).
    """
    ages = np.maximum(batch.times[:, :, None] - batch.times[:, None, :], 0.0)
    length = batch.rows.shape[1]
    past = np.tril(np.ones((length, length), dtype=bool)) & (batch.types > 0)[:, None, :]
    weights = (past * np.exp2(-ages / batch.half_life_s) * batch.tastes[:, None, :]).astype(np.float32)
    bands = np.zeros((*batch.rows.shape, profile.PRICE_BANDS), dtype=np.float32)
    if facts is not None:
        own = facts.price_bands[batch.rows]
        bands[own >= 0, own[own >= 0]] = 1.0
    one_hot = np.eye(profile.TYPE_SLOTS, dtype=np.float32)[batch.types]
    one_hot[:, :, 0] = 0.0
    counts = np.stack(
        [(past * np.exp2(-ages / (window / 1000.0))).astype(np.float32) @ one_hot for window in profile.WINDOWS_MS],
        axis=2,
    )
    return weights, weights @ bands, counts
