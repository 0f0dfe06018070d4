"""The parts of a storm that need no broker: the schedule, the shoppers, the network that can be cut."""

import itertools
import json
import socket
import socketserver
import struct
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.storm import workers
from benchmarks.storm.faults import LONG, SHORT, Kind, schedule
from benchmarks.storm.judge import read_event
from benchmarks.storm.proxy import Proxy
from benchmarks.storm.traffic import MOST_PER_USER, Shoppers, Traffic
from benchmarks.storm.workers import Worker
from mmrec_stream.brokers import free_port

FETCH, HEARTBEAT = 1, 12


def test_a_seed_gives_one_schedule_and_another_seed_another() -> None:
    one, same, other = (list(itertools.islice(schedule(seed, LONG), 50)) for seed in (1, 1, 2))
    assert one == same != other
    assert all(4 <= fault.wait_s <= 12 for fault in one)


@pytest.mark.parametrize("kinds", [SHORT, LONG])
def test_every_kind_comes_early_and_the_frequent_ones_often(kinds: tuple[Kind, ...]) -> None:
    faults = list(itertools.islice(schedule(5, kinds), 500))
    assert {fault.kind for fault in faults[: len(kinds)]} == set(kinds)
    counts = Counter(fault.kind for fault in faults)
    assert counts[Kind.KILL] > counts[Kind.STOP] > counts[Kind.BROKER] > 0


def test_what_outlasts_the_session_is_longer_than_it() -> None:
    faults = list(itertools.islice(schedule(5, LONG, session_s=45), 300))
    assert all(fault.lasts_s >= 45 for fault in faults if fault.kind in (Kind.FREEZE_LONG, Kind.CUT))


def test_shoppers_have_a_second_for_each_event_and_some_are_late() -> None:
    shoppers, twin = Shoppers(1, 200), Shoppers(1, 200)
    seconds: defaultdict[str, list[int]] = defaultdict(list)
    topics, bad, ahead = set(), 0, 0
    for number in range(20_000):
        now = 1_790_000_000 + number / 100
        record = shoppers.next(now)
        assert record == twin.next(now)
        event = read_event(record.value, int(now * 1000))
        if isinstance(event, str):
            bad += 1
            continue
        topics.add(record.topic)
        seconds[event["user_id"]].append(event["ts"] // 1000)
        ahead = max(ahead, event["ts"] // 1000 - int(now))
        assert record.key == event["user_id"].encode()
    assert topics == {"clicks", "purchases", "feedback"}
    assert len(seconds) == 200
    assert all(len(set(of_user)) == len(of_user) for of_user in seconds.values())
    assert sum(of_user != sorted(of_user) for of_user in seconds.values()) > 100
    assert ahead < 60
    assert 20 < bad < 120


def test_more_events_than_users_can_have_are_refused() -> None:
    with pytest.raises(ValueError, match="too many for 100 users"):
        Traffic("127.0.0.1:1", "x.", seed=1, users=100, rate=100 * MOST_PER_USER + 1)


class _Broker(socketserver.BaseRequestHandler):
    """Answers every request with the request."""

    def handle(self) -> None:
        while head := self.request.recv(4, socket.MSG_WAITALL):
            body = self.request.recv(int.from_bytes(head), socket.MSG_WAITALL)
            self.request.sendall(head + body)


@pytest.fixture
def network() -> Iterator[tuple[Proxy, int]]:
    """A proxy before a broker, and the port to reach it by."""
    port = free_port()
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Broker) as broker,
        Proxy([(port, broker.server_address[1])]) as proxy,
    ):
        broker.daemon_threads = True
        threading.Thread(target=broker.serve_forever, daemon=True).start()
        yield proxy, port
        broker.shutdown()


def test_a_cut_holds_back_the_group_and_nothing_else(network: tuple[Proxy, int]) -> None:
    proxy, port = network
    with _connected(port) as data, _connected(port) as group:
        assert _ask(data, FETCH, b"x" * 200_000)
        assert _ask(group, HEARTBEAT)
        proxy.cut()
        assert _ask(data, FETCH)
        assert not _ask(group, HEARTBEAT, patience_s=0.4)
        with _connected(port) as late:
            assert _ask(late, FETCH)
            assert not _ask(
                late, HEARTBEAT, patience_s=0.4
            )  # a new connection is the group's from its first such request on
        proxy.heal()
        group.settimeout(30)
        assert _receive(group) == _request(HEARTBEAT)  # nothing was lost: it is late
        assert _ask(group, FETCH)


def test_connections_end_with_the_broker_that_they_lead_to() -> None:
    port = free_port()
    with Proxy([(port, free_port())]), _connected(port) as client:
        assert client.recv(1) == b""


def _connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=5)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _request(key: int, body: bytes = b"hello") -> bytes:
    return struct.pack(">ih", len(body) + 2, key) + body


def _ask(client: socket.socket, key: int, body: bytes = b"hello", *, patience_s: float = 30) -> bool:
    """Whether a request gets its answer."""
    client.sendall(_request(key, body))
    client.settimeout(patience_s)
    try:
        return _receive(client) == _request(key, body)
    except TimeoutError:
        return False


def _receive(client: socket.socket) -> bytes:
    got = b""
    while len(got) < 4 or len(got) < 4 + int.from_bytes(got[:4]):
        got += client.recv(1 << 16)
    return got


SCRIPT = """
import signal, sys, time
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "clean" in sys.argv: signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if "crash" in sys.argv: signal.signal(signal.SIGTERM, lambda *_: 1 / 0)
print("begun", flush=True)
time.sleep(60)
"""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Worker:
    """A worker whose command is a script that ends in the way that the test's parameter says."""
    monkeypatch.setattr(workers, "COMMAND", (sys.executable, "-c", SCRIPT, request.param))
    monkeypatch.setattr(workers, "STOP_S", 1.0)
    worker = Worker("w", {}, tmp_path)
    worker.start()
    _until(lambda: b"begun" in worker.log.read_bytes())
    return worker


@pytest.mark.parametrize(
    ("started", "cause", "well"),
    [("clean", "stopped", True), ("crash", "stopped", False), ("deaf", "late", False)],
    indirect=["started"],
)
def test_how_a_worker_ends_that_is_asked_to(started: Worker, cause: str, well: bool) -> None:
    started.stop()
    assert not started.free
    _until(lambda: started.look() is not None)
    (ending,) = started.endings
    assert (ending.cause, ending.well) == (cause, well)
    assert started.down


@pytest.mark.parametrize("started", ["clean"], indirect=True)
def test_a_frozen_worker_goes_on_and_a_killed_one_starts_again(started: Worker) -> None:
    started.freeze()
    _until(lambda: _kernel_state(started.pid) == "T")
    assert not started.free
    started.thaw()
    _until(lambda: _kernel_state(started.pid) != "T")
    _until(lambda: started.free)
    started.kill()
    assert [(one.cause, one.well) for one in started.endings] == [("killed", True)]
    first = started.log
    started.start()
    assert started.log != first
    started.kill()


def _kernel_state(pid: int | None) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def _until(condition: object) -> None:
    """The test's time limit ends what never comes."""
    assert callable(condition)
    while not condition():
        pass


def test_the_pages_of_a_worker_that_is_not_there_say_nothing(tmp_path: Path) -> None:
    worker = Worker("w", {}, tmp_path)
    assert worker.page("health") == (0, {})
    assert json.dumps(worker.endings) == "[]"
