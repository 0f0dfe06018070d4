"""The topics as they should be beside the topics as they are: what differs, how bad it is, what to do; and doing it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster, TopicState
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, TopicSpec, changelog_topic, topic_plan

log = logging.getLogger(__name__)

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


def ensure_topics(settings: Settings) -> list[str]:
    """Create those of our topics that are missing, and see that a user has one partition number on all of them.

    Returns:
        The names created.

    Raises:
        UserError: no broker answers or it refuses, a foreign topic is missing, or the numbers of partitions differ; of
            topics that would differ, none is created.
    """
    created = create_missing(settings)
    _check_partitions(settings, Cluster(settings).partitions())
    return created


def create_missing(settings: Settings) -> list[str]:
    """Create those of our topics that are missing, and touch none that is there.

    Returns:
        The names created.

    Raises:
        UserError: no broker answers or it refuses, the new topics would leave users on two partitions, or the changelog
            is gone and the workers' group has read on.
    """
    cluster = Cluster(settings)
    missing = creatable(topic_plan(settings), cluster.partitions())
    _check_changelog(settings, cluster, missing)
    created = cluster.create(missing)
    if created:
        log.info("created topics: %s", ", ".join(created))
    return created


def differences(plan: Sequence[TopicSpec], there: Mapping[str, TopicState]) -> list[Difference]:
    """What differs between the plan and the cluster."""
    return [
        difference
        for spec in plan
        for difference in (_missing(spec) if spec.name not in there else _compare(spec, there[spec.name]))
    ]


def creatable(plan: Sequence[TopicSpec], there: Mapping[str, int]) -> list[TopicSpec]:
    """The missing topics, provided that creating them does not leave users on two partitions.

    Args:
        plan: all topics as they should be.
        there: the cluster's topics with their numbers of partitions.

    Raises:
        UserError: topics by user exist with another number of partitions than the missing ones would get.
    """
    missing = [spec for spec in plan if spec.name not in there]
    for spec in plan:
        if spec.key != "user id" or spec.name not in there:
            continue
        wrong = next((m for m in missing if m.key == "user id" and m.partitions != there[spec.name]), None)
        if wrong:
            found = there[spec.name]
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


def _check_changelog(settings: Settings, cluster: Cluster, missing: Sequence[TopicSpec]) -> None:
    """See that a new changelog does not begin in the middle of what was read: the rest would be in no profile."""
    changelog = changelog_topic(settings)
    if changelog not in {spec.name for spec in missing}:
        return
    read = cluster.committed(settings.app_id, Topics.of(settings).behaviour)
    if behind := [f"{topic}[{partition}]" for (topic, partition), offset in sorted(read.items()) if offset > 0]:
        raise UserError(
            f"changelog {changelog} is gone, and group {settings.app_id} has read {behind[0]} and {len(behind) - 1} "
            "more: profiles would begin empty there. Bring the topic back, or begin anew with another MMREC_APP_ID, "
            "which reads all that is retained"
        )


def _check_partitions(settings: Settings, there: Mapping[str, int]) -> None:
    """See that what is keyed by user, foreign topics and changelog included, has the partitions that are set.

    Args:
        settings: which topics, and how many partitions.
        there: the cluster's topics with their numbers of partitions.

    Raises:
        UserError: a topic is missing, or has another number.
    """
    for topic in (*Topics.of(settings).behaviour, changelog_topic(settings)):
        found = there.get(topic)
        if found is None:
            raise UserError(f"topic {topic} does not exist: create it, or take it out of MMREC_BEHAVIOUR_TOPICS")
        if found != settings.partitions:
            raise UserError(
                f"topic {topic} has {found} partitions and MMREC_PARTITIONS is {settings.partitions}: a user's events "
                "would lie apart from the profile; set MMREC_PARTITIONS to what the topics have"
            )


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
