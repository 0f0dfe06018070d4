"""Releases on their way into service: loaded as they are announced, tried beside the live one, decided upon, freed.

One thread does all of that, so that neither scoring nor the event loop ever waits for a release. What it decides is
`mmrec_stream.releases.rollout`'s to say.
"""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Literal

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.contracts.rollouts import CountsRecord, StageRecord, encode_rollout
from mmrec_stream.errors import NotNowError, UserError
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.processes import give_back_memory
from mmrec_stream.profiles.columns import EventColumns
from mmrec_stream.profiles.record import Records
from mmrec_stream.ranking.comparison import Tally
from mmrec_stream.ranking.recommend import Arm, Recommender, Tried
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.releases import rollout
from mmrec_stream.releases.access import AGAIN_S
from mmrec_stream.releases.rollout import Rollout, State
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams.followers import Follower
from streams.metrics import Metrics

TICK_S = 1.0
"""How often a worker tells what it has counted, and looks what follows from what all have."""

SAMPLED = 16
"""Users of a batch that a release on trial is compared on: enough for the timing of a batch, few enough for 2 ms."""

SAMPLE_S = 0.05
"""Least time between two comparisons, which bounds their cost to some 5% of a core."""

MAX_SEEN = 1_000_000
"""Users whose first click or cart is remembered, 100 bytes each; with as many counted, nothing is left to find out."""

OUTCOMES = {EventType.CLICK: "clicks", EventType.ADD_TO_CART: "carts"}

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Trying:
    """What is counted of a release on trial in this worker, in one stage.

    The release itself is elsewhere: the event loop has this in hand, and must never be the last to let go of a release.
    """

    what: Rollout
    refused: str = ""
    """Why this worker cannot load it."""
    since: int = field(default_factory=lambda: _now_ms())
    tally: Tally = field(default_factory=Tally)
    seen: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in OUTCOMES.values()})
    """Keys of users whose first click or cart was counted."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def counts(self, worker: str) -> CountsRecord:
        """What to tell the other workers."""
        with self.lock:
            return CountsRecord(
                worker=worker,
                version=self.what.version,
                announced=self.what.announced,
                stage=self.what.stage,
                since=self.since,
                at=_now_ms(),
                trials=dict(self.tally.trials),
                agreement=round(self.tally.agreement, 4),
                latency=round(self.tally.latency, 4),
                refused=self.refused,
            )


class Rollouts:
    """The releases that are announced, loaded into a recommender and freed; see the module."""

    def __init__(
        self,
        settings: Settings,
        recommender: Recommender,
        load: Callable[[ReleaseAnnouncement, Callable[[Scorer], None]], None],
        metrics: Metrics,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            settings: where the brokers are.
            recommender: what serves the releases.
            load: loads a release and brings it up to date with the catalogue, calls back with it when nothing may come
                in between, and keeps it up to date from then on. Raises UserError where it cannot be used, and
                NotNowError where it may be later.
            metrics: told which releases serve.
        """
        topics = Topics.of(settings)
        self._settings = settings
        self._topic = topics.rollouts
        self._recommender = recommender
        self._load = load
        self._metrics = metrics
        self.worker = f"{settings.worker_name or 'worker'}-{secrets.token_hex(4)}"[:128]
        self._state = rollout.EMPTY
        self._arms: dict[tuple[str, int], Arm] = {}
        self._unusable: dict[tuple[str, int], str] = {}
        self._not_now: dict[tuple[str, int], float] = {}
        """When releases that could not be had are asked for again, by the monotonic clock."""
        self._beside: Arm | None = None
        self._trying: Trying | None = None
        self._decided: tuple[StageRecord, float] | None = None
        self._told: CountsRecord | None = None
        self._samples: Queue[tuple[Trying, list[str], Records, int]] = Queue(1)
        self._sampled = 0.0
        self._folding = threading.Lock()
        self._news, self._stop = threading.Event(), threading.Event()
        self._followers = (
            Follower(settings, topics.releases, self._on_releases),
            Follower(settings, topics.rollouts, self._on_rollouts),
        )
        self._threads = [
            threading.Thread(target=self._run, name="rollouts", daemon=True),
            threading.Thread(target=self._compare, name="comparing", daemon=True),
        ]

    def catch_up(self) -> None:
        """Read what is announced and what was decided.

        Raises:
            UserError: a topic or the broker is not there.
        """
        for follower in self._followers:
            follower.catch_up()

    def start(self) -> None:
        """After `catch_up`: load what serves, then follow what comes. Blocks while loading."""
        self._reconcile()
        for follower in self._followers:
            follower.start()
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Have the threads end soon; `stop` waits for them."""
        self._stop.set()
        self._news.set()
        for follower in self._followers:
            follower.end()

    def stop(self) -> None:
        """End the threads."""
        self.end()
        for follower in self._followers:
            follower.stop()
        for thread in self._threads:
            thread.join()

    @property
    def scorers(self) -> list[Scorer]:
        """The releases that are to be told of changes of the catalogue."""
        return [arm.scorer for arm in self._arms.values()]

    @property
    def trial(self) -> dict[str, object] | None:
        """What is on trial, for the health page."""
        if (trying := self._trying) is None:
            return None
        counts = trying.counts(self.worker)
        return {"release": counts.version, "stage": counts.stage, "agreement": counts.agreement} | {
            name: [trial.bad, trial.n] for name, trial in counts.trials.items()
        }

    def acted(self, columns: EventColumns, fresh: NDArray[np.bool_]) -> None:
        """Count visitors who click or put something into their carts for the first time since a canary began."""
        trying = self._trying
        if trying is None or trying.what.stage != "canary":
            return
        for kind, name in OUTCOMES.items():
            places = np.flatnonzero(fresh & (columns.types == kind))
            seen = trying.seen[name]
            if not len(places) or len(seen) >= MAX_SEEN:
                continue
            keys = np.unique(id_keys(columns.users[place] for place in places.tolist()))
            first = np.array([key for key in keys.tolist() if key not in seen], dtype=np.uint64)
            seen.update(first.tolist())
            theirs = rollout.in_canary(first, trying.what.version, trying.what.announcement.share)
            with trying.lock:
                trying.tally.add(name, len(first), int((~theirs).sum()))

    def _on_releases(self, messages: Sequence[Message]) -> None:
        self._fold("releases", messages)
        self._news.set()

    def _on_rollouts(self, messages: Sequence[Message]) -> None:
        before = self._state.stages
        self._fold("rollouts", messages)
        if self._state.stages is not before:
            self._news.set()

    def _fold(self, topic: Literal["releases", "rollouts"], messages: Sequence[Message]) -> None:
        with self._folding:
            self._state, bad = rollout.fold(self._state, topic, messages)
        for fault in bad:
            log.warning("%s", fault)

    def _run(self) -> None:
        with contextlib.closing(_Teller(self._settings, self._topic)) as teller:
            while not self._stop.is_set():
                self._news.wait(TICK_S)
                self._news.clear()
                try:
                    self._reconcile()
                    self._tell(teller)
                except Exception:
                    log.exception("rollouts: tried again in a second")

    def _reconcile(self) -> None:
        """Bring what serves into line with what the topics say."""
        state = self._state
        live = self._live(state)
        if live is None:
            return
        trying = self._try(state.candidate)
        serving = self._recommender.scorer
        arm = self._arms[live.version, live.announced]
        changed = serving is not arm.scorer
        beside = self._arm(trying)
        if changed or trying is not self._trying or beside is not self._beside:
            before = self._recommender.release
            self._trying, self._beside = trying, beside
            self._recommender.serve(arm, self._tried(trying))
            if changed:
                log.info("release %s took over from %s on %s", live.version, before, arm.scorer.device.upper())
            if trying is not None and beside is not None:
                log.info("release %s is on trial beside %s: %s", trying.what.version, live.version, trying.what.stage)
            self._metrics.release.clear()
            self._metrics.release.labels(version=live.version, provider=arm.scorer.device).set(1)
        keep = {arm, beside}
        del arm, beside
        self._free(keep)

    def _live(self, state: State) -> Rollout | None:
        """The release for everybody, loaded: the last that can be, while none serves."""
        for one in reversed(state.rollouts):
            if one.stage != "live":
                continue
            if self._loaded(one) is not None:
                return one
            if self._recommender.scorer is not None:
                # What serves goes on rather than one from before it.
                return next((it for it in state.rollouts if self._is_serving(it)), None)
        return None

    def _is_serving(self, one: Rollout) -> bool:
        arm = self._arms.get((one.version, one.announced))
        return arm is not None and arm.scorer is self._recommender.scorer

    def _try(self, candidate: Rollout | None) -> Trying | None:
        if candidate is None:
            return None
        self._loaded(candidate)
        refused = self._unusable.get((candidate.version, candidate.announced), "")
        before = self._trying
        if before is not None and (before.what.announced, before.what.stage, before.what.version) == (
            candidate.announced, candidate.stage, candidate.version,
        ):  # fmt: skip
            before.refused = refused
            return before
        return Trying(candidate, refused)

    def _loaded(self, one: Rollout) -> Arm | None:
        key = one.version, one.announced
        if key in self._unusable or key in self._arms or self._not_now.get(key, 0.0) > time.monotonic():
            return self._arms.get(key)

        def take(scorer: Scorer) -> None:
            self._arms = {**self._arms, key: Arm(scorer)}

        try:
            self._load(one.announcement, take)
        except NotNowError as error:
            self._not_now[key] = time.monotonic() + AGAIN_S
            log.warning(
                "release %s cannot be had yet, %s goes on serving: %s", one.version, self._recommender.release, error
            )
        except UserError as error:
            self._unusable[key] = str(error)
            log.error("release %s is not used, %s goes on serving: %s", one.version, self._recommender.release, error)
        return self._arms.get(key)

    def _free(self, keep: set[Arm | None]) -> None:
        """Let go of releases that nobody uses: on this thread, as it takes tens of milliseconds."""
        gone = [key for key, arm in self._arms.items() if arm not in keep]
        if gone:
            with contextlib.suppress(Empty):
                self._samples.get_nowait()
            self._arms = {key: arm for key, arm in self._arms.items() if key not in gone}
            give_back_memory()

    def _arm(self, trying: Trying | None) -> Arm | None:
        return None if trying is None else self._arms.get((trying.what.version, trying.what.announced))

    def _tried(self, trying: Trying | None) -> Tried | None:
        if trying is None or (arm := self._arm(trying)) is None:
            return None

        def told(users: Sequence[str], records: Records, now_ms: int) -> None:
            if (now := time.monotonic()) - self._sampled >= SAMPLE_S and self._samples.empty():
                self._sampled = now
                with contextlib.suppress(Full):
                    self._samples.put_nowait((trying, list(users[:SAMPLED]), records[:SAMPLED].copy(), now_ms))

        def failed(users: int) -> None:
            with trying.lock:
                trying.tally.add("errors", users, users)

        share = trying.what.announcement.share if trying.what.stage == "canary" else 0.0
        return Tried(arm, share, told, failed)

    def _compare(self) -> None:
        """Score samples with the live release and the one on trial, in turns the one or the other first."""
        turn = False
        while not self._stop.is_set():
            try:
                trying, users, records, now_ms = self._samples.get(timeout=TICK_S)
            except Empty:
                continue
            turn = not turn
            with contextlib.suppress(Exception):
                self._compare_one(trying, users, records, now_ms, turn)
            del trying, records

    def _compare_one(self, trying: Trying, users: Sequence[str], records: Records, now_ms: int, turn: bool) -> None:
        live, tried = self._recommender.arm, self._arm(trying)
        if live is None or tried is None or trying is not self._trying:
            return
        results = {}
        for arm in (live, tried) if turn else (tried, live):
            began = time.perf_counter()
            try:
                slates = self._recommender.slates(arm, users, records.copy(), now_ms)
            except Exception as error:
                log.warning("%s: scoring %d users failed: %s", arm.scorer.version, len(records), error)
                slates = []
            results[arm] = slates, time.perf_counter() - began
        (mine, live_s), (theirs, theirs_s) = results[live], results[tried]
        with trying.lock:
            trying.tally.compare(mine, theirs, live_s, theirs_s, len(live.scorer.table))

    def _tell(self, teller: "_Teller") -> None:
        """Publish what was counted, and what follows from what everybody has counted."""
        if (trying := self._trying) is not None:
            counts = trying.counts(self.worker)
            if self._told is None or msgspec.structs.replace(counts, at=self._told.at) != self._told:
                teller.send(f"counts/{self.worker}", encode_rollout(counts))
                self._told = counts
        elif self._told is not None:
            teller.send(f"counts/{self.worker}", None)
            self._told = None
        decision = rollout.decide(self._state, _now_ms())
        if decision is None:
            return
        same = self._decided is not None and (
            self._decided[0].version, self._decided[0].announced, self._decided[0].stage
        ) == (decision.version, decision.announced, decision.stage)  # fmt: skip
        if same and self._decided is not None and time.monotonic() - self._decided[1] < 5 * TICK_S:
            return  # on its way
        self._decided = decision, time.monotonic()
        log.info("release %s is to be %s: %s", decision.version, decision.stage, decision.reason)
        teller.send(f"stage/{decision.version}/{decision.stage}", encode_rollout(decision))


class _Teller:
    """Publishes on the rollouts' topic; what does not arrive is told again by a later tick."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic = topic
        self._producer = BatchProducer(settings, idempotent=False)

    def send(self, key: str, value: bytes | None) -> None:
        """Send one record."""
        try:
            self._producer.send(self._topic, value, key=key.encode())
        except UserError as error:
            log.warning("%s", error)

    def close(self) -> None:
        """Give what is on its way a second."""
        with contextlib.suppress(UserError):
            self._producer.flush(1.0)


def _now_ms() -> int:
    return int(time.time() * 1000)
