"""What is well and what is not with a cluster as this product uses it, and what to do about it."""

import time
from collections.abc import Iterator, Mapping, Sequence

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster, TopicState
from mmrec_stream.kafka.plan import differences, uneven
from mmrec_stream.kafka.reader import Span, read, spans, tails
from mmrec_stream.operations.bounds import broker_findings, changelog_finding, replica_findings
from mmrec_stream.operations.findings import Finding, Level
from mmrec_stream.operations.placement import Placement, judge
from mmrec_stream.operations.rollouts import read_state
from mmrec_stream.releases import verify_release
from mmrec_stream.releases.access import opened
from mmrec_stream.releases.rollout import Rollout
from mmrec_stream.settings import Settings
from mmrec_stream.topics import MAX_BEHAVIOUR_TOPICS, Topics, TopicSpec, changelog_topic, topic_plan

SLOW_S = 60.0
"""How old the oldest unread event may be before it is worth a word: a restart with its restore takes less."""


def cluster_findings(settings: Settings, sample: int) -> Iterator[Finding]:
    """Check a cluster, from the ground up; what depends on something broken is left out.

    Args:
        settings: which cluster, topics and group.
        sample: newest records looked at in each partition of a behaviour topic.
    """
    cluster = Cluster(settings)
    try:
        brokers = cluster.brokers()
    except UserError as error:
        yield Finding(Level.BROKEN, "broker", str(error), "`mmrec broker` starts one to play with")
        return
    yield Finding(Level.OK, "broker", f"{settings.bootstrap} answers: {', '.join(brokers.values())}")
    yield from _security(settings)
    partitions = cluster.partitions()
    yield from broker_findings(settings, cluster.broker_config(), cluster.group_config(settings.app_id))
    plan = topic_plan(settings)
    states = cluster.describe(spec.name for spec in plan)
    topics = Topics.of(settings)
    changelog = changelog_topic(settings)
    yield from _topics(plan, states)
    yield from replica_findings(plan, states, len(brokers))
    yield from changelog_finding(
        settings, changelog in partitions, cluster.committed(settings.app_id, topics.behaviour)
    )
    yield from _foreign(settings, partitions)
    behaviour = [name for name in topics.behaviour if name in partitions]
    by_user = {name: partitions[name] for name in (*behaviour, changelog) if name in partitions}
    if broken := uneven(by_user):
        yield Finding(
            Level.BROKEN,
            "co-partitioning",
            f"a user's events lie on partitions of different numbers: {broken}",
            "make them equal: copy the topic that differs into one of ours with `mmrec repartition --from TOPIC`",
        )
    elif by_user:
        yield Finding(Level.OK, "co-partitioning", f"{len(by_user)} topics by user, {max(by_user.values())} partitions")
    for name in behaviour:
        yield _placement(settings, name, sample)
    if topics.releases in partitions and topics.rollouts in partitions:
        yield from _releases(settings, topics.releases)
    yield from _lag(cluster, settings, behaviour)
    if topics.dead_letters in partitions:
        yield _dead_letters(settings, topics.dead_letters)


def placement_finding(topic: str, found: Placement) -> Finding:
    """What a sample says of where a topic's records lie."""
    check = f"keys of {topic}"
    if not found.judged:
        detail = f"{found.sampled} records, none a valid event" if found.sampled else "empty"
        level = Level.NOTE if found.sampled else Level.OK
        return Finding(level, check, detail, "`mmrec tail dead-letters` says what is wrong" if found.sampled else "")
    if found.misplaced:
        return Finding(
            Level.BROKEN,
            check,
            f"{found.misplaced} of {found.judged} events lie on another partition than their user's: {found.cause} "
            f"({'; '.join(found.examples)})",
            f"put the producer right, or copy with `mmrec repartition --from {topic}`",
        )
    if found.other_key or found.keyless:
        return Finding(
            Level.NOTE,
            check,
            f"{found.other_key} of {found.judged} events have another key than the user id, {found.keyless} none; they "
            "lie right by chance or by an own partitioner",
            "key by user id",
        )
    return Finding(Level.OK, check, f"{found.judged} sampled events lie where murmur2 puts their users")


def _security(settings: Settings) -> Iterator[Finding]:
    hosts = {address.rsplit(":", 1)[0] for address in settings.bootstrap.split(",")}
    if settings.security_protocol == "PLAINTEXT" and not hosts <= {"127.0.0.1", "localhost", "[::1]"}:
        yield Finding(
            Level.NOTE,
            "security",
            "events travel unencrypted, and anyone who reaches the brokers can read and write them",
            "set MMREC_SECURITY_PROTOCOL=SASL_SSL with MMREC_SASL_USERNAME and MMREC_SASL_PASSWORD",
        )


def _topics(plan: Sequence[TopicSpec], states: Mapping[str, TopicState]) -> Iterator[Finding]:
    found = differences(plan, states)
    for difference in found:
        yield Finding(
            Level.BROKEN if difference.breaks else Level.NOTE,
            f"topic {difference.topic}",
            f"{difference.name}: {difference.found}, planned {difference.wanted}"
            if difference.aspect != "missing"
            else "does not exist",
            difference.remedy,
        )
    if not found:
        yield Finding(Level.OK, "topics", f"all {len(plan)} as planned")


def _foreign(settings: Settings, partitions: Mapping[str, int]) -> Iterator[Finding]:
    topics = Topics.of(settings)
    for name in topics.foreign:
        if name not in partitions:
            yield Finding(
                Level.BROKEN,
                f"topic {name}",
                "is named in MMREC_BEHAVIOUR_TOPICS and does not exist",
                "create it, or take it out of MMREC_BEHAVIOUR_TOPICS",
            )
    if len(topics.behaviour) > MAX_BEHAVIOUR_TOPICS:
        yield Finding(
            Level.BROKEN,
            "behaviour topics",
            f"{len(topics.behaviour)}, and a profile keeps the offsets of {MAX_BEHAVIOUR_TOPICS}",
            "bring several foreign topics together with `mmrec repartition`",
        )


def _placement(settings: Settings, topic: str, sample: int) -> Finding:
    there = spans(settings, topic)
    ends = {partition: span.high for partition, span in there.items()}
    newest = read(settings, topic, there, tails(there, sample), ends)
    return placement_finding(topic, judge(newest, len(there), settings.max_event_bytes))


def _releases(settings: Settings, topic: str) -> Iterator[Finding]:
    """Verify what visitors see, and what is on trial beside it."""
    state = read_state(settings)
    if state.live is None:
        yield Finding(Level.NOTE, "release", f"none is live on {topic}: lists are the popular items", "`mmrec train`")
    else:
        yield _release(settings, "release", state.live, "workers keep the release that they have; announce another")
    if state.candidate is not None:
        remedy = "workers withdraw it; announce it again when it is whole"
        yield _release(settings, "release on trial", state.candidate, remedy)


def _release(settings: Settings, check: str, found: Rollout, remedy: str) -> Finding:
    told = found.announcement
    try:
        with opened(told, settings) as (path, expected):
            verify_release(path, expected)
    except UserError as error:
        return Finding(Level.BROKEN, check, str(error), remedy)
    return Finding(Level.OK, check, f"{told.version} ({found.stage}) at {told.uri}, every hash as announced")


def _lag(cluster: Cluster, settings: Settings, behaviour: list[str]) -> Iterator[Finding]:
    group = settings.app_id
    committed = cluster.committed(group, behaviour)
    if not committed:
        yield Finding(Level.NOTE, f"group {group}", "has committed nothing: no worker has run yet", "`mmrec worker`")
        return
    lag, oldest = 0, 0.0
    for topic in behaviour:
        for partition, span in spans(settings, topic).items():
            next_offset = committed.get((topic, partition), span.low)
            place = f"{topic}, partition {partition}"
            if next_offset > span.high:
                yield Finding(
                    Level.BROKEN,
                    f"group {group}",
                    f"{place}: committed {next_offset:,}, and the log ends at {span.high:,}: the topic was made anew",
                    "choose a new MMREC_APP_ID, as profiles know the old offsets too",
                )
            elif next_offset < span.low:
                yield Finding(
                    Level.BROKEN,
                    f"group {group}",
                    f"{place}: {span.low - next_offset:,} events were deleted by retention before a worker read them",
                    "lengthen retention.ms, or run more workers",
                )
            elif next_offset < span.high:
                lag += span.high - next_offset
                oldest = max(oldest, _age_s(settings, topic, partition, next_offset, span))
    slow = oldest > SLOW_S
    yield Finding(
        Level.NOTE if slow else Level.OK,
        f"group {group}",
        f"{lag:,} events to be read" + (f", the oldest came {oldest:,.0f} s ago" if lag else ""),
        "is a worker running? More workers share the work, one a partition at most" if slow else "",
    )


def _age_s(settings: Settings, topic: str, partition: int, offset: int, span: Span) -> float:
    """How long ago the record at `offset`, or the next one there is, came into the log, s."""
    for message in read(settings, topic, [partition], {partition: offset}, {partition: span.high}):
        return float(time.time() - message.timestamp()[1] / 1000)
    return 0.0


def _dead_letters(settings: Settings, topic: str) -> Finding:
    letters: set[bytes] = set()
    again: set[bytes] = set()
    for message in read(settings, topic):
        (letters if message.value() is not None else again).add(message.key())
    open_letters = len(letters - again)
    if not open_letters:
        return Finding(Level.OK, "dead letters", "none to look after")
    return Finding(
        Level.NOTE,
        "dead letters",
        f"{open_letters:,} inputs could not be used",
        "`mmrec tail dead-letters --from-start` shows them, `mmrec redrive` publishes them again",
    )
