from pathlib import Path
from xml.etree import ElementTree

from mmrec_stream.evaluation.report import Example, Plot, Report, Shown, Table, plot_svg, to_html, to_markdown, write

REPORT = Report(
    "A <b>report</b>",
    {"release": "r|1"},
    [
        Table("Figures", ["metric", "value"], [["a|b", "<script>1</script>"]], note="all of it"),
        Plot("Curve", "pass", "NDCG", {"one & only": [(1, 0.1), (2, 0.3)]}),
        Example("anna", [Shown("i1", "Blue <coat>", b"\x89PNG....")], [Shown("i2", taken=True)], [Shown("i2")]),
    ],
)


def test_html_escapes_every_text_and_embeds_pictures() -> None:
    page = to_html(REPORT)
    assert "<script>" not in page
    assert "<b>report" not in page
    assert "Blue &lt;coat&gt;" in page
    assert 'src="data:image/png;base64,' in page
    assert 'class="item took"' in page


def test_markdown_keeps_its_tables_whole() -> None:
    text = to_markdown(REPORT)
    assert "| a\\|b | &lt;script>1&lt;/script> |" in text
    assert "![Curve](plot-01.svg)" in text
    assert "- was recommended: **i2**" in text


def test_a_plot_is_well_formed_and_stays_inside_its_frame() -> None:
    root = ElementTree.fromstring(plot_svg(Plot("flat", "x", "y", {"a": [(0, 5), (10, 5)], "b": []})))  # noqa: S314
    lines = [line.attrib["points"] for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    points = [tuple(map(float, point.split(","))) for point in lines[0].split()]
    assert all(0 <= x <= 640 and 0 <= y <= 300 for x, y in points)
    assert lines[1] == ""


def test_writing_leaves_a_page_and_a_markdown_file_with_its_plots(tmp_path: Path) -> None:
    page = write(REPORT, tmp_path / "deep" / "folder")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {file.name for file in page.parent.iterdir()} == {"report.html", "report.md", "plot-01.svg"}
