from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmrec_stream.cli import app
from mmrec_stream.contracts.behaviour import encode_event
from mmrec_stream.contracts.catalogue import encode_item
from mmrec_stream.errors import UserError
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
    line = next(line for line in text.splitlines() if line.startswith("| NDCG@10 |"))
    ours, popular = (float(cell.split()[0]) for cell in line.split("|")[2:4])
    # In its own training period a release must foresee more than popularity does.
    assert ours > popular


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
