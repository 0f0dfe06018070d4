"""The Faust app: settings in, a worker out. `faust -A streams.app worker` runs it, and so does `mmrec worker`."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import faust
from faust.types import TransportT

from mmrec_stream.errors import NoBrokerError, UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.plan import ensure_topics
from mmrec_stream.processes import keep_what_is_loaded
from mmrec_stream.settings import Settings, load_settings
from mmrec_stream.topics import MAX_BEHAVIOUR_TOPICS, Topics, changelog_topic
from streams import behaviour
from streams.assignment import Assignment
from streams.driver import MODE_LOG, ChunkTransport, ProfileTableManager
from streams.group import GroupClient
from streams.lists import Lists
from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.pipeline import Pipeline
from streams.serving import Serving
from streams.standbys import Standbys
from streams.store import ProfileTable
from streams.watch import Watch
from streams.web import WorkerWeb

CLOSE_S = 2.0
"""How long a stopping worker waits for lists that it has sent to be confirmed, after its partitions are handed over."""

GIVE_UP_S = 20.0
"""How long a worker that ends by itself may take for it: handing over, and the timeouts of what hangs."""

SAY_S = 10.0
"""How often a worker that waits for a broker says so."""

log = logging.getLogger(__name__)


class StreamApp(faust.App):
    """A worker: Faust's app, agents and table around our client and pipeline."""

    logger = MODE_LOG

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topic_names = Topics.of(settings)
        self.changelog = changelog_topic(settings)
        self.metrics = Metrics()
        self.assignment: Assignment
        self.client: GroupClient | None = None
        self.failure: str | None = None
        super().__init__(
            settings.app_id,
            broker=[f"kafka://{server}" for server in settings.bootstrap.split(",")],
            stream_buffer_maxsize=settings.partitions,  # one chunk of each is handed over at a time
            topic_partitions=settings.partitions,
            topic_allow_declare=False,  # topics are created by `topic_plan`, with their own retention
            topic_disable_leader=True,
            store="memory://",
            web_enabled=False,  # Faust's own would serve the tables to everybody
            TableManager=ProfileTableManager,
            Table=ProfileTable,
        )
        self.table = self.Table("profiles", partitions=settings.partitions, default=None)
        behaviour.register(self)

    async def on_first_start(self) -> None:
        """Before anything is consumed: see that the topics are there, load the catalogue and the release."""
        await super().on_first_start()
        self.watch = Watch(self)
        self.worker_web = WorkerWeb(self)
        await self.worker_web.start()
        try:
            await self._prepare()
        except UserError as error:
            self.fail(str(error))

    async def _prepare(self) -> None:
        settings = self.settings
        await self._patiently(ensure_topics, settings)
        self.serving = Serving(settings, self.metrics)
        await self._patiently(self.serving.start)
        keep_what_is_loaded()
        self.outbox = Outbox(settings, self.fail)
        self.lists = Lists(
            settings,
            self.topic_names.recommendations,
            self.serving.recommender,
            self.outbox,
            self.metrics,
            lambda: self.assignment.entitled(),
        )
        loop = asyncio.get_running_loop()
        self.serving.on_withdrawn = lambda gone: loop.call_soon_threadsafe(self.lists.withdraw, gone)
        self.pipeline = Pipeline(
            settings,
            self.serving.catalogue,
            self.serving.popularity,
            self.lists,
            self.outbox,
            self.metrics,
            self.serving.acted,
            self.serving.forget,
        )
        self.standbys = Standbys(settings, self.changelog)
        self.assignment = Assignment(
            settings,
            self.topic_names.behaviour,
            self.changelog,
            self.serving.catalogue,
            self.serving.popularity,
            self.metrics,
            self.standbys,
            self.fail,
        )
        for running in (
            self.outbox.run(),
            self.lists.run(),
            self.assignment.run(),
            self.standbys.run(),
            self.watch.run(),
        ):
            self.add_future(running)

    async def join(self, topics: Sequence[str]) -> GroupClient:
        """Join the group, to share these topics' partitions.

        Raises:
            asyncio.CancelledError: the worker was asked to stop before it had joined.
        """
        protocol = await asyncio.to_thread(group_protocol, self.settings)
        client = GroupClient(self.settings, protocol, self.assignment)
        await self.standbys.warm_up(lambda: self.should_stop)
        if self.should_stop:  # whoever hands partitions over has been there already
            raise asyncio.CancelledError
        self.assignment.attach(client)
        client.subscribe(topics)
        self.client = client
        log.info("joining group %s (%s protocol)", self.settings.app_id, protocol)
        return client

    async def on_stop(self) -> None:
        """Hand the partitions over, then wait for what was sent."""
        if self.client is not None:
            await self.client.leave()
            await self.assignment.close()
        if hasattr(self, "standbys"):
            await self.standbys.close()
        if hasattr(self, "outbox"):
            self.lists.close()
            await asyncio.to_thread(self.outbox.close, CLOSE_S)
            await asyncio.to_thread(self.serving.stop)
        if hasattr(self, "worker_web"):
            await self.worker_web.stop()
        await super().on_stop()

    async def pace(self) -> None:
        """Before more is fetched: see that lists keep up."""
        await self.lists.pace()

    def fail(self, reason: str) -> None:
        """End the worker, as going on would help nobody. Nothing that is not finished is committed."""
        if self.failure is not None or self.should_stop:
            return
        self.failure = reason
        log.error("the worker ends: %s", reason)
        # What stands still may not even let itself be stopped.
        last_resort = threading.Timer(GIVE_UP_S, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        os.kill(os.getpid(), signal.SIGTERM)

    def status(self) -> dict[str, Any]:
        """What the health page says."""
        joined = self.client is not None
        owners = list(self.assignment.owners) if joined else []
        return {
            "ready": joined and self.assignment.ready and not self.watch.broker_away,
            "well": self.watch.complaint is None,
            "complaint": self.watch.complaint or "",
            "broker": "away" if self.watch.broker_away else "there",
            "partitions": self.assignment.owners.serving if joined else [],
            "restoring": sorted(owner.partition for owner in owners if owner.opening),
            "profiles": sum(len(owner.table.rows) for owner in owners if not owner.opening),
            "warm_partitions": self.standbys.partitions if hasattr(self, "standbys") else [],
            "warm_profiles": self.standbys.rows if hasattr(self, "standbys") else 0,
            "warm_behind": self.standbys.behind if hasattr(self, "standbys") else 0,
            "release": self.serving.recommender.release if hasattr(self, "serving") else None,
            "trial": self.serving.rollouts.trial if hasattr(self, "serving") else None,
            "open_chunks": sum(owner.open_chunks for owner in owners),
            "oldest_open_s": round(max((owner.oldest_open_s for owner in owners), default=0.0), 3),
            "lists_due": len(self.lists) if joined else 0,
            "lists_put_off": self.lists.late if joined else 0,
            "unconfirmed": len(self.outbox) if joined else 0,
            "positions": {f"{topic}/{number}": at for (topic, number), at in sorted(self.metrics.positions.items())},
        }

    def observe(self) -> None:
        """Bring the gauges up to date."""
        status, metrics = self.status(), self.metrics
        metrics.profiles.set(status["profiles"])
        metrics.partitions.set(len(status["partitions"]))
        metrics.warm_partitions.set(len(status["warm_partitions"]))
        metrics.warm_profiles.set(status["warm_profiles"])
        metrics.warm_behind.set(status["warm_behind"])
        metrics.due.set(status["lists_due"])
        metrics.late.set(status["lists_put_off"])
        metrics.unconfirmed.set(status["unconfirmed"])
        metrics.oldest_open.set(status["oldest_open_s"])
        held = {owner.partition for owner in self.assignment.owners} if self.client is not None else set()
        for topic in self.topic_names.behaviour:
            behind = sum(count for (name, number), count in metrics.behind.items() if name == topic and number in held)
            metrics.lag.labels(topic=topic).set(behind)

    async def _patiently(self, work: Callable[..., object], *arguments: object) -> None:
        """Do blocking work that needs a broker, again and again until one is there."""
        said = -SAY_S
        while True:
            try:
                await asyncio.to_thread(work, *arguments)
            except NoBrokerError as error:
                self.watch.broker_away = True
                if time.monotonic() - said >= SAY_S:
                    said = time.monotonic()
                    log.warning("waiting for a broker: %s", error)
                await asyncio.sleep(1.0)
                continue
            self.watch.broker_away = False
            return

    def _create_directories(self) -> None:
        """Nothing is kept on this machine: the profiles live in the changelog."""

    def _new_transport(self) -> TransportT:
        return cast("TransportT", ChunkTransport(self.conf.broker_consumer, self))


def group_protocol(settings: Settings) -> str:
    """Which group protocol a worker speaks: what is set, or what fits.

    `consumer` (KIP-848) leaves partitions that stay alone, where the classic one stops all of them. But a worker that
    was killed and comes back under its name is taken for its own double there until its session ends; under the classic
    protocol it goes on at once.
    """
    if settings.group_protocol != "auto":
        return settings.group_protocol
    return "consumer" if not settings.worker_name and Cluster(settings).speaks_consumer_protocol() else "classic"


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


def __getattr__(name: str) -> Any:
    """`app` is made when it is first asked for, so that importing this module reads no settings."""
    if name == "app":
        globals()["app"] = app = create_app(load_settings())
        return app
    raise AttributeError(name)
