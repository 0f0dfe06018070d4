"""Products on their way to a vector: none waits for a picture, and each has what it last was said to be."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.pictures import reading
from mmrec_stream.pictures.reading import READ_SIDE
from mmrec_stream.pictures.sources import Sources
from mmrec_stream.pictures.thumbnails import thumbnail
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.simulator import make_shop
from streams import encoding
from streams.encoding import Encoding
from streams.metrics import Metrics
from tests.integration.workers import wait_for
from tests.tiny import tiny_dataset, tiny_release

SHOP = make_shop(90, seed=5)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer.load(tiny_release(), provider="cpu", threads=1)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Pictures are read when the test says so."""
    told, file = threading.Event(), reading._file

    def later(path: Path) -> bytes:
        assert told.wait(30)
        return file(path)

    monkeypatch.setattr(reading, "_file", later)
    yield told
    told.set()


@pytest.fixture
def line(scorer: Scorer, tmp_path: Path) -> Iterator[Encoding]:
    def take(scorer: Scorer, items: Sequence[CatalogueItem], vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        return scorer.learn(items, vectors)[1]

    line = Encoding(Sources.of(tmp_path, []), lambda: [scorer], take, Metrics())
    line.start()
    yield line
    line.stop()


def product(place: int, **more: Any) -> CatalogueItem:
    return CatalogueItem(item_id=f"fresh-{place}", title=SHOP[place].title, category=SHOP[place].category, **more)


def vector(scorer: Scorer, item_id: str) -> Callable[[], Any]:
    def found() -> Any:
        row = scorer.table.row(item_id)
        return scorer.table.vectors[row].copy() if row >= 0 else None

    return found


def is_made(scorer: Scorer, item_id: str) -> Any:
    return wait_for(f"a vector of {item_id}", lambda: scorer.table.row(item_id) >= 0) and vector(scorer, item_id)()


def counted(line: Encoding, outcome: str) -> float:
    return float(line._metrics.pictures.labels(outcome=outcome)._value.get())


def test_a_product_is_there_by_its_text_before_its_picture_and_by_both_after(
    scorer: Scorer, line: Encoding, tmp_path: Path, held: threading.Event
) -> None:
    picture = SHOP[80].thumbnail
    assert picture is not None
    (tmp_path / "a.png").write_bytes(picture)
    line.put([product(80, image_url="/a.png")])
    before = is_made(scorer, "fresh-80")
    assert np.allclose(before, scorer.encode([product(80)])[0], atol=1e-5)
    line.put([product(80, image_url="/a.png", stock=3)])  # while the picture is on its way
    held.set()
    wait_for("the picture", lambda: (vector(scorer, "fresh-80")() != before).any())
    wait_for("one reading", lambda: counted(line, "read") == 1)
    both = scorer.encode([product(80, thumbnail=thumbnail(picture, READ_SIDE))])[0]
    assert np.allclose(vector(scorer, "fresh-80")(), both, atol=1e-5)
    line.put([product(80, image_url="/a.png", stock=2)])
    line.put([product(81)])
    is_made(scorer, "fresh-81")
    assert counted(line, "read") == 1  # nothing to encode, nothing to read


def test_a_broken_picture_costs_itself_alone_and_is_counted_and_told(
    scorer: Scorer, line: Encoding, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    line.put([product(81, image_url="/b.png"), product(82, thumbnail=b"none either"), product(83)])
    for place in (81, 82, 83):
        assert np.allclose(is_made(scorer, f"fresh-{place}"), scorer.encode([product(place)])[0], atol=1e-5)
    wait_for("both counted", lambda: counted(line, "broken") == 2)
    assert "the picture of fresh-8" in caplog.text
    assert "mmrec pictures" in caplog.text


def test_a_trained_product_keeps_its_vector_until_its_other_picture_has_come(
    scorer: Scorer, line: Encoding, tmp_path: Path, held: threading.Event
) -> None:
    (trained, *_) = tiny_dataset().catalogue or ()
    trained = msgspec.structs.replace(trained, thumbnail=None, image_url="/old.png")
    row = scorer.table.row(trained.item_id)
    before = scorer.table.vectors[row].copy()
    picture = SHOP[70].thumbnail
    assert picture is not None
    (tmp_path / "c.png").write_bytes(picture)
    line.put([trained])
    line.put([product(84)])
    is_made(scorer, "fresh-84")
    line.put([msgspec.structs.replace(trained, image_url="/c.png")])
    line.put([product(85)])
    is_made(scorer, "fresh-85")
    assert (scorer.table.vectors[row] == before).all()
    held.set()
    wait_for("the other picture", lambda: (scorer.table.vectors[row] != before).any())
    assert counted(line, "read") == 1


def test_a_product_that_was_taken_out_gets_no_vector_from_a_late_picture(
    scorer: Scorer, line: Encoding, tmp_path: Path, held: threading.Event
) -> None:
    (tmp_path / "d.png").write_bytes(SHOP[80].thumbnail or b"")
    line.put([product(86, image_url="/d.png")])
    before = is_made(scorer, "fresh-86")
    line.drop(["fresh-86"])
    held.set()
    line.put([product(87, image_url="/d.png")])
    wait_for("the next one's picture", lambda: counted(line, "read") >= 1)
    assert (vector(scorer, "fresh-86")() == before).all()


def test_more_than_may_wait_do_without(
    scorer: Scorer, line: Encoding, tmp_path: Path, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MOST_ASKED", 1)
    (tmp_path / "e.png").write_bytes(SHOP[80].thumbnail or b"")
    line.put([product(88, image_url="/e.png"), product(89, image_url="/e.png")])
    is_made(scorer, "fresh-89")
    held.set()
    wait_for("one picture", lambda: counted(line, "read") == 1)
    assert not line._asked
