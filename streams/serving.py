"""What a worker recommends with, kept up to date: the catalogue as it changes, releases as they are announced."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.catalogue.columns import ProductColumns
from mmrec_stream.catalogue.windows import Windows
from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.kafka.reader import read_batches, spans
from mmrec_stream.pictures.sources import sources_of
from mmrec_stream.policies.book import RuleBook
from mmrec_stream.policies.policy import Policy
from mmrec_stream.processes import step_back
from mmrec_stream.profiles.columns import EventColumns
from mmrec_stream.profiles.shown import Shown
from mmrec_stream.profiles.tastes import Tastes
from mmrec_stream.ranking.approximate import load_faiss
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.ranking.providers import choose_device
from mmrec_stream.ranking.recommend import Recommender
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.releases.access import check_access, opened
from mmrec_stream.releases.folder import Expected
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams.encoding import ENCODE_BATCH, Encoding
from streams.followers import Follower, catalogue_changes
from streams.metrics import Metrics
from streams.rollouts import Rollouts

BREATH_S = 0.003
"""Pause after each batch of products that a release to come is told of, twice what telling takes: the event loop needs
the interpreter between. A million products take 12 s longer, which nobody waits for while another release serves."""

log = logging.getLogger(__name__)


def check_scoring(settings: Settings) -> None:
    """Before a worker starts: what is demanded by name has to be there, as no release could serve without it.

    Raises:
        UserError: CUDA does not work here, faiss is not installed, or store or keys cannot be used.
    """
    check_access(settings)
    choose_device("cuda" if settings.provider == "cuda" else "cpu")
    if settings.retrieval == "approximate":
        load_faiss()


class Serving:
    """The catalogue, what is popular, and the release that serves, with the threads that follow their topics."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self.on_withdrawn: Callable[[list[str]], object] = _nobody
        """Told, on the follower's thread, of items that can't be recommended any more, when no list is made with them
        from then on."""
        self._topics = Topics.of(settings)
        self._metrics = metrics
        self._stopping = threading.Event()
        self.catalogue = Catalogue()
        self.columns = ProductColumns()
        self._windows = Windows()
        self.encoding = Encoding(sources_of(settings), lambda: self.rollouts.scorers, self._learn, metrics)
        self.popularity = Popularity()
        self._tastes = Tastes.of(settings.preset)
        self._shown = Shown()
        self.recommender = Recommender(
            self.catalogue,
            self.popularity,
            list_size=settings.list_size,
            repeats=Repeats.of_days(settings.seen_days, settings.repurchase_days),
            tastes=self._tastes,
            shown=self._shown,
        )
        # Held while the catalogue or the serving release changes, so that no item falls between the two.
        self._changing = threading.Lock()
        self._loading = ThreadPoolExecutor(1, "load", initializer=step_back)
        self._catalogue_follower = Follower(settings, self._topics.catalogue, self._on_catalogue, self._turn)
        self._rules = RuleBook()
        self._policy: Policy | None = None
        self._rules_follower = Follower(settings, self._topics.rules, self._on_rules)
        self.rollouts = Rollouts(settings, self.recommender, self._load, metrics)

    def start(self) -> None:
        """Load what there is, then follow what comes. Blocks while loading: call it in a thread.

        Raises:
            UserError: a topic or the broker is not there.
        """
        # Each waits for the broker, most of the time.
        with ThreadPoolExecutor(2, "catch up") as pool:
            rules, releases = pool.submit(self._rules_follower.catch_up), pool.submit(self.rollouts.catch_up)
            count = self._catalogue_follower.catch_up()
            rules.result()
            releases.result()
        log.info("preset: %s", self._settings.preset)
        log.info("catalogue: %d products (%d records)", len(self.catalogue), count)
        self.rollouts.start()
        if self.recommender.scorer is None:
            log.warning("no release is announced: lists show what is popular until `mmrec train` has made one")
        self.encoding.start()
        self._catalogue_follower.start()
        self._rules_follower.start()

    def stop(self) -> None:
        """End the threads."""
        self._stopping.set()
        for running in (self._catalogue_follower, self._rules_follower, self.rollouts):
            running.end()
        self._catalogue_follower.stop()
        self._rules_follower.stop()
        self.encoding.stop()
        self.rollouts.stop()
        self._loading.shutdown()

    def acted(self, columns: EventColumns, fresh: NDArray[np.bool_]) -> None:
        """Take what users have done; `fresh` are the events that count for the first time."""
        self.rollouts.acted(columns, fresh)
        policy = self._policy
        if policy is not None and policy.reads_shown:
            places = np.flatnonzero(fresh & (columns.types == EventType.IMPRESSION)).tolist()
            self._shown.note((columns.users[place], int(columns.items[place])) for place in places)

    def forget(self, user: str) -> None:
        """Know nothing of a user any more."""
        self._shown.forget(user)

    def _on_catalogue(self, messages: Sequence[Message]) -> None:
        items, removed = catalogue_changes(messages)
        now_ms = int(time.time() * 1000)
        gone = removed + [item.item_id for item in items if not item.sellable_at(now_ms)]
        with self._changing:
            scorers = self.rollouts.scorers
            # The rankers first, as the catalogue's count of changes is what tells whether a list was made before them.
            for scorer in scorers if gone else ():
                scorer.withdraw(gone)
            before = self.catalogue.sellable(id_keys(gone))
            if items:
                self.catalogue.update(items, now_ms)
                self._windows.update(items, now_ms)
                changed = self.columns.update(items)
                if self._policy is not None:
                    self._policy.refresh(self.columns, changed)
            if removed:
                self.catalogue.remove(removed)
                self._windows.remove(removed)
            if withdrawn := [item_id for item_id, was in zip(gone, before.tolist(), strict=True) if was]:
                self.on_withdrawn(withdrawn)
            for scorer in scorers if items else ():
                rows = scorer.table.rows(id_keys([item.item_id for item in items]))
                scorer.table.set_available(rows, np.array([item.sellable_at(now_ms) for item in items], dtype=bool))
                self._permit(scorer, rows)
        if scorers:
            self.encoding.drop(removed)
            self.encoding.put(items)

    def _learn(self, scorer: Scorer, items: Sequence[CatalogueItem], vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Give vectors of items to a release; the rows that are new."""
        with self._changing:
            # What was encoded may be sold out by now, or banned: new rows are no candidates until that is looked up.
            rows, fresh = scorer.learn(items, vectors, available=False)
            self._permit(scorer, rows)
            scorer.table.set_available(rows, self.catalogue.sellable(scorer.table.keys[rows]))
        return fresh

    def _turn(self) -> float:
        """Let the clock bring products into sale and take them out; says in how many seconds it has more to do."""
        now_ms = int(time.time() * 1000)
        if self._windows.next_ms <= now_ms:
            with self._changing:
                changed = self._windows.turn(now_ms)
                if changed:
                    gone = [item_id for item_id, sellable in changed.items() if not sellable]
                    for scorer in self.rollouts.scorers:
                        scorer.offer(changed)
                    self.catalogue.offer(changed)
                    if gone:
                        self.on_withdrawn(gone)
        return (self._windows.next_ms - now_ms) / 1000

    def _on_rules(self, messages: Sequence[Message]) -> None:
        """Take over the newest rules that can be used."""
        for message in messages:
            if (fault := self._rules.take(message.key(), message.value())) is not None:
                log.error("%s@%d: rules are not used, those before stay: %s", message.topic(), message.offset(), fault)
                self._metrics.rules_refused.inc()
        if self._rules.in_force is not self._policy:
            self._obey(self._rules.in_force)

    def _obey(self, policy: Policy | None) -> None:
        with self._changing:
            if policy is not None:
                policy.refresh(self.columns)
            self._policy = policy
            self.recommender.obey(policy)
            for scorer in self.rollouts.scorers:
                self._permit(scorer)
        if policy is None or not policy.reads_shown:
            self._shown.clear()
        self._metrics.rules.clear()
        if policy is not None:
            self._metrics.rules.labels(policy=policy.name).set(1)
        log.info("rules: %s", "none" if policy is None else policy.name)

    def _permit(self, scorer: Scorer, rows: NDArray[np.int64] | None = None) -> None:
        """Say in the item table what rules permit on the home page: then no list has to look for something else."""
        table = scorer.table
        rows = np.arange(len(table)) if rows is None else rows[rows >= 0]
        permitted = np.ones(len(rows), dtype=bool)
        if self._policy is not None:
            permitted = self._policy.allowed("home", table.keys[rows])
        table.permit(rows, permitted)

    def _load(self, announced: ReleaseAnnouncement, take: Callable[[Scorer], None]) -> None:
        """Load a release, and hand it to `take` when it knows the whole catalogue."""
        settings, topic = self._settings, self._topics.catalogue
        with opened(announced, settings, self._stopping.is_set) as (path, expected):
            scorer = self._opened(path, expected)
            # In the block, as ranking in two stages loads another graph out of the folder.
            ends, elsewhere = self._inform(scorer)
        with self._changing:
            # What the clock has changed, and what came, while the whole catalogue was read.
            table = scorer.table
            table.set_available(np.arange(len(table)), self.catalogue.sellable(table.keys))
            for messages in read_batches(settings, topic, start_offsets=ends):
                elsewhere |= self._tell(scorer, *catalogue_changes(messages))
            self._permit(scorer)
            take(scorer)
        self.encoding.put(elsewhere.values())

    def _opened(self, path: Path, expected: Expected) -> Scorer:
        """A release's scorer; made on what lists leave of the processors, where there are lists.

        Not with several scoring threads: those that a session starts would be as modest as who makes it.
        """
        load = partial(Scorer.load, path, provider=self._settings.provider, expected=expected)
        if self.recommender.scorer is None or self._settings.scoring_threads != 1:
            return load(threads=self._settings.scoring_threads)
        return self._loading.submit(load, threads=1).result()

    def _inform(self, scorer: Scorer) -> tuple[dict[int, int], dict[str, CatalogueItem]]:
        """Let a release know the catalogue, and rank as is set.

        Returns:
            Up to which offset of each partition it knows the catalogue, and whose pictures are yet to be read.
        """
        settings, topic = self._settings, self._topics.catalogue
        trained = scorer.release.manifest.preset
        if trained != self._tastes.name:
            log.warning(
                "release %s was trained by preset %s, and this worker folds by %s: give both the same MMREC_PRESET",
                scorer.version,
                trained,
                self._tastes.name,
            )
        if (before := self.recommender.scorer) is not None and (taken := scorer.adopt(before)):
            log.info("release %s takes over the vectors of %d products", scorer.version, taken)
        ends = {partition: span.high for partition, span in spans(settings, topic).items()}
        elsewhere: dict[str, CatalogueItem] = {}
        for messages in read_batches(settings, topic, end_offsets=ends, batch=ENCODE_BATCH):
            elsewhere |= self._tell(scorer, *catalogue_changes(messages))
            if before is not None:
                self._stopping.wait(BREATH_S)
        # After the catalogue, so that an index has all of it.
        scorer.retrieve(settings.retrieval)
        return ends, elsewhere

    def _tell(self, scorer: Scorer, items: Sequence[CatalogueItem], removed: Sequence[str]) -> dict[str, CatalogueItem]:
        """Let a release that does not serve yet know of catalogue changes; says whose pictures are yet to be read.

        Those of which it knows nothing are encoded by the rest meanwhile, and the others keep their vector.
        """
        known = [self.encoding.known(item) for item in items]
        elsewhere = {item.item_id: item for item in scorer.changed([one for one in known if one.image_url])}
        there = scorer.knows([item.item_id for item in known]).tolist()
        told = [
            msgspec.structs.replace(item, image_url=None) if item.item_id in elsewhere else item
            for item, has_vector in zip(known, there, strict=True)
            if not (has_vector and item.item_id in elsewhere)
        ]
        for start in range(0, len(told), ENCODE_BATCH):
            scorer.add_items(told[start : start + ENCODE_BATCH])
        now_ms = int(time.time() * 1000)
        scorer.offer({item_id: item.sellable_at(now_ms) for item_id, item in elsewhere.items()})
        scorer.withdraw(removed)
        return elsewhere


def _nobody(_: list[str]) -> None:
    """While no lists are made."""
