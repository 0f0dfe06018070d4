"""What the cluster has: topics and their configuration, group offsets; and making topics that are missing."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from mmrec_stream.errors import NoBrokerError, UserError
from mmrec_stream.kafka.clients import client_config, open_consumer
from mmrec_stream.kafka.reader import PASSING
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec

ANSWER_S = 5.0
"""How long a broker may take to say which topics there are: it answers in milliseconds, and a person waits."""

TIMEOUT_S = 15.0
"""How long a request to the cluster may take: a controller that has just been elected answers within seconds."""

_COORDINATOR_COMES = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)
"""What a group's coordinator answers while it is being elected or reads its log: ask again."""


@dataclass(frozen=True)
class TopicState:
    """A topic as the cluster has it."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    """Every configuration value that the broker tells, defaults included."""


class Cluster:
    """The administrative side of a cluster. Keep the object while results are awaited."""

    def __init__(self, settings: Settings) -> None:
        """Prepare a client; nothing is sent yet."""
        self.bootstrap = settings.bootstrap
        self._settings = settings
        self._admin = AdminClient(client_config(settings))

    def partitions(self, timeout_s: float = ANSWER_S) -> dict[str, int]:
        """The topics that exist, with their numbers of partitions.

        Raises:
            UserError: no broker answers.
        """
        return {name: len(topic.partitions) for name, topic in self._metadata(timeout_s).topics.items()}

    def brokers(self, timeout_s: float = ANSWER_S) -> dict[int, str]:
        """The brokers, `host:port` by id.

        Raises:
            UserError: none answers.
        """
        return {node: f"{b.host}:{b.port}" for node, b in self._metadata(timeout_s).brokers.items()}

    def describe(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Those of the named topics that exist, as the cluster has them.

        Raises:
            UserError: no broker answers, or it does not tell a topic's configuration.
        """
        wanted = set(names)
        # The whole list, not the topics by name: asking the embedded broker for a name creates the topic.
        there = {name: topic for name, topic in self._metadata(ANSWER_S).topics.items() if name in wanted}
        if not there:
            return {}
        futures = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in there], request_timeout=TIMEOUT_S
        )
        configs = {resource.name: _result(future) for resource, future in futures.items()}
        return {
            name: TopicState(
                name,
                len(topic.partitions),
                min((len(p.replicas) for p in topic.partitions.values()), default=0),
                {key: entry.value for key, entry in configs[name].items() if entry.value is not None},
            )
            for name, topic in there.items()
        }

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create topics; those that exist are left as they are.

        Returns:
            The names created.

        Raises:
            UserError: the cluster refused one; says which and why.
        """
        if not specs:
            return []
        futures = self._admin.create_topics(
            [
                NewTopic(
                    spec.name, num_partitions=spec.partitions, replication_factor=spec.replication, config=spec.config
                )
                for spec in specs
            ],
            operation_timeout=TIMEOUT_S,
            request_timeout=TIMEOUT_S,
        )
        created = []
        for name, future in futures.items():
            try:
                future.result()
                created.append(name)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise _refusal(error)(f"topic {name} cannot be created: {error.args[0].str()}") from error
        self._await_topics(created)
        return created

    def broker_config(self) -> dict[str, str]:
        """The configuration of one broker, defaults included; empty where it tells none, as the embedded one."""
        try:
            return self._config(ResourceType.BROKER, str(min(self.brokers())))
        except UserError:
            return {}

    def group_config(self, group: str) -> dict[str, str]:
        """What is in force for a consumer group; empty where the brokers know no such thing."""
        try:
            return self._config(ResourceType.GROUP, group)
        except UserError:
            return {}

    def speaks_consumer_protocol(self) -> bool:
        """Whether the brokers offer the group protocol of KIP-848."""
        return offers_consumer_protocol(self.broker_config())

    def set_config(self, topic: str, config: Mapping[str, str]) -> None:
        """Set configuration values of one topic; the others stay.

        Raises:
            UserError: the cluster refused.
        """
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        for future in self._admin.incremental_alter_configs([resource], request_timeout=TIMEOUT_S).values():
            _result(future)
        deadline = monotonic() + TIMEOUT_S
        while config.items() - self.describe([topic])[topic].config.items():
            if monotonic() > deadline:
                raise UserError(f"{topic}: the brokers do not show the new configuration after {TIMEOUT_S:.0f} s")
            self._admin.poll(0.02)

    def committed(self, group: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The offsets that a consumer group has committed in topics that exist, by topic and partition.

        Raises:
            UserError: no broker answers, or it refuses.
        """
        there = self.partitions()
        places = [TopicPartition(name, partition) for name in topics for partition in range(there.get(name, 0))]
        # Not the admin client's list_consumer_group_offsets: librdkafka crashes the process when the coordinator is
        # not ready (https://github.com/confluentinc/librdkafka/issues/5040). Asking does not join the group.
        with closing(open_consumer(self._settings, group)) as consumer:
            deadline = monotonic() + TIMEOUT_S
            while True:
                try:
                    answers = consumer.committed(places, timeout=TIMEOUT_S) if places else []
                    return {(at.topic, at.partition): at.offset for at in answers if at.offset >= 0}
                except KafkaException as error:
                    if error.args[0].code() not in _COORDINATOR_COMES or monotonic() > deadline:
                        raise _refusal(error)(f"group {group}: the cluster refused: {error.args[0].str()}") from error
                consumer.poll(0.05)

    def _config(self, kind: ResourceType, name: str) -> dict[str, str]:
        resource = ConfigResource(kind, name)
        answers = self._admin.describe_configs([resource], request_timeout=TIMEOUT_S)
        return {key: entry.value for key, entry in _result(answers[resource]).items() if entry.value is not None}

    def _await_topics(self, names: Sequence[str]) -> None:
        """Wait until the brokers know of topics that the controller has made: what asks for them next needs it."""
        deadline = monotonic() + TIMEOUT_S
        while not all(_led(self._metadata(TIMEOUT_S).topics.get(name)) for name in names):
            if monotonic() > deadline:
                raise NoBrokerError(f"the brokers do not know of {', '.join(names)} after {TIMEOUT_S:.0f} s")
            self._admin.poll(0.02)

    def _metadata(self, timeout_s: float) -> Any:
        try:
            return self._admin.list_topics(timeout=timeout_s)
        except KafkaException as error:
            raise NoBrokerError(
                f"no broker answers at {self.bootstrap} ({error.args[0].str()}): start one, or set MMREC_BOOTSTRAP"
            ) from error


def offers_consumer_protocol(broker: Mapping[str, str]) -> bool:
    """Whether a broker with this configuration offers the group protocol of KIP-848."""
    return "consumer" in broker.get("group.coordinator.rebalance.protocols", "").split(",")


def _led(topic: Any) -> bool:
    """Whether a topic is there and each of its partitions has a leader."""
    return topic is not None and all(partition.leader >= 0 for partition in topic.partitions.values())


def _result(future: Any) -> Any:
    try:
        return future.result()
    except KafkaException as error:
        raise _refusal(error)(f"the cluster refused: {error.args[0].str()}") from error


def _refusal(error: KafkaException) -> type[UserError]:
    """Whether a refusal says more of the moment than of the question."""
    return NoBrokerError if error.args[0].code() in PASSING | _COORDINATOR_COMES else UserError
