"""The progress bar of commands that handle many events: how many, how fast, how long yet."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


def events_progress() -> Progress:
    """A bar on standard error. Tasks may set the fields `events` and `rejects`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        _Events(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Events(ProgressColumn):
    def render(self, task: Task) -> Text:
        events, rejects = task.fields.get("events", 0), task.fields.get("rejects", 0)
        speed = events / task.elapsed if task.elapsed else 0
        text = Text(f"{events:,} events, {speed:,.0f}/s", no_wrap=True)
        if rejects:
            text.append(f", {rejects:,} rejected", "red")
        return text
