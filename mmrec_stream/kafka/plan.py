"""The topics as they should be beside the topics as they are: what differs, how bad it is, and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import TopicState
from mmrec_stream.topics import TopicSpec

Aspect = Literal["missing", "partitions", "replication", "config"]


@dataclass(frozen=True)
class Difference:
    """One thing about a topic that is not as planned."""

    topic: str
    aspect: Aspect
    name: str
    """The configuration key, or the aspect."""
    wanted: str
    found: str
    remedy: str
    breaks: bool
    """Whether the stream goes wrong with it; otherwise it is a choice that someone may have made."""


def differences(plan: Sequence[TopicSpec], there: Mapping[str, TopicState]) -> list[Difference]:
    """What differs between the plan and the cluster."""
    return [
        difference
        for spec in plan
        for difference in (_missing(spec) if spec.name not in there else _compare(spec, there[spec.name]))
    ]


def creatable(plan: Sequence[TopicSpec], there: Mapping[str, TopicState]) -> list[TopicSpec]:
    """The missing topics, provided that creating them does not leave users on two partitions.

    Raises:
        UserError: topics by user exist with another number of partitions than the missing ones would get.
    """
    missing = [spec for spec in plan if spec.name not in there]
    for spec in plan:
        if spec.key != "user id" or spec.name not in there:
            continue
        wrong = next((m for m in missing if m.key == "user id" and m.partitions != there[spec.name].partitions), None)
        if wrong:
            found = there[spec.name].partitions
            raise UserError(
                f"{spec.name} exists with {found} partitions, so {wrong.name} cannot have {wrong.partitions}: a user's "
                f"events would lie on different partitions. Set MMREC_PARTITIONS={found}"
            )
    return missing


def uneven(partitions: Mapping[str, int]) -> str | None:
    """What is wrong when topics that are keyed by user differ in partitions; None where they do not.

    Args:
        partitions: their number by topic.
    """
    if len(set(partitions.values())) <= 1:
        return None
    return ", ".join(f"{topic} has {count}" for topic, count in sorted(partitions.items(), key=lambda pair: pair[1]))


def _missing(spec: TopicSpec) -> list[Difference]:
    return [Difference(spec.name, "missing", "missing", "there", "missing", "create it: `mmrec topics`", breaks=True)]


def _compare(spec: TopicSpec, state: TopicState) -> list[Difference]:
    found = []
    if state.partitions != spec.partitions:
        found.append(
            Difference(
                spec.name,
                "partitions",
                "partitions",
                str(spec.partitions),
                str(state.partitions),
                _partition_remedy(spec, state.partitions),
                breaks=spec.key == "user id",
            )
        )
    if state.replication != spec.replication:
        found.append(
            Difference(
                spec.name,
                "replication",
                "replication",
                str(spec.replication),
                str(state.replication),
                f"set MMREC_REPLICATION={state.replication}, or move replicas with Kafka's kafka-reassign-partitions",
                breaks=False,
            )
        )
    for key, wanted in spec.config.items():
        have = state.config.get(key, "")
        if have != wanted:
            found.append(
                Difference(
                    spec.name,
                    "config",
                    key,
                    wanted,
                    have or "unset",
                    "`mmrec topics --alter` sets it; or leave it, if it was meant",
                    # A changelog or catalogue that is not compacted loses what is old, or grows without end.
                    breaks=key == "cleanup.policy",
                )
            )
    return found


def _partition_remedy(spec: TopicSpec, found: int) -> str:
    if spec.key != "user id":
        return "nothing depends on it"
    if found < spec.partitions:
        return (
            f"set MMREC_PARTITIONS={found}. More partitions move users, whose profiles stay behind: for more, choose a "
            "new MMREC_PREFIX and MMREC_APP_ID, and copy with `mmrec repartition`"
        )
    return f"set MMREC_PARTITIONS={found}"
