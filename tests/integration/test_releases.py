"""Releases in a running worker: taken over, refused, and extended by what the catalogue brings."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from mmrec_stream.contracts.behaviour import BehaviourEvent, View
from mmrec_stream.contracts.catalogue import CatalogueItem, decode_item, encode_item
from mmrec_stream.contracts.releases import encode_release
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.operations.rollouts import announce_release
from mmrec_stream.releases import announcement, load_release, sign_release
from mmrec_stream.releases.access import placed
from mmrec_stream.releases.signing import new_key, signing_key
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.integration.workers import WorkerProcess, folded, lists, newest_lists, publish, wait_for
from tests.releases.bucket import ROOT, serving_s3
from tests.tiny import tiny_variant

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], list[CatalogueItem]]:
    """A small shop's catalogue and two releases trained on its log, by the commands that users call."""
    folder = tmp_path_factory.mktemp("trained")
    _mmrec("simulate", "--items", "120", "--users", "150", "--days-before", "3", "--rate", "0", "--out", folder / "log")
    releases = []
    for seed in ("0", "1"):
        store = folder / f"store-{seed}"
        options = ("--epochs", "1", "--encoders", "id,attributes", "--dim", "16", "--seed", seed)
        _mmrec("train", "--data", folder / "log", "--out", store, *options)
        releases += [path for path in store.iterdir() if (path / "manifest.json").exists()]
    items = [decode_item(line) for line in (folder / "log" / "catalogue.jsonl").read_bytes().splitlines()]
    return folder, releases, items


@pytest.fixture
def announce(settings: Settings, topics: Topics) -> Callable[[Path], str]:
    def tell(path: Path) -> str:
        message = announcement(path)
        with BatchProducer(settings) as producer:
            producer.send(topics.releases, encode_release(message), key=b"hybrid")
        return message.version

    return tell


def view(user: str, item: CatalogueItem) -> BehaviourEvent:
    return View(user_id=user, item_id=item.item_id, ts=int(time.time() * 1000))


def test_a_new_release_takes_over_without_dropping_an_event(
    settings: Settings,
    topics: Topics,
    tmp_path: Path,
    trained: tuple[Path, list[Path], list[CatalogueItem]],
    announce: Callable[[Path], str],
) -> None:
    _, (first, second), items = trained
    first_version = announce(first)
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        assert worker.status()["release"] == first_version
        second_version, sent = announce(second), 0

        def taken_over() -> bool:
            nonlocal sent
            sent += publish(settings, [view(f"user-{sent + n}", items[(sent + n) % 60]) for n in range(5)])
            return any(one.release == second_version for one in lists(settings))

        wait_for("lists of the second release", taken_over)
        wait_for("every event folded", lambda: folded(settings) == sent)
        found = wait_for("a list for every user", lambda: len(all_ := newest_lists(settings)) == sent and all_)
    assert {one.release for one in found.values()} <= {first_version, second_version}
    assert all(one.strategy == "hybrid" and one.items for one in found.values())
    for one in found.values():
        for item in one.items:
            mixed = one.alpha * item.p_user + (1 - one.alpha) * item.p_item
            assert item.score == pytest.approx(mixed, rel=1e-3, abs=1e-6)


def test_a_damaged_and_an_unsigned_release_are_refused_and_the_present_one_goes_on(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    private, public = new_key()
    key = signing_key(settings.model_copy(update={"release_signing_key": SecretStr(private)}))
    assert key is not None
    present, damaged, unsigned = (tiny_variant(tmp_path, name) for name in ("present", "damaged", "unsigned"))
    sign_release(present, key)
    sign_release(damaged, key)
    messages = [announcement(path) for path in (present, damaged, unsigned)]
    # Announced whole, then changed by one byte: what is loaded is what was announced, or nothing.
    ranker = damaged / "ranker.onnx"
    content = bytearray(ranker.read_bytes())
    content[len(content) // 2] ^= 1
    ranker.write_bytes(content)
    with BatchProducer(settings) as producer:
        producer.send(topics.releases, encode_release(messages[0]), key=b"present")
    with WorkerProcess(settings, tmp_path / "worker.log", release_keys=public) as worker:
        worker.wait_ready()
        for message, reason in zip(
            messages[1:],
            ("ranker.onnx was changed", "unsigned: it is not signed, and MMREC_RELEASE_KEYS asks for it"),
            strict=True,
        ):
            with BatchProducer(settings) as producer:
                producer.send(topics.releases, encode_release(message), key=message.version.encode())
            _wait_for_line(worker, reason)
        publish(settings, [View(user_id="ann", item_id=load_release(present).item_ids[0], ts=int(time.time() * 1000))])
        one = wait_for("ann's list", lambda: newest_lists(settings).get("ann"))
    assert one.release == "present"
    assert one.items


def test_a_release_comes_out_of_a_store_and_one_that_cannot_be_had_is_waited_for(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    with serving_s3() as s3:
        shared = settings.model_copy(update={"release_store": ROOT})
        first, second = (tiny_variant(tmp_path, name) for name in ("first", "second"))
        announce_release(shared, first, stage="live")
        with WorkerProcess(shared, tmp_path / "worker.log") as worker:
            worker.wait_ready()
            assert worker.status()["release"] == "first"
            told = placed(announcement(second), second, shared)
            s3.stop()
            with BatchProducer(settings) as producer:
                producer.send(topics.releases, encode_release(told), key=b"second")
            _wait_for_line(worker, "release second cannot be had yet, first goes on serving")
            assert worker.status()["release"] == "first"
            s3.start()
            wait_for("the second release", lambda: worker.status()["release"] == "second")


@pytest.mark.parametrize("retrieval", ["whole", "exact"])
def test_a_product_published_now_is_recommendable_without_a_retrain(
    retrieval: str,
    settings: Settings,
    topics: Topics,
    tmp_path: Path,
    trained: tuple[Path, list[Path], list[CatalogueItem]],
    announce: Callable[[Path], str],
) -> None:
    _, (first, _), items = trained
    announce(first)
    model = items[0]
    newcomer = CatalogueItem(
        item_id="brand-new", title=model.title, category=model.category, brand=model.brand, price=model.price
    )
    with WorkerProcess(settings, tmp_path / "worker.log", list_size=200, retrieval=retrieval) as worker:
        worker.wait_ready()
        publish(settings, [view("ann", model)])
        before = wait_for("ann's list", lambda: newest_lists(settings).get("ann"))
        assert "brand-new" not in {item.item_id for item in before.items}
        with BatchProducer(settings) as producer:
            producer.send(topics.catalogue, encode_item(newcomer), key=b"brand-new")

        def recommended() -> bool:
            publish(settings, [view("ann", model)])
            return "brand-new" in {item.item_id for item in newest_lists(settings)["ann"].items}

        wait_for("the newcomer in a list", recommended)
        # Seen once, it is history like any other item.
        publish(settings, [view("bob", newcomer)])
        one = wait_for("bob's list", lambda: newest_lists(settings).get("bob"))
        assert one.strategy == "hybrid"


def _wait_for_line(worker: WorkerProcess, text: str) -> None:
    wait_for(f"{text!r} in the log", lambda: text in worker.log.read_text())


def _mmrec(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmrec_stream", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
