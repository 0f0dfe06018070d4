"""What the brokers allow and promise, beside what workers ask of them. Each finding says what to set.

What workers ask is told by `streams` to the broker; the numbers are repeated here, as a check stands above the worker.
"""

from collections.abc import Iterator, Mapping, Sequence

from mmrec_stream.kafka.admin import TopicState, offers_consumer_protocol
from mmrec_stream.operations.findings import Finding, Level
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec, changelog_topic

CLASSIC_SESSION_MS = 6_000
"""The session that a worker without a name asks for under the classic protocol."""

STATIC_SESSION_MS = 30_000
"""The same for a worker with a name."""

SHORTEST_SESSION_MS = 6_000
"""A worker publishes lists for 3 s after a proof of membership and tries each for 4 s: nobody else may have its
partitions by then."""

LONG_SESSION_MS = 10_000
"""A killed worker's partitions stand still for the session: longer than this, visitors notice."""

HEARTBEATS = 3
"""Heartbeats that fit into a session, so that two may be lost."""

TRANSACTION_MS = 60_000
"""The timeout that changelog writers ask for."""


def worker_protocol(settings: Settings, offered: bool) -> str:
    """Which group protocol a worker with these settings speaks.

    Args:
        settings: of the worker.
        offered: whether the brokers offer `consumer` (KIP-848).
    """
    if settings.group_protocol != "auto":
        return settings.group_protocol
    return "consumer" if offered and not settings.worker_name else "classic"


def broker_findings(settings: Settings, broker: Mapping[str, str], group: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the brokers take what workers will ask for: group protocol, session, transactions.

    Args:
        settings: of the workers.
        broker: a broker's configuration; empty if it tells none.
        group: the configuration in force for the workers' group; empty if the brokers have none.
    """
    offered = offers_consumer_protocol(broker)
    protocol = worker_protocol(settings, offered)
    check = "group protocol"
    if protocol == "consumer" and not offered:
        yield Finding(
            Level.BROKEN,
            check,
            "MMREC_GROUP_PROTOCOL=consumer, and the brokers do not say that they offer it",
            "set MMREC_GROUP_PROTOCOL=auto, or group.coordinator.rebalance.protocols=classic,consumer on the brokers",
        )
    elif protocol == "consumer" and settings.worker_name:
        yield Finding(
            Level.NOTE,
            check,
            f"consumer, with MMREC_WORKER_NAME={settings.worker_name}: a worker that was killed and comes back under "
            "its name is refused until its earlier session has ended",
            "set MMREC_GROUP_PROTOCOL=auto: workers with a name then speak the classic protocol",
        )
    elif not broker:
        yield Finding(Level.OK, check, f"{protocol}; the broker does not tell its bounds")
    elif protocol == "consumer":
        yield _consumer_session(settings, broker, group)
    else:
        yield _classic_session(settings, broker)
    yield from _transactions(broker)


def replica_findings(plan: Sequence[TopicSpec], states: Mapping[str, TopicState], brokers: int) -> Iterator[Finding]:
    """Whether confirmed records outlive the loss of a broker, and whether writing does.

    Args:
        plan: our topics. What it sets itself is left to the comparison with it.
        states: those that exist.
        brokers: how many there are.
    """
    single, loose, tight = [], [], []
    for spec in plan:
        state = states.get(spec.name)
        least = state.config.get("min.insync.replicas") if state else None
        if state is None or least is None:
            continue
        if state.replication == 1 and brokers > 1:
            single.append(spec.name)
        if state.replication >= 3 and int(least) < 2 and "min.insync.replicas" not in spec.config:
            loose.append(spec.name)
        if int(least) > 1 and int(least) >= state.replication:
            tight.append(spec.name)
    if single:
        yield Finding(
            Level.NOTE,
            "replicas",
            f"one copy on {brokers} brokers, lost with its broker: {', '.join(single)}",
            "set MMREC_REPLICATION=3 before topics are created; afterwards Kafka's kafka-reassign-partitions",
        )
    if loose:
        yield Finding(
            Level.NOTE,
            "replicas",
            f"min.insync.replicas is 1 of 3: what was confirmed can be lost with one broker: {', '.join(loose)}",
            "set min.insync.replicas=2: `MMREC_REPLICATION=3 mmrec topics --alter`",
        )
    if tight:
        yield Finding(
            Level.BROKEN,
            "replicas",
            f"min.insync.replicas asks for every copy: with one broker away nothing can be written: {', '.join(tight)}",
            "set min.insync.replicas to one less than the copies, or move to three copies",
        )


def changelog_finding(settings: Settings, there: bool, committed: Mapping[tuple[str, int], int]) -> Iterator[Finding]:
    """Whether profiles would begin empty in the middle of what was read.

    Args:
        settings: whose changelog.
        there: whether it exists.
        committed: the group's next offset of each topic and partition.
    """
    read = [place for place, offset in committed.items() if offset > 0]
    if not there and read:
        yield Finding(
            Level.BROKEN,
            "changelog",
            f"{changelog_topic(settings)} is gone, and group {settings.app_id} has read {len(read)} partitions: "
            "workers do not start, as profiles would begin empty there",
            "bring the topic back, or begin anew with another MMREC_APP_ID, which reads all that is retained; not "
            "`mmrec topics`, which refuses it too",
        )


def _consumer_session(settings: Settings, broker: Mapping[str, str], group: Mapping[str, str]) -> Finding:
    def in_force(name: str) -> int | None:
        value = group.get(f"consumer.{name}") or broker.get(f"group.consumer.{name}")
        return int(value) if value else None

    session, heartbeat = in_force("session.timeout.ms"), in_force("heartbeat.interval.ms")
    if session is None or heartbeat is None:
        return Finding(Level.OK, "group protocol", "consumer; the broker does not tell its session timeout")
    detail = f"consumer, session {session / 1000:g} s, heartbeat {heartbeat / 1000:g} s"
    wanted = f"consumer.session.timeout.ms={SHORTEST_SESSION_MS} and consumer.heartbeat.interval.ms=1000 for group "
    remedy = f"set {wanted}{settings.app_id} (kafka-configs --entity-type groups --entity-name {settings.app_id})"
    least = int(broker.get("group.consumer.min.session.timeout.ms", SHORTEST_SESSION_MS))
    least_beat = int(broker.get("group.consumer.min.heartbeat.interval.ms", 1000))
    if least > SHORTEST_SESSION_MS or least_beat > 1000:
        remedy = (
            f"allow it on the brokers (group.consumer.min.session.timeout.ms={SHORTEST_SESSION_MS}, "
            f"group.consumer.min.heartbeat.interval.ms=1000), then {remedy}; or set MMREC_GROUP_PROTOCOL=classic, "
            "whose session is 6 s"
        )
    if session < SHORTEST_SESSION_MS:
        return Finding(
            Level.BROKEN,
            "group protocol",
            f"{detail}: a worker that was frozen for longer could publish lists after the next owner's",
            remedy,
        )
    if heartbeat * HEARTBEATS > session:
        return Finding(Level.NOTE, "group protocol", f"{detail}: two lost heartbeats end a membership", remedy)
    if session > LONG_SESSION_MS:
        return Finding(
            Level.NOTE,
            "group protocol",
            f"{detail}: a killed worker's partitions stand still for {session / 1000:g} s",
            remedy,
        )
    return Finding(Level.OK, "group protocol", detail)


def _classic_session(settings: Settings, broker: Mapping[str, str]) -> Finding:
    session = STATIC_SESSION_MS if settings.worker_name else CLASSIC_SESSION_MS
    least = int(broker.get("group.min.session.timeout.ms", session))
    most = int(broker.get("group.max.session.timeout.ms", session))
    detail = f"classic, session {session / 1000:g} s"
    if least <= session <= most:
        return Finding(Level.OK, "group protocol", detail)
    name, value = ("min", least) if session < least else ("max", most)
    return Finding(
        Level.BROKEN,
        "group protocol",
        f"{detail}, and the brokers take {least / 1000:g} to {most / 1000:g} s: they refuse every worker",
        f"set group.{name}.session.timeout.ms={session} on the brokers (it is {value})",
    )


def _transactions(broker: Mapping[str, str]) -> Iterator[Finding]:
    longest = int(broker.get("transaction.max.timeout.ms", TRANSACTION_MS))
    if longest < TRANSACTION_MS:
        yield Finding(
            Level.BROKEN,
            "transactions",
            f"the brokers allow {longest / 1000:g} s, and changelog writers ask for {TRANSACTION_MS / 1000:g} s: they "
            "are refused, and no partition is served",
            f"set transaction.max.timeout.ms={TRANSACTION_MS} or more on the brokers",
        )
    elif broker:
        yield Finding(Level.OK, "transactions", f"up to {longest / 1000:g} s")
