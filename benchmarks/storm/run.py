"""A storm: traffic, workers and brokers, faults on a schedule, quiet again, and a judgement."""

import heapq
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from benchmarks.kafka import SESSION_S
from benchmarks.results import console
from benchmarks.storm.faults import GAP_S, LONG, SHORT, Fault, Kind, schedule
from benchmarks.storm.judge import Verdict
from benchmarks.storm.proxy import Proxy
from benchmarks.storm.reading import Follower, Stage, ends, lag, open_transactions, read_and_judge
from benchmarks.storm.traffic import Traffic
from benchmarks.storm.workers import AGAIN_S, Ending, Worker
from mmrec_stream.brokers import ApacheCluster, ApacheKafka, apache_cluster

PREFIX, APP = "storm.", "storm"

BROKER_PROPERTIES = {"log.cleaner.backoff.ms": "1000"}
"""Where compaction is forced, the cleaner must not rest for its usual 15 s."""

COMPACTION = {
    "segment.bytes": str(1 << 20),
    "segment.ms": "10000",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "10000",
}
"""A changelog that is compacted all the time: segments are as small as Kafka allows."""

TICK_S = 0.05
"""How often it is looked whether a worker has ended and whether something is due."""


@dataclass(frozen=True)
class Weather:
    """What kind of storm. It ends when all of `seconds`, `events` and `faults` that are given have passed."""

    seed: int = 1
    workers: int = 3
    nodes: int = 1
    """Brokers."""
    partitions: int = 12
    users: int = 8_000
    rate: float = 3_000
    """Records a second."""
    prelude: int = 0
    """Records that are published at once when it begins, so that there is more to restore."""
    seconds: float | None = 240.0
    events: int | None = None
    faults: int | None = None
    kinds: Sequence[Kind] = SHORT
    last: Kind | None = None
    """A fault that comes when it would be over."""
    gap_s: tuple[float, float] = GAP_S
    compaction: bool = False
    static: int = 0
    """How many of the workers have a static name in the group."""
    settings: dict[str, str] = field(default_factory=dict)
    """Further `MMREC_…` variables of the workers."""
    drain_s: float = 180.0
    """How long after the storm everything has to be committed."""


LONG_WEATHER = Weather(
    nodes=3,
    users=20_000,
    rate=2_500,
    seconds=None,
    events=10_000_000,
    faults=500,
    kinds=LONG,
    compaction=True,
    static=1,
    drain_s=900.0,
)


@dataclass
class Outcome:
    """What a storm has left behind."""

    verdict: Verdict
    endings: list[Ending]
    faults: Counter[Kind]
    early: int
    """Faults that hit a worker which did not serve yet."""
    pending: int
    """Records that were not committed when the time for it was up."""
    unanswered: int
    """Records that the brokers neither acknowledged nor refused."""
    drained_s: float
    compacted: int | None
    """Changelog rows that compaction took away; None where it was not watched."""
    open_transactions: int
    """Changelog partitions that end in a transaction which nobody has ended."""

    @property
    def bad_stops(self) -> list[Ending]:
        """Workers that were asked to stop and did not end as they should."""
        return [one for one in self.endings if one.cause in ("stopped", "late") and not one.well]

    @property
    def by_themselves(self) -> list[Ending]:
        """Workers that nobody had asked to end."""
        return [one for one in self.endings if one.cause == "itself"]

    @property
    def failures(self) -> dict[str, int]:
        """Everything that has to be 0."""
        return self.verdict.faults | {
            "records never committed": self.pending,
            "changelogs that end in an open transaction": self.open_transactions,
            "bad stops": len(self.bad_stops),
        }

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return not any(self.failures.values())


class Storm:
    """One storm, from the first worker to the last."""

    def __init__(self, weather: Weather, folder: Path, say: Callable[[str], None]) -> None:
        """Set up.

        Args:
            weather: what kind.
            folder: for the workers' logs.
            say: told what happens, a line each.
        """
        self.weather = weather
        self._folder = folder
        self._say = say
        self._cluster: ApacheCluster
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._began = 0.0
        self.faults: Counter[Kind] = Counter()
        self.early = 0
        self._next_broker = 0
        """How many records have to be acknowledged before the next broker may be killed."""
        self._cut: set[str] = set()
        self._waiting: set[str] = set()
        self._proxies: dict[str, Proxy] = {}
        self._visitors: list[Worker] = []

    def run(self) -> Outcome:
        """Have the storm and judge what it leaves.

        Raises:
            UserError: there is no Apache Kafka here.
        """
        weather = self.weather
        names = [f"w{number}" for number in range(weather.workers)]
        doors = [name.upper() for name in names] if Kind.CUT in weather.kinds else []
        with ExitStack() as stack:
            self._cluster = stack.enter_context(apache_cluster(weather.nodes, BROKER_PROPERTIES, doors))
            self.stage = Stage(self._cluster.bootstrap, PREFIX, APP)
            self._create_topics()
            for name in names if doors else ():
                pairs = [
                    (node.doors[name.upper()].advertises, node.doors[name.upper()].listens) for node in self._nodes
                ]
                self._proxies[name] = stack.enter_context(Proxy(pairs))
            stack.callback(self._kill_all)
            self._workers = [Worker(name, self._env(name), self._folder) for name in names]
            follower = Follower(self.stage) if weather.compaction else None
            traffic = Traffic(
                self._cluster.bootstrap,
                PREFIX,
                seed=weather.seed,
                users=weather.users,
                rate=weather.rate,
                most=weather.events,
                prelude=weather.prelude,
            )
            self._began = time.monotonic()
            for worker in self._workers:
                worker.start()
            traffic.start()
            self._rage(traffic)
            unanswered = self._calm(traffic)
            began = time.monotonic()
            pending = self._drain()
            drained = time.monotonic() - began
            hanging = self._settle_transactions()
            upto = ends(self.stage)
            self._say(f"quiet after {drained:.0f} s, {pending} records pending; the judge reads")
            self._stop_all()
            followed = follower.finish(upto[self.stage.changelog]) if follower else None
            lists = weather.settings.get("MMREC_LISTS", "true") == "true"
            verdict = read_and_judge(self.stage, traffic.receipts, upto, lists=lists, followed=followed)
            return Outcome(
                verdict=verdict,
                endings=[ending for worker in (*self._workers, *self._visitors) for ending in worker.endings],
                faults=self.faults,
                early=self.early,
                pending=pending,
                unanswered=unanswered,
                drained_s=drained,
                compacted=followed.rows - verdict.rows if followed else None,
                open_transactions=hanging,
            )

    @property
    def _nodes(self) -> list[ApacheKafka]:
        return self._cluster.nodes

    def _create_topics(self) -> None:
        """As one would by hand: `mmrec topics`; compaction is then forced on the changelog."""
        command = [sys.executable, "-m", "mmrec_stream", "topics"]
        subprocess.run(command, env=os.environ | self._env(None), check=True, capture_output=True)
        if self.weather.compaction:
            entries = [
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in COMPACTION.items()
            ]
            resource = ConfigResource(ResourceType.TOPIC, self.stage.changelog, incremental_configs=entries)
            admin = AdminClient({"bootstrap.servers": self._cluster.bootstrap, "log_level": 0})
            for future in admin.incremental_alter_configs([resource]).values():
                future.result(30)

    def _env(self, name: str | None) -> dict[str, str]:
        """A worker's settings; `name` None is someone who comes and goes."""
        weather = self.weather
        bootstrap = self._cluster.bootstrap
        if name is not None and Kind.CUT in weather.kinds:
            bootstrap = ",".join(f"127.0.0.1:{node.doors[name.upper()].advertises}" for node in self._nodes)
        env = {
            "MMREC_BOOTSTRAP": bootstrap,
            "MMREC_PREFIX": PREFIX,
            "MMREC_APP_ID": APP,
            "MMREC_PARTITIONS": str(weather.partitions),
            "MMREC_REPLICATION": str(self._cluster.replication),
            "MMREC_DATA_DIR": str(self._folder / "var"),
        }
        if name is not None and int(name[1:]) < weather.static:
            env["MMREC_WORKER_NAME"] = name
        return env | weather.settings

    def _rage(self, traffic: Traffic) -> None:
        """Until the storm is over: faults as they come due, workers started again as they end."""
        weather = self.weather
        faults = schedule(weather.seed, weather.kinds, gap_s=weather.gap_s, session_s=SESSION_S)
        while True:
            fault = next(faults)
            self._wait(fault.wait_s, traffic)
            if self._over(traffic):
                break
            while (what := self._strike(fault, traffic.receipts.total)) is None:
                self._wait(0.5, traffic)
                fault = next(faults)
            self._note(fault.kind, what, traffic)
        if weather.last is not None:
            fault = next(schedule(weather.seed, (weather.last,), session_s=SESSION_S))
            self._note(fault.kind, self._strike(fault, traffic.receipts.total) or "nothing left to hit", traffic)

    def _note(self, kind: Kind, what: str, traffic: Traffic) -> None:
        self.faults[kind] += 1
        states = " ".join(f"{worker.name} {self._state(worker)}" for worker in self._workers)
        self._say(f"{what:<28} acknowledged {traffic.receipts.total:>10,}   {states}")

    def _over(self, traffic: Traffic) -> bool:
        weather = self.weather
        return (
            (weather.seconds is None or self._now >= weather.seconds)
            and (weather.events is None or traffic.done)
            and (weather.faults is None or self.faults.total() >= weather.faults)
        )

    @property
    def _now(self) -> float:
        return time.monotonic() - self._began

    def _wait(self, seconds: float, traffic: Traffic) -> None:
        """Let time pass, and do what comes due; ends early when the storm is over."""
        until = self._now + seconds
        while self._now < until and not self._over(traffic):
            self._tick()
            time.sleep(TICK_S)

    def _tick(self) -> None:
        while self._due and self._due[0][0] <= self._now:
            heapq.heappop(self._due)[2]()
        for worker in self._workers:
            ending = worker.look()
            if ending is not None and ending.cause == "itself":
                self._say(f"{worker.name} ended by itself, status {ending.status}: {ending.log}")
            if worker.down and worker.name not in self._waiting:
                self._start_in(worker, AGAIN_S if ending and ending.cause == "itself" else 0.0)
        for visitor in self._visitors:
            visitor.look()

    def _spring(self, worker: Worker, fault: Fault) -> None:
        """The second half of an ambush, when the worker's pages are there and it does not serve yet."""
        status, _ = worker.page("ready", 0.2) if worker.free else (0, {})
        if status == 503:
            others = [other for other in self._workers if other is not worker and other.free]
            other = others[fault.victim % len(others)] if others else worker
            self._in(fault.lasts_s, worker.kill if fault.hard else other.stop)
        elif status != 200:  # not even begun, or something else has hit it
            self._in(0.2, lambda: self._spring(worker, fault))

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._now + seconds, next(self._serial), action))

    def _start_in(self, worker: Worker, seconds: float) -> None:
        self._waiting.add(worker.name)

        def start() -> None:
            self._waiting.discard(worker.name)
            worker.start()

        self._in(seconds, start)

    def _strike(self, fault: Fault, acknowledged: int) -> str | None:
        """Do it; says what was done, or None if there is nothing to do it to: all that it could hit is hit already."""
        if fault.kind is Kind.BROKER:
            # One at a time, and under load: not while the last one that was killed comes back.
            if not all(node.running for node in self._nodes) or acknowledged < self._next_broker:
                return None
            self._next_broker = acknowledged + int(self.weather.rate)
            node = self._nodes[fault.victim % len(self._nodes)]
            node.kill()
            self._in(fault.lasts_s, node.launch)
            return f"broker {node.seat.node} killed for {fault.lasts_s:.0f} s"
        if fault.kind is Kind.VISIT:
            return self._visit(fault)
        free = [worker for worker in self._workers if worker.free and worker.name not in self._cut]
        if not free:
            return None
        if fault.kind is Kind.RESTART_ALL:
            for worker in free:
                self._end(worker, fault)
            return f"all {len(free)} {'killed' if fault.hard else 'stopped'}"
        return self._hit(free[fault.victim % len(free)], fault)

    def _hit(self, worker: Worker, fault: Fault) -> str:
        early = not worker.ready
        self.early += early
        what = f"{worker.name}{' (not ready)' if early else ''} {fault.kind}"
        match fault.kind:
            case Kind.KILL:
                self._start_in(worker, fault.lasts_s)
                worker.kill()
                return what
            case Kind.STOP:
                worker.stop()
                return what
            case Kind.AMBUSH:
                worker.kill()
                self._spring(worker, fault)
                return what
            case Kind.CUT:
                self._cut.add(worker.name)
                self._proxies[worker.name].cut()
                self._in(fault.lasts_s, lambda: self._heal(worker.name))
            case _:
                worker.freeze()
                self._in(fault.lasts_s, worker.thaw)
        return f"{what} {fault.lasts_s:.0f} s"

    def _visit(self, fault: Fault) -> str:
        visitor = Worker(f"v{len(self._visitors)}", self._env(None), self._folder)
        self._visitors.append(visitor)
        visitor.start()
        self._in(fault.lasts_s, visitor.kill if fault.hard else visitor.stop)
        return f"{visitor.name} joins, {'killed' if fault.hard else 'stopped'} after {fault.lasts_s:.0f} s"

    def _end(self, worker: Worker, fault: Fault) -> None:
        if fault.hard:
            self._start_in(worker, fault.lasts_s)
            worker.kill()
        else:
            worker.stop()

    def _heal(self, name: str) -> None:
        self._cut.discard(name)
        self._proxies[name].heal()

    def _state(self, worker: Worker) -> str:
        if worker.down:
            return "down"
        if worker.frozen:
            return "frozen"
        if worker.name in self._cut:
            return "cut"
        return "up" if worker.free else "stopping"

    def _calm(self, traffic: Traffic) -> int:
        """Let the last faults pass and send the last events; returns how many got no answer."""
        over = max((at for at, _, _ in self._due), default=0.0)
        while self._now < over:
            self._tick()
            time.sleep(TICK_S)
        for worker in (*self._workers, *self._visitors):
            worker.thaw()
        for name in list(self._cut):
            self._heal(name)
        for node in self._nodes:
            node.launch()
        for node in self._nodes:
            node.await_ready()
        return traffic.stop()

    def _drain(self) -> int:
        """Wait until everything is committed, workers coming back meanwhile; returns what is not."""
        deadline = time.monotonic() + self.weather.drain_s
        left = -1
        while time.monotonic() < deadline:
            asked = time.monotonic() + 1.0
            while time.monotonic() < asked:
                self._tick()
                time.sleep(TICK_S)
            try:
                left = lag(self.stage)
            except KafkaException as error:
                self._say(f"not judged yet: {error.args[0].str()}")
                continue
            if (
                left == 0
                and all(visitor.down for visitor in self._visitors)
                and all(worker.idle for worker in self._workers)
            ):
                return 0
        return left

    def _settle_transactions(self) -> int:
        """Wait until no transaction is open: an owner that died has its own ended by the next."""
        deadline = time.monotonic() + 2 * SESSION_S
        while (hanging := open_transactions(self.stage)) and time.monotonic() < deadline:
            self._tick()
            time.sleep(TICK_S)
        return hanging

    def _stop_all(self) -> None:
        """Ask all workers to end, and wait for it."""
        for worker in self._workers:
            worker.stop()
        while not all(worker.down for worker in self._workers):
            for worker in self._workers:
                worker.look()
            time.sleep(TICK_S)

    def _kill_all(self) -> None:
        for worker in (*self._workers, *self._visitors):
            worker.kill()


@contextmanager
def logs(keep: Path | None) -> Iterator[Path]:
    """A folder for the logs of a storm: `keep`, or a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="mmrec-storm-") as folder:
            yield Path(folder)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep


def have(weather: Weather, folder: Path) -> Outcome:
    """Have a storm, and tell of it on the console."""
    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {line}", markup=False, highlight=False, soft_wrap=True)

    return Storm(weather, folder, say).run()
