"""The loop of a shop: events come in, the trainer re-exports on its schedule, workers take over what is good.

Every part is a process of its own, as `mmrec` starts it. The bad re-export is what a shop meets when the key of its
trainer is changed before the workers trust the new one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import pytest

from mmrec_stream.contracts.behaviour import Follow, decode_event
from mmrec_stream.contracts.catalogue import decode_item, encode_item
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.operations.rollouts import read_state
from mmrec_stream.releases.rollout import MIN_COMPARED, Rollout
from mmrec_stream.releases.signing import new_key
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.conftest import Pool, available, corner, environment
from tests.integration.workers import WorkerProcess, folded, length, lists, newest_lists, publish, wait_for

# A minute on two free cores, most of which processes take to start.
pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(600)]

COMPARED = 48
"""Users who get a list at a time. With three times as many a stage cannot end, as it takes `MIN_COMPARED`: so none ends
while a worker starts anew."""

PATIENCE_S = 150.0
"""s, for a training, or a stage: some five on two free cores."""

TRAIN = ("train", "--from", "kafka", "--every", "2s", "--stage", "shadow", "--shadow", "0", "--canary", "0")
SMALL = ("--share", "0.5", "--epochs", "1", "--encoders", "id,attributes", "--dim", "16", "--threads", "1")


@pytest.fixture
def settings(pool: Pool, tmp_path: Path) -> Settings:
    """On one broker, as this takes long; that others behave alike is seen elsewhere."""
    return corner(pool.get(available()[0]), "loop", tmp_path)


class Shop:
    """A small shop's log, replayed piece by piece, and its trainer's log."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._topics, self._folder = settings, Topics.of(settings), folder
        log = folder / "log"
        _mmrec(settings, "simulate", "--items", 60, "--users", 100, "--days-before", 3, "--rate", 0, "--out", log)
        with BatchProducer(settings) as producer:
            for line in (log / "catalogue.jsonl").read_bytes().splitlines():
                item = decode_item(line)
                producer.send(self._topics.catalogue, encode_item(item), key=item.item_id.encode())
        events = (log / "events.jsonl").read_bytes().splitlines(keepends=True)
        first, step = len(events) * 7 // 10, len(events) // 50
        self._pieces = iter([events[:first], *(events[at : at + step] for at in range(first, len(events), step))])
        self._learned = 0
        self._users = cycle(sorted({decode_event(line).user_id for line in events[:first]}))
        self.sent = 0

    def train(self) -> Rollout:
        """Replay until the trainer has announced another release; returns that, when all that is there is learned from.

        Its gate may refuse one: then more events come.
        """
        deadline, before = time.monotonic() + PATIENCE_S, len(self.announced())
        while len(self.announced()) == before:
            assert time.monotonic() < deadline, "the trainer's gate lets nothing pass"
            piece, file = next(self._pieces), self._folder / "piece.jsonl"
            file.write_bytes(b"".join(piece))
            _mmrec(self._settings, "replay", file)
            self.sent += len(piece)
            self._learned += sum(not isinstance(decode_event(line), Follow) for line in piece)
            wait_for("a round with all that is there", self._learned_all, PATIENCE_S)
        return self.announced()[-1]

    def _learned_all(self) -> bool:
        """Whether the trainer has gone through a round in which nothing was missing: until more comes, it rests."""
        _, _, then = (self._folder / "trainer.log").read_text().partition(f"\n{self._learned:,} events of")
        return "announced to" in then or "made no release" in then

    def announced(self) -> list[Rollout]:
        """All releases, as of now."""
        return read_state(self._settings).rollouts

    def stage(self, release: Rollout) -> Rollout:
        """A release as of now."""
        return next(one for one in self.announced() if one.version == release.version)

    def look(self, users: Sequence[str] = ()) -> dict[str, str]:
        """Some do what brings them a list and has nothing to learn from; which release made each one's."""
        users = users or list(islice(self._users, COMPARED))
        before, now = length(self._settings, self._topics.recommendations), int(time.time() * 1000)
        follows = [Follow(user_id=user, followed_user_id="somebody", ts=now) for user in users]
        self.sent += publish(self._settings, follows)
        wait_for("their lists", lambda: length(self._settings, self._topics.recommendations) >= before + len(users))
        newest = newest_lists(self._settings)
        return {user: newest[user].release for user in users}

    def bring(self, release: Rollout, stage: str) -> None:
        """Have users compared until a release is as far."""
        deadline = time.monotonic() + PATIENCE_S
        while (now := self.stage(release)).stage != stage:
            assert now.stage != "withdrawn", now.reason
            assert time.monotonic() < deadline, now
            self.look()


def test_a_shop_goes_on_through_re_exports_of_which_one_is_bad_and_through_restarts_in_every_stage(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    assert 3 * COMPARED + 16 < MIN_COMPARED
    (trusted, public), (strange, _) = new_key(), new_key()
    key = tmp_path / "trainer.pem"
    key.write_text(trusted)
    shop = Shop(settings, tmp_path)

    @contextmanager
    def worker(name: str, release: str, trial: tuple[str, str] | None = None) -> Iterator[WorkerProcess]:
        """One that begins with these releases, and ends as it is asked to."""
        with WorkerProcess(settings, tmp_path / f"{name}.log", release_keys=public) as running:
            status = running.wait_ready().status()
            assert status["release"] == release
            found = status["trial"]
            assert (found and (found["release"], found["stage"])) == trial
            yield running
            assert running.stop() == 0

    with _trainer(settings, tmp_path / "trainer.log", key):
        with worker("first", "none") as running:
            first = shop.train()
            wait_for("the first release", lambda: running.status().get("release") == first.version)
            second = shop.train()
            wait_for("a trial", lambda: running.status().get("trial"))
            assert set(shop.look().values()) == {first.version}
            wait_for("users compared", lambda: running.status()["trial"].get("errors", [0, 0])[1])

        with worker("in-shadow", first.version, (second.version, "shadow")):
            assert set(shop.look().values()) == {first.version}
            shop.bring(second, "canary")
            seen = shop.look()
            assert set(seen.values()) == {first.version, second.version}

        with worker("in-canary", first.version, (second.version, "canary")):
            assert shop.look(list(seen)) == seen
            shop.bring(second, "live")

        with worker("live", second.version) as running:
            assert set(shop.look().values()) == {second.version}
            key.write_text(strange)
            third = shop.train()
            wait_for("the refusal", lambda: shop.stage(third).stage == "withdrawn")
            assert "cannot load it" in (why := shop.stage(third).reason)
            assert "none of those in MMREC_RELEASE_KEYS" in why
            assert running.status()["release"] == second.version
            assert set(shop.look().values()) == {second.version}
            key.write_text(trusted)
            fourth = shop.train()
            shop.bring(fourth, "canary")
            _mmrec(settings, "release", "promote", "--reason", "seen enough")
            wait_for("the last release", lambda: running.status()["release"] == fourth.version)
            assert set(shop.look().values()) == {fourth.version}
            wait_for("every event folded", lambda: folded(settings) == shop.sent)
    made = {one.release for one in lists(settings)}
    assert third.version not in made
    assert shop.stage(fourth).reason == "seen enough"
    assert made >= {first.version, second.version, fourth.version}


@contextmanager
def _trainer(settings: Settings, log: Path, key: Path) -> Iterator[None]:
    told = environment(settings) | {"MMREC_RELEASE_SIGNING_KEY": str(key)}
    with log.open("ab") as file:
        command = (sys.executable, "-m", "mmrec_stream", *TRAIN, *SMALL)
        process = subprocess.Popen(command, env=os.environ | told, stdout=file, stderr=file)
    try:
        yield
    finally:
        process.kill()
        process.wait(30)


def _mmrec(settings: Settings, *arguments: object) -> None:
    command = [sys.executable, "-m", "mmrec_stream", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment(settings), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
