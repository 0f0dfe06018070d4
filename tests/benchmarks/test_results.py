from pathlib import Path

import msgspec
import pytest

from benchmarks.document import command as document
from benchmarks.results import Figure, Report, Target, describe, readable
from mmrec_stream.processor import these_instruction_sets, this_processor


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report("toy", quick=True, directory=tmp_path, broker="none")


def test_a_figure_is_the_median_of_its_samples_on_one_line_each(report: Report, tmp_path: Path) -> None:
    report.add("rate", "ours", [3.0, 1.0, 2.0], "events/s", target=Target(1.5))
    report.add("wait", "ours", 7.0, "ms", target=Target(5, at_least=False), note="alone")
    lines = [msgspec.json.decode(line) for line in (tmp_path / "toy.jsonl").read_bytes().splitlines()]
    assert [(line["case"], line["system"], line["value"], line["unit"]) for line in lines] == [
        ("toy.rate", "ours", 2.0, "events/s"),
        ("toy.wait", "ours", 7.0, "ms"),
    ]
    assert [line["met"] for line in lines] == [True, False]
    assert lines[1]["context"]["note"] == "alone"
    assert lines[0]["context"]["cores"] >= 1
    assert lines[0]["context"]["instruction_sets"] == these_instruction_sets()
    assert "BLAS" in lines[0]["context"]["kernels"]
    assert report.value("rate", "ours") == 2.0
    report.close()


def test_a_new_run_replaces_the_figures_of_the_last(report: Report, tmp_path: Path) -> None:
    report.add("rate", "ours", 1.0, "events/s")
    again = Report("toy", quick=True, directory=tmp_path)
    again.add("rate", "ours", 2.0, "events/s")
    assert len((tmp_path / "toy.jsonl").read_bytes().splitlines()) == 1


def test_plots_are_written(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = report.plot("line", lambda axes: axes.plot([1, 2], [3, 4]))
    assert path == tmp_path / "toy-line.png"
    assert path.stat().st_size > 1_000


def test_tables_go_between_their_markers(report: Report, tmp_path: Path) -> None:
    report.add("rate", "ours", [1_000.0, 3_000.0, 2_000.0], "events/s", target=Target(1_500))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: toy -->\nstale\n<!-- end -->\nafter\n<!-- figures: none -->\n<!-- end -->\n")
    document(page, tmp_path)
    text = page.read_text()
    assert "| rate | ours | 2,000 | 1,000 … 3,000 | events/s | ≥ 1,500 met |" in text
    assert "stale" not in text
    assert text.startswith("before\n")
    assert f"{this_processor()} ({', '.join(these_instruction_sets())}), " in text
    assert "not for quoting" in text
    assert "Not measured yet." in text
    document(page, tmp_path)
    assert page.read_text() == text


def test_a_machine_is_described_with_its_instruction_sets_where_they_were_noted() -> None:
    old = {"cpu": "Xeon", "cores": 2, "memory_gib": 24.0, "python": "3.11.7"}
    assert describe(old) == "2 cores of Xeon, 24 GiB, Python 3.11.7"
    noted = {**old, "instruction_sets": ["AVX2", "AVX-512"]}
    assert describe(noted) == "2 cores of Xeon (AVX2, AVX-512), 24 GiB, Python 3.11.7"


@pytest.mark.parametrize(("value", "text"), [(123_456.7, "123,457"), (0.01234, "0.0123"), (99.94, "99.9")])
def test_numbers_are_readable(value: float, text: str) -> None:
    assert readable(value) == text


def test_figures_that_are_missed_say_so_on_the_side_of_their_target() -> None:
    figure = Figure("toy.wait", "ours", 7.0, "ms", [7.0], target=5.0, met=False)
    assert msgspec.json.decode(msgspec.json.encode(figure), type=Figure) == figure
    from benchmarks.document import _verdict

    assert _verdict(figure) == "≤ 5 **missed**"
    assert _verdict(Figure("toy.wait", "ours", 3.0, "ms", [3.0], target=5.0, met=True)) == "≤ 5 met"
    assert _verdict(Figure("toy.rate", "ours", 3.0, "/s", [3.0], target=5.0, met=False)) == "≥ 5 **missed**"
