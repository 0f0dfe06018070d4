"""A release comes to serve, or does not, by what lies on the topics alone: whoever reads them, in whatever order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.releases import ReleaseAnnouncement, encode_release
from mmrec_stream.contracts.rollouts import CountsRecord, Stage, StageRecord, Trial, encode_rollout
from mmrec_stream.releases import rollout
from mmrec_stream.releases.rollout import (
    EMPTY,
    FALSE_ALARM,
    MIN_COMPARED,
    State,
    announce,
    decide,
    fold,
    in_canary,
    record,
)
from mmrec_stream.releases.sequential import log_evidence

T = 1_790_000_000_000
SHADOW_S, CANARY_S, SHARE = 30.0, 600.0, 0.1


def told(version: str, stage: str = "shadow") -> ReleaseAnnouncement:
    return ReleaseAnnouncement(
        version=version, uri=f"file:///{version}", manifest_sha256="0f" * 32, created=T, stage=stage  # type: ignore[arg-type]
    )  # fmt: skip


def announced(*versions: tuple[str, str]) -> State:
    state = EMPTY
    for place, (version, stage) in enumerate(versions):
        state = announce(state, told(version, stage), T + place, place)
    return state


def stage(version: str, name: Stage, place: int, at: int = T) -> StageRecord:
    return StageRecord(version=version, announced=T + place, stage=name, reason="said so", at=at)


def counts(version: str, place: int, name: Stage = "shadow", worker: str = "w1", **trials: Any) -> CountsRecord:
    return CountsRecord(
        worker=worker,
        version=version,
        announced=T + place,
        stage=name,
        since=T,
        at=T,
        trials={guard: Trial(n=n, bad=bad) for guard, (n, bad) in trials.items()},
    )


@dataclass(frozen=True)
class Lying:
    """A record as it lies on a topic."""

    of: bytes
    content: bytes | None
    at: int

    def key(self) -> bytes:
        return self.of

    def value(self) -> bytes | None:
        return self.content

    def timestamp(self) -> tuple[int, int]:
        return 1, T + self.at

    def offset(self) -> int:
        return self.at


TWO = announced(("old", "live"), ("new", "shadow"))
LATER = T + 1_000_000


def test_the_first_release_serves_at_once_and_the_next_is_tried_beside_it() -> None:
    first = announced(("first", "shadow"))
    assert first.live is None
    decision = decide(first, T)
    assert decision is not None
    assert decision.stage == "live"
    assert TWO.live is not None
    assert TWO.candidate is not None
    assert (TWO.live.version, TWO.candidate.version) == ("old", "new")


def test_a_sound_release_goes_from_shadow_to_canary_to_live() -> None:
    sound: dict[str, Any] = {"errors": (MIN_COMPARED, 0), "agreement": (MIN_COMPARED, 20), "latency": (100, 20)}
    state = record(TWO, counts("new", 1, "shadow", **sound))
    assert decide(state, T + 29_000) is None
    first = decide(state, T + 30_000)
    assert first is not None
    assert first.stage == "canary"
    state = record(state, first)
    # What was counted in shadow says nothing of the canary.
    assert decide(state, LATER) is None
    second = decide(record(state, counts("new", 1, "canary", **sound)), T + 600_000)
    assert second is not None
    assert second.stage == "live"
    state = record(state, second)
    assert state.live is not None
    assert (state.live.version, state.candidate) == ("new", None)


def test_the_state_is_what_lies_on_the_two_topics_and_what_cannot_be_read_is_told_and_passed_over() -> None:
    first = [
        Lying(b"old", encode_release(told("old", "live")), 0),
        Lying(b"torn", b"{", 1),
        Lying(b"new", encode_release(told("new")), 2),
    ]
    state, bad = fold(EMPTY, "releases", first)
    (fault,) = bad
    assert fault.startswith("releases@1: ")
    second = [
        Lying(b"stage/new/canary", encode_rollout(stage("new", "canary", 2)), 0),
        Lying(b"counts/w1", encode_rollout(counts("new", 2, "canary", errors=(7, 0))), 1),
        Lying(b"counts/w2", b'{"type":"counts"}', 2),
        Lying(b"counts/w3", None, 3),
    ]
    state, bad = fold(state, "rollouts", second)
    assert [fault.split(":")[0] for fault in bad] == ["rollouts@2"]
    assert _serving(state) == ("old", "new", [("old", "live"), ("new", "canary")])
    assert state.candidate is not None
    assert [one.trials["errors"].n for one in state.evidence(state.candidate)] == [7]
    # An announcement that is deleted takes its release out, whatever was said of it.
    state, _ = fold(state, "releases", [Lying(b"new", None, 3)])
    assert _serving(state) == ("old", None, [("old", "live")])


def test_time_alone_promotes_nothing() -> None:
    assert decide(TWO, LATER) is None
    assert decide(record(TWO, counts("new", 1, errors=(MIN_COMPARED - 1, 0))), LATER) is None


@pytest.mark.parametrize(
    ("guard", "counted"),
    [
        ("errors", (16, 16)),
        ("empty", (16, 16)),
        ("latency", (40, 34)),
        ("agreement", (160, 112)),
        ("coverage", (20, 20)),
    ],
)
def test_a_guard_withdraws_a_bad_release_with_the_reason(guard: str, counted: tuple[int, int]) -> None:
    found = decide(record(TWO, counts("new", 1, **_trial(guard, counted))), T)
    assert found is not None
    assert found.stage == "withdrawn"
    assert rollout.GUARDS[guard].says in found.reason
    assert f"{counted[1]} of {counted[0]}" in found.reason
    back = record(TWO, found)
    assert back.live is not None
    assert (back.live.version, back.candidate) == ("old", None)


@pytest.mark.parametrize("guard", ["clicks", "carts"])
def test_a_canary_whose_users_stop_clicking_is_withdrawn(guard: str) -> None:
    state = record(TWO, stage("new", "canary", 1))
    found = decide(record(state, counts("new", 1, "canary", **_trial(guard, (2_000, 1_880)))), T)
    assert found is not None
    assert found.stage == "withdrawn"
    assert "120 were its own" in found.reason
    assert decide(record(state, counts("new", 1, "canary", **_trial(guard, (2_000, 1_800)))), T) is None


def test_counts_of_all_workers_are_added_and_one_that_cannot_load_it_withdraws_it() -> None:
    state = record(TWO, counts("new", 1, latency=(9, 9)))
    assert decide(state, T) is None
    assert decide(record(state, counts("new", 1, worker="w2", latency=(9, 9))), T) is not None
    unreadable = CountsRecord(
        worker="w2", version="new", announced=T + 1, stage="shadow", since=T, at=T, refused="ranker.onnx was changed"
    )
    found = decide(record(TWO, unreadable), T)
    assert found is not None
    assert (found.stage, "ranker.onnx was changed" in found.reason) == ("withdrawn", True)


def test_a_withdrawn_release_gives_way_to_the_one_before_and_may_be_announced_again() -> None:
    state = record(announced(("old", "live"), ("new", "live")), stage("new", "withdrawn", 1))
    assert state.live is not None
    assert state.live.version == "old"
    again = announce(state, told("new", "live"), T + 5, 5)
    assert again.live is not None
    assert again.live.version == "new"


RECORDS = st.one_of(
    st.builds(
        stage, st.sampled_from(["old", "new"]), st.sampled_from(["canary", "live", "withdrawn"]), st.integers(0, 1)
    ),
    st.builds(
        lambda worker, bad: counts("new", 1, worker=worker, errors=(300, bad)),
        st.sampled_from("ab"),
        st.integers(0, 300),
    ),
)


@given(st.lists(RECORDS, max_size=8), st.data())
def test_the_order_and_repeats_of_stages_change_nothing(
    records: list[StageRecord | CountsRecord], data: st.DataObject
) -> None:
    stages = [one for one in records if isinstance(one, StageRecord)]
    shuffled = data.draw(
        st.permutations(stages + data.draw(st.lists(st.sampled_from(stages)) if stages else st.just([])))
    )
    assert _serving(_fold(stages)) == _serving(_fold(shuffled))


@given(st.lists(RECORDS, max_size=12))
def test_compaction_changes_nothing(records: list[StageRecord | CountsRecord]) -> None:
    newest: dict[tuple[str, ...], StageRecord | CountsRecord] = {}
    for one in records:
        key = (one.worker,) if isinstance(one, CountsRecord) else (one.version, one.stage, str(one.announced))
        newest.pop(key, None)
        newest[key] = one
    whole, compacted = _fold(records), _fold(list(newest.values()))
    assert _serving(whole) == _serving(compacted)
    assert decide(whole, LATER) == decide(compacted, LATER)


@given(st.lists(RECORDS, max_size=12))
def test_a_decision_that_was_published_is_not_made_again_and_stages_never_go_back(
    records: list[StageRecord | CountsRecord],
) -> None:
    state = _fold(records)
    for _ in range(4):
        decision = decide(state, LATER)
        if decision is None:
            break
        before = {one.version: rollout.ORDER[one.stage] for one in state.rollouts}
        state = record(state, decision)
        after = {one.version: rollout.ORDER[one.stage] for one in state.rollouts}
        assert after[decision.version] > before[decision.version]
        assert all(after[version] >= before[version] for version in before)
    else:
        pytest.fail("decides for ever")


@given(st.floats(0.01, 0.98))
def test_the_share_of_a_canary_is_stable_and_grows_without_changing_whom_it_has(share: float) -> None:
    users = id_keys(f"user-{number}" for number in range(2_000))
    shown = in_canary(users, "v1", share)
    assert abs(shown.mean() - share) < 0.06
    assert (in_canary(users, "v1", share + 0.01) | ~shown).all()
    assert not in_canary(users, "v1", 0.0).any()


def test_another_release_is_shown_to_other_users() -> None:
    users = id_keys(f"user-{number}" for number in range(20_000))
    both = in_canary(users, "v1", 0.1) & in_canary(users, "v2", 0.1)
    assert abs(both.mean() - 0.01) < 0.003


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.002, 0.01, 0.5, 0.91]), st.integers(0, 2**32 - 1))
def test_looking_after_each_observation_raises_no_more_false_alarms_than_promised(tolerated: float, seed: int) -> None:
    """The mean of the evidence is at most 1 at any time, so that a threshold is crossed as seldom as promised."""
    bad = np.random.default_rng(seed).random((200, 120)) < tolerated
    evidence = [math.exp(log_evidence(int(row[:n].sum()), n, tolerated)) for row in bad for n in (120,)]
    assert np.median(evidence) < 1.5
    assert sum(value >= 1 / FALSE_ALARM for value in evidence) <= 2


@pytest.mark.parametrize(("tolerated", "n"), [(0.002, 12), (0.01, 10), (0.5, 8), (0.9, 7)])
def test_the_evidence_is_a_martingale_at_the_tolerated_rate(tolerated: float, n: int) -> None:
    whole = sum(
        math.comb(n, bad) * tolerated**bad * (1 - tolerated) ** (n - bad) * math.exp(log_evidence(bad, n, tolerated))
        for bad in range(n + 1)
    )
    assert whole == pytest.approx(1.0, rel=1e-9)


def test_evidence_grows_with_what_is_bad() -> None:
    values = [log_evidence(bad, 1_000, 0.5) for bad in range(0, 1_001, 50)]
    assert values == sorted(values)
    assert log_evidence(0, 10**6, 0.5) < -1_000


def _trial(guard: str, counted: tuple[int, int]) -> dict[str, Any]:
    return {guard: counted}


def _fold(records: Sequence[StageRecord | CountsRecord]) -> State:
    state = TWO
    for one in records:
        state = record(state, one)
    return state


def _serving(state: State) -> tuple[str | None, str | None, list[tuple[str, str]]]:
    live, candidate = state.live, state.candidate
    return (
        live.version if live else None,
        candidate.version if candidate else None,
        [(one.version, one.stage) for one in state.rollouts],
    )
