import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmrec_stream.cli import app
from mmrec_stream.contracts.behaviour import encode_event
from mmrec_stream.contracts.catalogue import encode_item
from mmrec_stream.data.sources import read_folder
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.release_report import question_of
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import blank_features
from mmrec_stream.releases import verify_release
from mmrec_stream.simulator import Shoppers, make_shop
from tests.tiny import NOW, tiny_release


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log that the tiny release was trained on, as a folder."""
    folder = tmp_path_factory.mktemp("log")
    shop = make_shop(60, seed=3)
    events = Shoppers(shop, 80, seed=3, sessions_per_day=2.0).past(3.0, NOW)
    (folder / "events.jsonl").write_bytes(b"".join(encode_event(event) + b"\n" for event in events))
    (folder / "catalogue.jsonl").write_bytes(b"".join(encode_item(item) + b"\n" for item in shop))
    return folder


@pytest.fixture(scope="module")
def release() -> str:
    return str(tiny_release())


def _since(hours: float) -> str:
    return (datetime.fromtimestamp(NOW / 1000, UTC) - timedelta(hours=hours)).isoformat()


def test_a_release_is_judged_and_reported(log: Path, release: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    arguments = ["evaluate", release, "--data", str(log), "--since", _since(36), "--out", str(out), "--k", "5,10"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    page = (out / "report.html").read_text(encoding="utf-8")
    for said in ("By history length", "By item age", "Live profile against one refreshed daily", "data:image/"):
        assert said in page
    text = (out / "report.md").read_text(encoding="utf-8")
    figures = json.loads((out / "figures.json").read_bytes())["methods"]
    names = ["release", "release, α = 1", "release, α = 0", "popularity", "co-occurrence", "item kNN", "content kNN"]
    assert list(figures) == names
    header = next(line for line in text.splitlines() if line.startswith("| metric |"))
    assert [cell.strip() for cell in header.split("|")[2:-1]] == names
    assert all(name in result.output for name in names)
    for figure in figures.values():
        assert figure["NDCG@10"]["low"] <= figure["NDCG@10"]["value"] <= figure["NDCG@10"]["high"]
    # In its own training period a release must foresee more than popularity does.
    assert figures["release"]["NDCG@10"]["value"] > figures["popularity"]["NDCG@10"]["value"]
    assert figures["release, α = 1"] != figures["release, α = 0"]


def test_methods_beside_a_release_learn_from_nothing_that_is_judged(log: Path, release: str) -> None:
    manifest = verify_release(Path(release))
    since = NOW - 36 * 3_600_000
    question = question_of(read_folder(log), manifest, "time", since)
    assert question.refit is not None
    assert question.refit.times.max() < since <= question.test.times.min()
    assert question.train.times.max() < question.validation.times.min()


def test_both_halves_of_a_release_are_its_own(release: str) -> None:
    scorer = Scorer.load(Path(release), provider="cpu", threads=1)
    for alpha in (0.0, 1.0):
        lists = scorer.at_alpha(alpha).run(blank_features(2, 5), 5)
        half = lists.p_user if alpha else lists.p_item
        assert np.allclose(lists.alpha, alpha, atol=1e-5)
        assert np.allclose(lists.scores, half, atol=1e-5)
    assert not np.allclose(scorer.run(blank_features(2, 5), 5).alpha, 1.0, atol=1e-7)


def test_events_the_release_has_learned_from_are_not_judged_by_themselves(log: Path, release: str) -> None:
    with pytest.raises(UserError, match="give it newer events"):
        CliRunner().invoke(app, ["evaluate", release, "--data", str(log)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "say where the events are"),
        (["--data", "{log}", "--k", "ten"], "--k ten"),
        (["--data", "{log}", "--k", "0"], "from 1 to 1000"),
        (["--data", "{log}", "--since", "yesterday"], "--since yesterday"),
    ],
)
def test_mistakes_are_told(log: Path, release: str, options: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        CliRunner().invoke(
            app, ["evaluate", release, *(o.replace("{log}", str(log)) for o in options)], catch_exceptions=False
        )
