"""A benchmark's outcome: figures with their context, as a table to read and one JSON line each to compute with."""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

from mmrec_stream.processor import kernels, these_instruction_sets, this_processor

RESULTS = Path(__file__).parent / "results"
console = Console()

_LIBRARIES = ("faust-streaming", "aiokafka", "confluent-kafka", "quixstreams", "onnxruntime-gpu", "numpy")


class Target(msgspec.Struct, frozen=True):
    """What a figure is held against. `at_least` says on which side of `value` it should lie."""

    value: float
    at_least: bool = True

    def met(self, value: float) -> bool:
        """Whether `value` lies on the right side."""
        return value >= self.value if self.at_least else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {readable(self.value)}"


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measured number: the median of `samples`, in `unit`."""

    case: str
    system: str
    value: float
    unit: str
    samples: list[float] = []
    target: float | None = None
    met: bool | None = None
    context: dict[str, Any] = {}


class Report:
    """Collects the figures of one case and writes them to `results/<case>.jsonl` as they come."""

    def __init__(self, case: str, *, quick: bool, directory: Path | None = None, **context: Any) -> None:
        self.case = case
        self.directory = directory = directory or RESULTS
        self.figures: list[Figure] = []
        self._started = time.monotonic()
        self._context = {
            **machine(),
            "quick": quick,
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            **context,
        }
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{case}.jsonl"
        self.path.write_bytes(b"")
        console.rule(f"[bold]{case}")

    def add(
        self,
        case: str,
        system: str,
        samples: float | Iterable[float],
        unit: str,
        *,
        target: Target | None = None,
        **context: Any,
    ) -> Figure:
        """Record the median of `samples` as `<this report's case>.<case>`."""
        values = [float(samples)] if isinstance(samples, int | float) else [float(sample) for sample in samples]
        value = median(values)
        figure = Figure(
            case=f"{self.case}.{case}",
            system=system,
            value=value,
            unit=unit,
            samples=values,
            target=target.value if target else None,
            met=target.met(value) if target else None,
            context={**self._context, "load": round(os.getloadavg()[0], 2), **context},
        )
        self.figures.append(figure)
        with self.path.open("ab") as lines:
            lines.write(msgspec.json.encode(figure) + b"\n")
        verdict = f"  [{'green' if figure.met else 'red'}]target {target}[/]" if target else ""
        console.print(f"{figure.case}  {system}: [bold]{readable(value)}[/] {unit}{verdict}", highlight=False)
        return figure

    def value(self, case: str, system: str) -> float:
        """The value recorded for a case and system.

        Raises:
            KeyError: nothing was recorded for them.
        """
        for figure in reversed(self.figures):
            if figure.case == f"{self.case}.{case}" and figure.system == system:
                return figure.value
        raise KeyError(f"{self.case}.{case} has no figure of {system}")

    def plot(self, name: str, draw: Callable[[Any], None], *, size: tuple[float, float] = (7, 4)) -> Path:
        """Write `results/<case>-<name>.png`: `draw` is given the matplotlib axes."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=size, layout="constrained")
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        path = self.directory / f"{self.case}-{name}.png"
        figure.savefig(path, dpi=120, metadata={"Software": None})
        pyplot.close(figure)
        return path

    def close(self) -> None:
        """Print all figures as one table."""
        table = Table(title=f"{self.case}  ({time.monotonic() - self._started:.0f} s, {describe(self._context)})")
        for column in ("case", "system"):
            table.add_column(column)
        for column in ("median", "low … high", "unit", "target"):
            table.add_column(column, justify="right")
        for case, figures in _by_case(self.figures).items():
            for row, figure in enumerate(figures):
                low, high = min(figure.samples), max(figure.samples)
                table.add_row(
                    case.removeprefix(f"{self.case}.") if row == 0 else "",
                    figure.system,
                    readable(figure.value),
                    f"{readable(low)} … {readable(high)}" if len(figure.samples) > 1 else "",
                    figure.unit,
                    "" if figure.met is None else f"[{'green' if figure.met else 'red'}]{readable(figure.target or 0)}",
                    end_section=row == len(figures) - 1,
                )
        console.print(table)
        console.print(f"written to {self.path}", highlight=False)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": this_processor(),
        "instruction_sets": these_instruction_sets(),
        "kernels": kernels(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _LIBRARIES if _installed(name)},
    }


def describe(context: dict[str, Any]) -> str:
    """The machine in a few words; figures of before their instruction sets were noted do without."""
    sets = f" ({', '.join(context['instruction_sets'])})" if context.get("instruction_sets") else ""
    memory = f"{context['memory_gib']:.0f} GiB"
    return f"{context['cores']} cores of {context['cpu']}{sets}, {memory}, Python {context['python']}"


def readable(value: float) -> str:
    """A number as people read it: thousands separated, three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _by_case(figures: list[Figure]) -> dict[str, list[Figure]]:
    groups: defaultdict[str, list[Figure]] = defaultdict(list)
    for figure in figures:
        groups[figure.case].append(figure)
    return groups


def _installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
