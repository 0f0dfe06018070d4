import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.quality import table
from benchmarks.quality.methods import methods_for
from benchmarks.quality.ours import Trainings
from benchmarks.quality.published import published_lists
from benchmarks.quality.sets import data_folder, load
from mmrec_stream.errors import UserError

needs_data = pytest.mark.skipif("MMREC_DATA" not in os.environ, reason="MMREC_DATA names no folder of public data sets")


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """Forty users who each walk a stretch of the same road of ten places."""
    path = tmp_path / "road.txt"
    starts = np.random.default_rng(0).integers(0, 10, 40)
    lines = [
        f"u{user} " + " ".join(f"p{(start + step) % 10}" for step in range(6)) for user, start in enumerate(starts)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_file_of_ones_own_is_judged_in_one_command(sequences: Path, tmp_path: Path) -> None:
    results = tmp_path / "quality.jsonl"
    arguments = ["--set", str(sequences), "--methods", "popularity,cooccurrence", "--results", str(results)]
    assert main(["quality", *arguments]) == 0
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert all(set(line) == {"set", "method", "metric", "value", "low", "high"} for line in lines)
    found = {(line["set"], line["method"], line["metric"]): line for line in lines}
    assert found["road", "cooccurrence", "HR@10"]["value"] == 1.0
    assert found["road", "cooccurrence", "NDCG@10"]["value"] > found["road", "popularity", "NDCG@10"]["value"]
    assert found["road", "popularity", "NDCG@10"]["low"] <= found["road", "popularity", "NDCG@10"]["value"]
    report = (tmp_path / "quality-road" / "report.md").read_text(encoding="utf-8")
    assert "| cooccurrence |" in report


def test_a_second_run_replaces_the_figures_of_its_methods_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "quality.jsonl"
    table.keep(path, [table.Line("a", "x", "HR@10", 0.1, None, None), table.Line("a", "y", "HR@10", 0.2, None, None)])
    table.keep(path, [table.Line("a", "x", "HR@10", 0.3, 0.2, 0.4)])
    kept = {(line["method"], line["value"]) for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    assert kept == {("y", 0.2), ("x", 0.3)}


def test_the_report_has_the_methods_of_earlier_runs_too(sequences: Path, tmp_path: Path) -> None:
    results = tmp_path / "quality.jsonl"
    for method in ("popularity", "cooccurrence"):
        assert main(["quality", "--set", str(sequences), "--methods", method, "--results", str(results)]) == 0
    report = (tmp_path / "quality-road" / "report.md").read_text(encoding="utf-8")
    assert "| popularity |" in report
    assert "| cooccurrence |" in report


def test_methods_are_compared_case_by_case(sequences: Path, tmp_path: Path) -> None:
    results = tmp_path / "quality.jsonl"
    arguments = ["quality", "--set", str(sequences), "--results", str(results)]
    assert main([*arguments, "--methods", "popularity"]) == 0
    assert main([*arguments, "--methods", "cooccurrence", "--against", "popularity"]) == 0
    lines = {(line["method"], line["metric"]): line for line in map(json.loads, results.open(encoding="utf-8"))}
    above = lines["cooccurrence", "NDCG@10 above popularity"]
    difference = lines["cooccurrence", "NDCG@10"]["value"] - lines["popularity", "NDCG@10"]["value"]
    assert above["value"] == pytest.approx(difference)
    assert 0 < above["low"] < above["value"] < above["high"]
    assert main([*arguments, "--methods", "popularity", "--against", "cooccurrence", "--kept"]) == 0
    lines = {(line["method"], line["metric"]): line for line in map(json.loads, results.open(encoding="utf-8"))}
    assert lines["popularity", "NDCG@10 above cooccurrence"]["value"] == pytest.approx(-difference)
    assert lines["popularity", "NDCG@10"]["value"] > 0
    assert lines["cooccurrence", "NDCG@10 above popularity"] == above


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "nowhere.txt"], "neither a set"),
        (["--set", "{}", "--methods", "magic"], "no such method"),
        (["--set", "{}", "--methods", "popularity", "--against", "ease"], "ease: not judged on road yet"),
    ],
)
def test_mistakes_end_with_a_line_that_says_what_to_do(
    sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    asked = [argument.replace("{}", str(sequences)) for argument in arguments]
    assert main(["quality", *asked, "--results", str(tmp_path / "quality.jsonl")]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert says in shown
    assert "Traceback" not in shown


def test_without_the_data_folder_a_public_set_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMREC_DATA", raising=False)
    with pytest.raises(UserError, match="MMREC_DATA must name"):
        load("beauty")


def test_every_method_of_the_table_is_there(sequences: Path) -> None:
    names = set(methods_for(load(str(sequences)), Trainings()))
    wanted = {"popularity", "item-knn", "cooccurrence", "ease", "als", "bpr", "neural-cf", "gru4rec", "sasrec"}
    assert wanted | {"ours", "ours alpha=0", "ours alpha=1"} <= names


@needs_data
@pytest.mark.data
def test_published_lists_get_their_published_figures() -> None:
    judged = load("yoochoose")
    lists = published_lists(data_folder(), judged)
    assert len(judged.split.test) == 387
    expected = {"vsknn": (0.6098, 0.3342), "gru4rec": (0.5711, 0.3289), "sr": (0.5607, 0.3275), "ar": (0.5917, 0.3160)}
    for name, (hit_rate, reciprocal_rank) in expected.items():
        figures = table.of_lists(judged, [lists[f"{name} (published lists)"]]).figures
        assert figures["HR@20"].value == pytest.approx(hit_rate, abs=5e-5)
        assert figures["MRR@20"].value == pytest.approx(reciprocal_rank, abs=5e-5)


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "users", "items", "events", "cases"),
    [("lastfm", 1_090, 3_646, 52_551, 1_090), ("hm", 1_364, 14_822, 28_983, 595)],
)
def test_public_sets_have_the_counts_that_their_sources_and_splits_leave(
    name: str, users: int, items: int, events: int, cases: int
) -> None:
    judged = load(name)
    dataset = judged.dataset
    assert (dataset.users, dataset.items, len(dataset.interactions)) == (users, items, events)
    assert len(judged.split.test) == cases


@needs_data
@pytest.mark.data
def test_being_unknown_says_nothing_of_being_asked_for_on_hm() -> None:
    judged = load("hm")
    split = judged.split
    assert split.refit is not None
    known = np.bincount(split.refit.items, minlength=judged.dataset.items) > 0
    asked = np.zeros(judged.dataset.items, dtype=bool)
    asked[split.test.targets.values] = True
    assert (~known).mean() == pytest.approx(0.2, abs=0.01)
    assert asked[~known].mean() == pytest.approx(asked[known].mean(), rel=0.15)


@needs_data
@pytest.mark.data
def test_what_a_shuffled_set_has_is_the_same_in_another_order() -> None:
    files, shuffled = load("beauty").dataset.interactions, load("beauty-shuffled").dataset.interactions
    assert (files.items != shuffled.items).any()
    assert (shuffled.users == files.users).all()
    order, other = np.lexsort((files.items, files.users)), np.lexsort((shuffled.items, shuffled.users))
    assert (files.items[order] == shuffled.items[other]).all()
