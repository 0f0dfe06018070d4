"""`mmrec topics`: create the topics that are missing, report those that differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.cli.text import console
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from mmrec_stream.kafka.admin import TopicState
    from mmrec_stream.kafka.plan import Difference
    from mmrec_stream.topics import TopicSpec


def topics(
    alter: Annotated[
        bool, typer.Option("--alter", help="Set differing retention and cleanup policies. Partitions stay as they are.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Create the topics that are missing and report what differs in those that exist.

    What exists is never changed without `--alter`, and its partitions not even then: with more partitions, users
    would move to others and leave their profiles behind. Ends with status 1 when a difference breaks the stream.

    Example: `MMREC_PARTITIONS=12 MMREC_REPLICATION=3 mmrec topics`
    """
    from mmrec_stream.kafka.admin import Cluster
    from mmrec_stream.kafka.plan import create_missing, differences
    from mmrec_stream.topics import topic_plan

    settings = load_settings(bootstrap=bootstrap)
    plan, cluster = topic_plan(settings), Cluster(settings)
    names = [spec.name for spec in plan]
    created = create_missing(settings)
    there = cluster.describe(names)
    differing = differences(plan, there)
    altered: list[Difference] = []
    if alter:
        for difference in differing:
            if difference.aspect == "config":
                cluster.set_config(difference.topic, {difference.name: difference.wanted})
                altered.append(difference)
        there = cluster.describe(names)
        differing = differences(plan, there)
    out = console()
    out.print(_table(plan, there, created, altered, differing))
    for difference in differing:
        out.print(
            f"[yellow]{difference.topic}[/]: {difference.name} is {difference.found}, planned {difference.wanted}: "
            f"{difference.remedy}"
        )
    if any(difference.breaks for difference in differing):
        raise typer.Exit(1)


def _table(
    plan: "Sequence[TopicSpec]",
    there: "dict[str, TopicState]",
    created: Sequence[str],
    altered: "Sequence[Difference]",
    differing: "Sequence[Difference]",
) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("topic", "key", "partitions", "replicas", "cleanup", "retention", ""):
        table.add_column(title, no_wrap=True)
    for spec in plan:
        state = there.get(spec.name)
        if state is None:  # a large cluster spreads the news of a topic over seconds
            table.add_row(spec.name, spec.key, *[""] * 4, "[yellow]not there yet[/]")
            continue
        marks = ["[green]created[/]"] if spec.name in created else []
        marks += [f"[green]{d.name} set[/]" for d in altered if d.topic == spec.name]
        marks += [f"[yellow]{d.name} differs[/]" for d in differing if d.topic == spec.name]
        table.add_row(
            spec.name,
            spec.key,
            str(state.partitions),
            str(state.replication),
            state.config.get("cleanup.policy", ""),
            _days(state.config.get("retention.ms")) if "delete" in state.config.get("cleanup.policy", "") else "",
            ", ".join(marks) or "as planned",
        )
    return table


def _days(milliseconds: str | None) -> str:
    if milliseconds is None:
        return ""
    return "for ever" if milliseconds == "-1" else f"{int(milliseconds) / 86_400_000:g} d"
