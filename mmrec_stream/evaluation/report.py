"""Reports: tables, plots and example users as one HTML page that needs nothing else, and as Markdown."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

Point = tuple[float, float]

WIDTH, HEIGHT = 640, 300
"""Size of a plot in pixels: two of them fit beside each other on a usual screen."""

LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 40
"""Room around the plotted area for labels."""

COLOURS = ("#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706", "#475569", "#0891b2", "#be185d")
"""Told apart by people with the usual colour blindnesses too, in this order."""

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1360px;padding:0 1rem;color:#1e293b}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2.2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #e2e8f0}
th:first-child,td:first-child{text-align:left}
p.note{color:#64748b}svg{max-width:100%;height:auto}
.row{display:flex;gap:.5rem;overflow-x:auto;padding:.3rem 0}
.item{flex:0 0 92px;font-size:11px;line-height:1.25;text-align:center}
.item img,.item .none{width:88px;height:88px;object-fit:contain;background:#f1f5f9;border-radius:6px;display:block}
.took{outline:3px solid #059669;border-radius:6px}
dt{float:left;clear:left;width:14rem;color:#64748b}dd{margin-left:14.5rem}
"""


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """Lines over a common x axis, one a series."""

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[Point]]
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """An item in an example."""

    item_id: str
    title: str = ""
    picture: bytes | None = None
    """JPEG or PNG."""
    taken: bool = False
    """Whether the user took it next."""


@dataclass(frozen=True)
class Example:
    """What one user had, was recommended, and took."""

    user_id: str
    had: Sequence[Shown]
    got: Sequence[Shown]
    took: Sequence[Shown]


Block = Table | Plot | Example


@dataclass(frozen=True)
class Report:
    """What a report says, in order."""

    title: str
    facts: Mapping[str, str]
    blocks: Sequence[Block]


def write(report: Report, folder: Path) -> Path:
    """Write report.html, report.md and the plots that the latter shows into `folder`; the path of the former."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    page.write_text(to_html(report), encoding="utf-8")
    for number, block in enumerate(report.blocks):
        if isinstance(block, Plot):
            (folder / _plot_file(number)).write_text(plot_svg(block), encoding="utf-8")
    (folder / "report.md").write_text(to_markdown(report), encoding="utf-8")
    return page


def to_html(report: Report) -> str:
    """The report as one page; every text is escaped, every picture embedded."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts.items())
    body = "".join(_block_html(block) for block in report.blocks)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(report.title)}</h1><dl>{facts}</dl>{body}</html>\n"
    )


def to_markdown(report: Report) -> str:
    """The report as Markdown; plots are files beside it."""
    parts = [f"# {report.title}", "\n".join(f"- {name}: {_cell(value)}" for name, value in report.facts.items())]
    for number, block in enumerate(report.blocks):
        if isinstance(block, Example):
            lists = {"had": block.had, "was recommended": block.got, "took": block.took}
            named = (f"- {what}: " + ", ".join(_name(item) for item in items) for what, items in lists.items())
            parts += [f"## User {_cell(block.user_id)}", "\n".join(named)]
            continue
        parts.append(f"## {block.title}")
        if isinstance(block, Plot):
            parts.append(f"![{block.title}]({_plot_file(number)})")
        else:
            rows = [block.header, ["---"] + ["---:"] * (len(block.header) - 1), *block.rows]
            parts.append("\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows))
        if block.note:
            parts.append(block.note)
    return "\n\n".join(part for part in parts if part) + "\n"


def plot_svg(plot: Plot) -> str:
    """The plot as SVG."""
    points = [point for series in plot.series.values() for point in series]
    low_x, high_x = _range([x for x, _ in points], from_zero=False)
    low_y, high_y = _range([y for _, y in points], from_zero=True)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    drawn = []
    for step in range(5):
        value = low_y + (high_y - low_y) * step / 4
        _, down = place(low_x, value)
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}" stroke="#e2e8f0"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{_short(value)}</text>')
        value = low_x + (high_x - low_x) * step / 4
        across, _ = place(value, low_y)
        drawn.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(value)}</text>')
    for number, (name, series) in enumerate(plot.series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in (place(x, y) for x, y in series))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        right = WIDTH - RIGHT - 6
        drawn.append(
            f'<text x="{right}" y="{TOP + 14 + 15 * number}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawn.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(plot.x)}</text>')
    drawn.append(
        f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(plot.y)}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui,sans-serif" font-size="12" fill="#475569" role="img">'
        f"<title>{escape(plot.title)}</title>{''.join(drawn)}</svg>"
    )


def _block_html(block: Block) -> str:
    if isinstance(block, Example):
        rows = "".join(
            f'<p class="note">{what}</p><div class="row">{"".join(map(_item_html, items))}</div>'
            for what, items in (("had", block.had), ("was recommended", block.got), ("took next", block.took))
        )
        return f"<h2>User {escape(block.user_id)}</h2>{rows}"
    note = f'<p class="note">{escape(block.note)}</p>' if block.note else ""
    if isinstance(block, Plot):
        return f"<h2>{escape(block.title)}</h2>{plot_svg(block)}{note}"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in block.header)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in block.rows)
    return f"<h2>{escape(block.title)}</h2><table><tr>{head}</tr>{rows}</table>{note}"


def _item_html(item: Shown) -> str:
    if item.picture is None:
        picture = '<span class="none"></span>'
    else:
        kind = "png" if item.picture.startswith(b"\x89PNG") else "jpeg"
        data = base64.b64encode(item.picture).decode()
        picture = f'<img alt="" src="data:image/{kind};base64,{data}">'
    marked = " took" if item.taken else ""
    return f'<div class="item{marked}">{picture}{escape(item.title or item.item_id)}</div>'


def _name(item: Shown) -> str:
    text = _cell(item.title or item.item_id)
    return f"**{text}**" if item.taken else text


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _plot_file(number: int) -> str:
    return f"plot-{number:02d}.svg"


def _range(values: Sequence[float], *, from_zero: bool) -> Point:
    """The span of an axis, never empty."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    return (low, high) if high > low else (low, low + 1.0)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
