"""Releases on the topics: which there are and how far each has come; announced, promoted, withdrawn by hand."""

import time
from pathlib import Path
from typing import Literal

import msgspec

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.releases import decode_release, encode_release
from mmrec_stream.contracts.rollouts import StageRecord, decode_rollout, encode_rollout
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.releases import announcement, rollout
from mmrec_stream.releases.access import placed
from mmrec_stream.releases.rollout import Rollout, State
from mmrec_stream.releases.signing import trusted_keys
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

BY_HAND = "by hand"
"""The reason of a stage that a person has decided, where none is given."""


def read_state(settings: Settings) -> State:
    """What the topics say of all releases; records that cannot be read are passed over.

    Raises:
        UserError: no broker answers, or a topic does not exist.
    """
    topics = Topics.of(settings)
    state, _ = rollout.fold(rollout.EMPTY, "releases", read(settings, topics.releases))
    state, _ = rollout.fold(state, "rollouts", read(settings, topics.rollouts))
    return state


def announce_release(
    settings: Settings,
    path: Path,
    *,
    stage: Literal["shadow", "canary", "live"] = "shadow",
    share: float = 0.1,
    shadow_s: float = 30.0,
    canary_s: float = 600.0,
) -> str:
    """Verify a release, put it into the store if there is one, and tell the workers of it; returns its version.

    The broker has the announcement when this returns.

    Args:
        settings: where the brokers and the store are.
        path: the release's folder.
        stage: where it begins.
        share: of the users, while it is a canary.
        shadow_s: least time in shadow, s.
        canary_s: least time as a canary, s.

    Raises:
        UserError: the release does not verify, is not signed as it should be, or is the one that serves, a value is
            out of bounds, or the store does not take it or the broker the announcement.
    """
    told = announcement(path, trusted_keys(settings))
    told = msgspec.structs.replace(told, stage=stage, share=share, shadow_s=shadow_s, canary_s=canary_s)
    try:
        decode_release(encode_release(told))
    except UNREADABLE as error:
        raise UserError(f"this release cannot be announced so: {error}") from None
    live = read_state(settings).live
    if live is not None and live.version == told.version and stage != "live":
        raise UserError(f"release {told.version} is live; on trial again, it would leave everybody without it")
    value = encode_release(placed(told, path, settings))
    _send(settings, Topics.of(settings).releases, told.version, value)
    return told.version


def set_stage(
    settings: Settings, version: str | None, stage: Literal["canary", "live", "withdrawn"], reason: str = ""
) -> Rollout:
    """Bring a release to a stage by hand; returns what it was before.

    Args:
        settings: where the brokers are.
        version: which; where None, the release on trial, or for a withdrawal without a trial the live one.
        stage: where to.
        reason: why, for whoever asks later.

    Raises:
        UserError: there is no such release, it is past that stage, a later one has its place, or the reason is too
            long.
    """
    state = read_state(settings)
    if version is None:
        found = state.candidate or (state.live if stage == "withdrawn" else None)
        if found is None:
            raise UserError("no release is on trial; name one of `mmrec release list`")
    else:
        found = next((one for one in state.rollouts if one.version == version), None)
        if found is None:
            raise UserError(f"no release {version} is announced; `mmrec release list` shows those that are")
    if rollout.ORDER[found.stage] >= rollout.ORDER[stage]:
        raise UserError(f"release {found.version} is {state.standing(found)}; announce it again to begin anew")
    live = [one for one in state.rollouts if one.stage == "live"]
    if stage == "withdrawn" and live == [found]:
        raise UserError(f"release {found.version} is the only one that is live, and nothing could take its place")
    record = StageRecord(
        version=found.version,
        announced=found.announced,
        stage=stage,
        reason=reason or BY_HAND,
        at=int(time.time() * 1000),
    )
    value = encode_rollout(record)
    try:
        decode_rollout(value)
    except UNREADABLE as error:
        raise UserError(f"this cannot be kept with the release: {error}") from None
    after = rollout.record(state, record)
    reached = {"canary": after.candidate, "live": after.live, "withdrawn": found}[stage]
    if reached is None or reached.version != found.version:
        raise UserError(f"a later release has the place of {found.version}; announce it again to begin anew")
    _send(settings, Topics.of(settings).rollouts, f"stage/{found.version}/{stage}", value)
    return found


def _send(settings: Settings, topic: str, key: str, value: bytes) -> None:
    with BatchProducer(settings, idempotent=False) as producer:
        producer.send(topic, value, key=key.encode())
