"""What a worker counts of itself, for Prometheus and for its own health check."""

import time
from collections import defaultdict
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mmrec_stream.policies.policy import FALLBACK
from mmrec_stream.ranking.recommend import Slate

LATENCY_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""s. Fine where the promise is (5 to 20 ms), coarse where it is broken."""


ENCODING_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""s. A product is to be recommendable within one."""


class Metrics:
    """The worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.events = Counter("mmrec_events", "Behaviour records read", ["topic"], registry=r)
        self.folds = Counter("mmrec_folds", "Events folded into profiles", registry=r)
        self.repeats = Counter("mmrec_repeats", "Events that a profile had folded before", registry=r)
        self.profile_writes = Counter("mmrec_profile_writes", "Changelog rows sent", registry=r)
        self.dead_letters = Counter("mmrec_dead_letters", "Inputs set aside", ["fault"], registry=r)
        self.lists = Counter("mmrec_lists", "Recommendation lists published", ["strategy"], registry=r)
        self.coalesced = Counter("mmrec_lists_coalesced", "Lists left out for a newer one of the user", registry=r)
        self.remade = Counter("mmrec_lists_remade", "Lists made again as an item could not be sold", registry=r)
        self.scoring_failures = Counter("mmrec_scoring_failures", "Batches that could not be scored", registry=r)
        self.latency = Histogram(
            "mmrec_latency_seconds", "From the broker's log to the published list", buckets=LATENCY_BUCKETS, registry=r
        )
        self.restored = Counter("mmrec_restored_rows", "Changelog rows read to restore profiles", registry=r)
        self.ownership_changes = Counter(
            "mmrec_ownership_changes", "Partitions gained, given up, reopened", ["change"], registry=r
        )
        self.fenced = Counter("mmrec_fenced_writes", "Writes refused: the partition has another writer", registry=r)
        self.input_gaps = Counter(
            "mmrec_input_gap_records", "Records deleted before they were read", ["topic"], registry=r
        )
        self.lag = Gauge("mmrec_lag_records", "Records that wait to be folded", ["topic"], registry=r)
        self.oldest_open = Gauge("mmrec_oldest_open_chunk_seconds", "Age of the oldest unfinished chunk", registry=r)
        self.profiles = Gauge("mmrec_profiles", "Profiles held", registry=r)
        self.partitions = Gauge("mmrec_partitions", "Profile partitions held", registry=r)
        self.warm_partitions = Gauge("mmrec_standby_partitions", "Partitions of others kept warm", registry=r)
        self.warm_profiles = Gauge("mmrec_standby_profiles", "Profiles of others kept warm", registry=r)
        self.warm_behind = Gauge("mmrec_standby_behind_records", "Changelog rows not read for those", registry=r)
        self.due = Gauge("mmrec_lists_due", "Users in line for a list", registry=r)
        self.late = Gauge("mmrec_lists_put_off", "Users whose list waits until old events are folded", registry=r)
        self.unconfirmed = Gauge("mmrec_unconfirmed", "Records sent and not yet confirmed", registry=r)
        self.release = Gauge("mmrec_release_info", "The release that serves", ["version", "provider"], registry=r)
        self.rules = Gauge("mmrec_rules_info", "The rules that lists obey", ["policy"], registry=r)
        self.rules_refused = Counter("mmrec_rules_refused", "Rule sets that could not be used", registry=r)
        self.fallbacks = Counter("mmrec_lists_fallback", "Lists that rules had left empty", registry=r)
        self.to_encode = Gauge("mmrec_products_to_encode", "Products that wait for their vector", registry=r)
        self.encoding = Histogram(
            "mmrec_encoding_seconds",
            "From a product's record being read to its being recommendable as it says",
            buckets=ENCODING_BUCKETS,
            registry=r,
        )
        self.pictures = Counter("mmrec_pictures", "Pictures of products that were asked for", ["outcome"], registry=r)
        self._strategies: dict[str, Any] = {}
        self._topics: dict[str, Any] = {}
        self.positions: dict[tuple[str, int], int] = defaultdict(int)
        """Next offset to fold of each source partition."""
        self.behind: dict[tuple[str, int], int] = {}
        """Records that wait in each source partition, as of its last chunk."""
        self.last_progress = time.monotonic()

    def progress(self) -> None:
        """Something was finished: the broker has confirmed it."""
        self.last_progress = time.monotonic()

    def chunk(self, topic: str, partition: int, records: int, position: int, behind: int) -> None:
        """A chunk of `records` was taken; `position` is the next offset after it, with `behind` records waiting."""
        counter = self._topics.get(topic) or self._topics.setdefault(topic, self.events.labels(topic=topic))
        counter.inc(records)
        self.positions[topic, partition] = position
        self.behind[topic, partition] = behind

    def folded(self, events: int, fresh: int) -> None:
        """Events were folded, `fresh` of them for the first time."""
        self.folds.inc(fresh)
        self.repeats.inc(events - fresh)

    def wrote(self, rows: int) -> None:
        """Rows were committed to the changelog."""
        self.profile_writes.inc(rows)
        self.progress()

    def published(self, slate: Slate, appended_ms: float, now: float, *, again: bool) -> None:
        """A list went out for an event that the broker had at `appended_ms`, or again, as what it held sold out."""
        counter = self._strategies.get(slate.strategy)
        if counter is None:
            counter = self._strategies[slate.strategy] = self.lists.labels(strategy=slate.strategy)
        counter.inc()
        if slate.policy.endswith(f"/{FALLBACK}"):
            self.fallbacks.inc()
        if again:
            self.remade.inc()
        else:
            self.latency.observe(max(now - appended_ms / 1000, 0.0))
