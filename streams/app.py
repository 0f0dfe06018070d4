"""The Faust app: settings in, a worker out. `faust -A streams.app worker` runs it, and so does `mmrec worker`."""

import asyncio
import logging
from typing import Any, cast

import faust
from faust.types import TransportT

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.plan import ensure_topics
from mmrec_stream.settings import Settings, load_settings
from mmrec_stream.topics import MAX_BEHAVIOUR_TOPICS, Topics, changelog_topic
from streams.agents import behaviour
from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.pipeline import Pipeline
from streams.recovery import ProfileTableManager
from streams.serving import Serving
from streams.store import ProfileStore, ProfileTable
from streams.transport import MODE_LOG, ChunkTransport
from streams.web import WorkerWeb

SESSION_TIMEOUT_S = 6.0
"""After how long without a heartbeat the group takes a worker for dead. Its partitions stand still for as long, so
short; below 6 s (Kafka's own lower bound on brokers) a long pause of a busy machine would count as death."""

HEARTBEAT_S = 1.5
"""A quarter of the session, so that three may be lost. It is also how soon a worker hears of a rebalance."""

REBALANCE_TIMEOUT_S = 10.0
"""How long the group waits for a member to hand over. Handing over takes `pipeline.SETTLE_S` and a commit."""

CLOSE_S = 10.0
"""How long a stopping worker waits for what it has sent to be confirmed."""

log = logging.getLogger(__name__)


class StreamApp(faust.App):
    """A worker: Faust's membership and agents around the pipeline."""

    logger = MODE_LOG

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topic_names = Topics.of(settings)
        self.changelog = changelog_topic(settings)
        self.metrics = Metrics()
        self._held: set[int] = set()
        self._ready = False
        super().__init__(
            settings.app_id,
            broker=[f"kafka://{server}" for server in settings.bootstrap.split(",")],
            broker_credentials=_credentials(settings),
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
            broker_commit_interval=1.0,
            consumer_auto_offset_reset="earliest",
            stream_buffer_maxsize=settings.partitions,  # one chunk of each is handed over at a time
            stream_recovery_delay=0.0,
            stream_wait_empty=True,
            table_standby_replicas=0,
            topic_partitions=settings.partitions,
            topic_replication_factor=settings.replication,
            topic_allow_declare=False,  # topics are created by `topic_plan`, with their own retention
            topic_disable_leader=True,
            producer_partitioner=None,
            store="memory://",
            web_enabled=False,  # Faust's own would serve the tables to everybody
            TableManager=ProfileTableManager,
            Table=ProfileTable,
        )
        self.table = self.Table("profiles", partitions=settings.partitions, default=None)
        behaviour.register(self)

    @property
    def store(self) -> ProfileStore:
        """The profiles of the partitions that this worker holds."""
        return cast("ProfileStore", self.table.data)

    async def on_first_start(self) -> None:
        """Before anything is consumed: see that the topics are there, load the catalogue and the release."""
        await super().on_first_start()
        await asyncio.to_thread(ensure_topics, self.settings)
        self.outbox = Outbox(self.settings, self._on_undelivered)
        self.serving = Serving(self.settings, self.metrics)
        await asyncio.to_thread(self.serving.start)
        self.pipeline = Pipeline(
            self.settings,
            self.store,
            self.serving.catalogue,
            self.serving.popularity,
            self.serving.recommender,
            self.outbox,
            self.metrics,
        )
        self.worker_web = WorkerWeb(self)
        await self.worker_web.start()
        self.add_future(self.outbox.run())
        self.add_future(self.pipeline.recommend_forever())

    async def on_stop(self) -> None:
        """After the consumer has stopped: wait for confirmations, close."""
        await super().on_stop()
        if hasattr(self, "worker_web"):
            await self.worker_web.stop()
            self.pipeline.close()
            await asyncio.to_thread(self.outbox.close, CLOSE_S)
            await asyncio.to_thread(self.serving.stop)

    async def settle(self) -> None:
        """Before partitions are given up: finish or abandon what is in flight."""
        if hasattr(self, "pipeline"):
            await self.pipeline.settle()

    async def pace(self) -> None:
        """Before more is fetched: see that lists keep up."""
        if hasattr(self, "pipeline"):
            await self.pipeline.pace()

    def on_rebalance_start(self) -> None:
        """Note that nothing is served for a moment."""
        self._ready = False
        super().on_rebalance_start()

    def on_ready(self, held: set[int]) -> None:
        """The profiles of these partitions are complete, and their events are being consumed."""
        self._held, self._ready = held, True
        log.info("ready: partitions %s, %d profiles", ", ".join(map(str, sorted(held))) or "none", len(self.store))

    def status(self) -> dict[str, Any]:
        """What the health page says."""
        return {
            "ready": self._ready,
            "partitions": sorted(self._held),
            "profiles": len(self.store),
            "release": self.serving.recommender.release,
            "open_chunks": self.pipeline.open_chunks,
            "lists_due": self.pipeline.lists_due,
            "unconfirmed": len(self.outbox),
            "positions": {f"{topic}/{number}": at for (topic, number), at in sorted(self.metrics.positions.items())},
        }

    def observe(self) -> None:
        """Bring the gauges up to date."""
        self.metrics.profiles.set(len(self.store))
        self.metrics.partitions.set(len(self._held))
        self.metrics.due.set(self.pipeline.lists_due)
        self.metrics.unconfirmed.set(len(self.outbox))

    def _create_directories(self) -> None:
        """Nothing is kept on this machine: the profiles live in the changelog."""

    def _new_transport(self) -> TransportT:
        return ChunkTransport(self.conf.broker_consumer, self)

    def _on_undelivered(self, reason: str) -> None:
        log.error("%s: the worker stops; nothing that depends on it was committed", reason)
        self.add_future(self.crash(RuntimeError(reason)))


def create_app(settings: Settings) -> StreamApp:
    """A worker's app.

    Raises:
        UserError: the settings name more behaviour topics than a profile can keep apart.
    """
    count = len(Topics.of(settings).behaviour)
    if count > MAX_BEHAVIOUR_TOPICS:
        raise UserError(
            f"MMREC_BEHAVIOUR_TOPICS: {count} behaviour topics in all, a profile keeps the offsets of "
            f"{MAX_BEHAVIOUR_TOPICS}; bring some together with `mmrec repartition`"
        )
    return StreamApp(settings)


def _credentials(settings: Settings) -> Any:
    if settings.security_protocol == "PLAINTEXT":
        return None
    context = None
    if settings.security_protocol.endswith("SSL"):
        import ssl

        context = ssl.create_default_context(cafile=str(settings.ssl_ca) if settings.ssl_ca else None)
    if not settings.security_protocol.startswith("SASL"):
        return faust.SSLCredentials(context)
    if settings.sasl_username is None or settings.sasl_password is None:
        raise UserError(f"{settings.security_protocol} needs MMREC_SASL_USERNAME and MMREC_SASL_PASSWORD")
    return faust.SASLCredentials(
        username=settings.sasl_username,
        password=settings.sasl_password.get_secret_value(),
        mechanism=settings.sasl_mechanism,
        ssl_context=context,
    )


def __getattr__(name: str) -> Any:
    """`app` is made when it is first asked for, so that importing this module reads no settings."""
    if name == "app":
        globals()["app"] = app = create_app(load_settings())
        return app
    raise AttributeError(name)
