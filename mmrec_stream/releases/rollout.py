"""How a release comes to serve: from shadow to canary to live, or back out, as a function of what lies on the topics.

Nothing here knows a clock or a broker. Every worker folds the same records and comes to the same decisions; what one
decides it publishes, and what counts is what was published. The states of a release form an order (shadow, canary,
live, withdrawn) of which the last counts, so that neither the order of records, nor repeats, nor what compaction has
taken away can make two workers disagree.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.releases import ReleaseAnnouncement, decode_release
from mmrec_stream.contracts.rollouts import CountsRecord, RolloutRecord, Stage, StageRecord, Trial, decode_rollout
from mmrec_stream.releases.sequential import log_evidence

ORDER: dict[Stage, int] = {"shadow": 0, "canary": 1, "live": 2, "withdrawn": 3}
"""The later counts. Where one worker promotes and another withdraws at the same moment, the release is withdrawn."""

FALSE_ALARM = 0.001
"""How likely a guard ever withdraws a release that is as it should be. With seven guards one in 140 sound releases is
withdrawn, which costs a training; a hundred times as cautious, a guard needs about twice as many observations."""

MIN_COMPARED = 200
"""Users compared before a stage may end well: a guard that tolerates half of them sees a release that is bad for two
thirds after about a hundred."""

SLOWER = 1.2
"""A release may take this many times as long as the live one. Timings of the same users beside each other differ by a
tenth on a busy machine; a third more is what a worker at its limit has no room for."""

AGREE = 0.1
"""Least agreement beyond chance (Cohen's kappa of the places) that a release's list has to have with the live one's.
Two trainings of the same data reach .4 and more, lists of mixed-up ids 0."""

COVER = 0.5
"""Least share of different items that a batch's lists need, measured by the live release's."""

CLICK_LOSS = 0.9
"""A release may bring this share of the live one's clickers before that counts against it."""

ONLINE = {"clicks": "clicked", "carts": "put something into their carts"}
"""Guards of what visitors do, and what they did."""


@dataclass(frozen=True)
class Guard:
    """What is watched, and how often it may be bad."""

    tolerated: float
    says: str
    """What is wrong when it is bad too often."""


GUARDS: dict[str, Guard] = {
    "errors": Guard(0.002, "users whose scoring failed or gave scores that are no numbers"),
    "empty": Guard(0.01, "lists that are empty or shorter than the live release's"),
    "latency": Guard(0.5, f"batches that took more than {SLOWER:g} times as long as with the live release"),
    "agreement": Guard(0.5, "lists that share with the live release's what chance gives"),
    "coverage": Guard(0.5, f"batches whose lists have less than {COVER:.0%} of the live release's different items"),
}
"""Those that compare a release with the live one on the same users. Those of `ONLINE` tolerate what the share says."""


@dataclass(frozen=True)
class Rollout:
    """One announced release and how far it has come."""

    announcement: ReleaseAnnouncement
    announced: int
    """When: its record's time, ms."""
    stage: Stage
    reason: str
    at: int
    """Since when it is in this stage, ms."""

    @property
    def version(self) -> str:
        """The release's version."""
        return self.announcement.version


@dataclass(frozen=True)
class State:
    """What lies on the two topics, folded."""

    announced: Mapping[str, tuple[int, int, ReleaseAnnouncement]]
    """(time, place in the topic, announcement), by version."""
    stages: Mapping[tuple[str, int], StageRecord]
    """The last stage of each announcement, by version and time."""
    counts: Mapping[str, CountsRecord]
    """By worker."""

    @property
    def rollouts(self) -> list[Rollout]:
        """All releases in the order of their announcements."""
        found = []
        for time, _, told in sorted(self.announced.values(), key=lambda one: one[:2]):
            said = self.stages.get((told.version, time))
            if said is None or ORDER[said.stage] <= ORDER[told.stage]:
                found.append(Rollout(told, time, told.stage, "announced", time))
            else:
                found.append(Rollout(told, time, said.stage, said.reason, said.at))
        return found

    @property
    def live(self) -> Rollout | None:
        """The release for everybody: the last announced of those that are live."""
        return next((one for one in reversed(self.rollouts) if one.stage == "live"), None)

    @property
    def candidate(self) -> Rollout | None:
        """The release on trial: the last announced, unless a later one is live. An earlier one is passed over."""
        for one in reversed(self.rollouts):
            if one.stage == "live":
                return None
            if one.stage in ("shadow", "canary"):
                return one
        return None

    def standing(self, rollout: Rollout) -> Literal["shadow", "canary", "live", "withdrawn", "replaced"]:
        """What a release is to visitors: its stage, or `replaced` where a later release has its place."""
        if rollout.stage == "withdrawn" or rollout in (self.live, self.candidate):
            return rollout.stage
        return "replaced"

    def evidence(self, rollout: Rollout) -> list[CountsRecord]:
        """What workers have counted of a release in the stage that it is in."""
        return [
            record
            for record in self.counts.values()
            if (record.version, record.announced, record.stage) == (rollout.version, rollout.announced, rollout.stage)
        ]


EMPTY = State({}, {}, {})


class Message(Protocol):
    """A record of one of the two topics, as clients of Kafka give it."""

    def key(self) -> bytes | None:
        """Its key."""

    def value(self) -> bytes | None:
        """Its value; None where its key is deleted."""

    def timestamp(self) -> tuple[int, int]:
        """Kind of time, and the time, ms."""

    def offset(self) -> int | None:
        """Its place in its partition, of which both topics have one."""


def fold(state: State, topic: Literal["releases", "rollouts"], messages: Iterable[Message]) -> tuple[State, list[str]]:
    """What the state becomes by records of one of the two topics, in their order.

    Returns:
        The state, and place and fault of the records that cannot be read; they change nothing.
    """
    bad = []
    for message in messages:
        value, place = message.value(), message.offset() or 0
        try:
            if topic == "rollouts":
                # What is deleted there was counted by a worker that counts no more, or has been compacted away.
                state = state if value is None else record(state, decode_rollout(value))
            elif value is None:
                state = taken_out(state, (message.key() or b"").decode(errors="replace"))
            else:
                state = announce(state, decode_release(value), message.timestamp()[1], place)
        except UNREADABLE as error:
            bad.append(f"{topic}@{place}: not readable, and passed over: {error}")
    return state, bad


def announce(state: State, announcement: ReleaseAnnouncement, time_ms: int, place: int) -> State:
    """The state with an announcement; `place` is its offset. The last of a version counts."""
    known = state.announced.get(announcement.version)
    if known is not None and known[:2] >= (time_ms, place):
        return state
    return replace(state, announced={**state.announced, announcement.version: (time_ms, place, announcement)})


def taken_out(state: State, version: str) -> State:
    """The state without a release, whose announcement was deleted."""
    return replace(state, announced={name: one for name, one in state.announced.items() if name != version})


def record(state: State, told: RolloutRecord) -> State:
    """The state with a record of the rollouts' topic."""
    if isinstance(told, CountsRecord):
        return replace(state, counts={**state.counts, told.worker: told})
    key = told.version, told.announced
    known = state.stages.get(key)
    if known is not None and (ORDER[known.stage], -known.at) >= (ORDER[told.stage], -told.at):
        return state
    return replace(state, stages={**state.stages, key: told})


def decide(state: State, now_ms: int) -> StageRecord | None:
    """What follows from what was counted: the next stage of the release on trial, or its withdrawal, with the reason.

    Args:
        state: The topics, folded.
        now_ms: The present, by which a stage has lasted long enough.
    """
    candidate = state.candidate
    if candidate is None:
        return None

    def stage(name: Stage, reason: str) -> StageRecord:
        return StageRecord(
            version=candidate.version, announced=candidate.announced, stage=name, reason=reason, at=now_ms
        )

    if state.live is None:
        return stage("live", "there is no live release to compare it with")
    evidence = state.evidence(candidate)
    if refused := sorted(one.refused for one in evidence if one.refused):
        return stage("withdrawn", f"a worker cannot load it: {refused[0]}"[:1_000])
    trials = total(evidence)
    share = candidate.announcement.share
    for name, trial in sorted(trials.items()):
        if (tolerated := tolerance(name, share)) is None:
            continue
        if log_evidence(trial.bad, trial.n, tolerated) >= -math.log(FALSE_ALARM):
            return stage("withdrawn", _complaint(name, trial, tolerated, candidate.stage))
    compared = trials.get("errors", Trial()).n
    lasts = candidate.announcement.shadow_s if candidate.stage == "shadow" else candidate.announcement.canary_s
    if compared < MIN_COMPARED or not evidence or now_ms - min(one.since for one in evidence) < lasts * 1000:
        return None
    following: Stage = "canary" if candidate.stage == "shadow" else "live"
    return stage(following, f"{candidate.stage}: {summary(evidence)}; no guard was raised")


def total(evidence: Iterable[CountsRecord]) -> dict[str, Trial]:
    """The sums over all workers, by guard."""
    sums: dict[str, Trial] = {}
    for one in evidence:
        for name, trial in one.trials.items():
            before = sums.get(name, Trial())
            sums[name] = Trial(n=before.n + trial.n, bad=before.bad + trial.bad)
    return sums


def summary(evidence: list[CountsRecord]) -> str:
    """What was counted, in a line."""
    trials = total(evidence)
    weights = [one.trials.get("errors", Trial()).n for one in evidence]
    users = sum(weights)
    if not users:
        return "nobody compared yet"
    agreement = sum(one.agreement * weight for one, weight in zip(evidence, weights, strict=True)) / users
    latency = sum(one.latency * weight for one, weight in zip(evidence, weights, strict=True)) / users
    parts = [f"{users} users compared, agreement {agreement:.2f}, {latency:.2f} times the live release's scoring time"]
    parts += [
        f"{trials[name].n - trials[name].bad} of {trials[name].n} who {did} were its users"
        for name, did in ONLINE.items()
        if name in trials and trials[name].n
    ]
    return ", ".join(parts)


def tolerance(guard: str, share: float) -> float | None:
    """How often a guard may be bad; None for one that this version does not know.

    Of the users who click for the first time since the canary began, its share is expected among its own users, whoever
    they are, as the share is drawn by hash: bad is one that is not. A user counts once, so that one who clicks all day
    does not outweigh the others.
    """
    if guard in ONLINE:
        return 1 - CLICK_LOSS * share / (CLICK_LOSS * share + 1 - share)
    return GUARDS[guard].tolerated if guard in GUARDS else None


def in_canary(users: NDArray[np.uint64], version: str, share: float) -> NDArray[np.bool_]:
    """Which users see a canary: the same ones as long as it lasts, others for the next release.

    Args:
        users: `id_key` of each, (users,).
        version: The release's.
        share: 0 to 1.

    Returns:
        (users,).
    """
    # SplitMix64's finalizer (Steele, Lea, Flood 2014) over the key and the version's.
    mixed = users ^ np.uint64(xxh3_64_intdigest(version.encode()))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed < np.uint64(min(int(share * 2**64), 2**64 - 1))


def _complaint(name: str, trial: Trial, tolerated: float, stage: Stage) -> str:
    if name in ONLINE:
        return (
            f"{stage}: of {trial.n} users who {ONLINE[name]}, {trial.n - trial.bad} were its own, where at least "
            f"{1 - tolerated:.1%} were to be expected"
        )
    return f"{stage}: {trial.bad} of {trial.n} {GUARDS[name].says}, {tolerated:.1%} are tolerated"
