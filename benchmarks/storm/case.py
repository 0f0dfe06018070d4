"""The benchmark `storm`: how many events a storm loses or doubles. None may be."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.results import Report, Target, console
from benchmarks.storm.faults import Kind
from benchmarks.storm.run import LONG_WEATHER, Outcome, Weather, have, logs
from mmrec_stream.brokers.apache import apache_cluster

NONE = Target(0, at_least=False)


def command(
    quick: Annotated[bool, typer.Option(help="One minute.")] = False,
    long: Annotated[
        bool, typer.Option("--long", help="10 million events and 500 faults of all kinds, on three brokers.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of events and faults.")] = 1,
    seeds: Annotated[int, typer.Option(help="How many storms, with this seed and the ones after it.")] = 1,
    seconds: Annotated[float | None, typer.Option(help="How long faults come.")] = None,
    events: Annotated[int | None, typer.Option(help="Events in all; faults come at least as long as they do.")] = None,
    faults: Annotated[int | None, typer.Option(help="Faults at least.")] = None,
    rate: Annotated[float | None, typer.Option(help="Events a second.")] = None,
    prelude: Annotated[int | None, typer.Option(help="Events at once when it begins, to have more to restore.")] = None,
    users: Annotated[int | None, typer.Option(help="Users; each has .8 events a second at most.")] = None,
    workers: Annotated[int | None, typer.Option(help="Workers that are always there.")] = None,
    brokers: Annotated[int | None, typer.Option(help="Brokers: 1, or 3 with three replicas of everything.")] = None,
    kinds: Annotated[str | None, typer.Option(help=f"Kinds of faults, comma-separated: {', '.join(Kind)}.")] = None,
    gap: Annotated[tuple[float, float] | None, typer.Option(help="Least and most seconds between faults.")] = None,
    compaction: Annotated[bool | None, typer.Option(help="Compact the changelog all the time.")] = None,
    static: Annotated[int | None, typer.Option(help="Workers with a static name in the group.")] = None,
    setting: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for every worker, as MMREC_STANDBYS=1.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder to leave the workers' logs in.")] = None,
) -> None:
    """Kill, stop and freeze workers and brokers under load; then judge from topics alone what is left.

    Ends with status 1 if anything was lost, doubled or wrong.
    """
    weather = LONG_WEATHER if long else Weather()
    if quick:
        weather = replace(weather, seconds=60.0, events=None, faults=None)
    if (seconds, events, faults) != (None, None, None):
        weather = replace(weather, seconds=seconds, events=events, faults=faults)
    given: dict[str, Any] = {
        "rate": rate,
        "users": users,
        "workers": workers,
        "nodes": brokers,
        "compaction": compaction,
    }
    given |= {
        "prelude": prelude,
        "gap_s": gap,
        "static": static,
        "kinds": _kinds(kinds),
        "settings": _settings(setting or []),
    }
    weather = replace(weather, **{name: value for name, value in given.items() if value is not None})
    report = Report(
        "storm",
        quick=quick,
        broker=apache_cluster(weather.nodes).name,
        rate=weather.rate,
        users=weather.users,
        workers=weather.workers,
        partitions=weather.partitions,
        kinds=list(weather.kinds),
        settings=weather.settings,
    )
    well = True
    for one in range(seed, seed + seeds):
        console.rule(f"seed {one}")
        with logs(keep / f"seed-{one}" if keep else None) as folder:
            outcome = have(replace(weather, seed=one), folder)
            _tell(outcome)
            _record(report, f"seed {one}", outcome)
            well = well and outcome.ok
    report.close()
    if not well:
        raise typer.Exit(1)


def _record(report: Report, system: str, outcome: Outcome) -> None:
    verdict = outcome.verdict
    report.add("events acknowledged", system, verdict.acknowledged, "events")
    for name, count in outcome.failures.items():
        report.add(name, system, count, "", target=NONE)
    report.add("faults", system, outcome.faults.total(), "", kinds_hit=outcome.faults)
    report.add("faults that hit a worker before it served", system, outcome.early, "")
    report.add("workers that ended by themselves", system, len(outcome.by_themselves), "")
    report.add("bad records", system, verdict.bad, "")
    report.add("until all was committed", system, outcome.drained_s, "s")
    if outcome.compacted is not None:
        report.add("changelog rows compacted away", system, outcome.compacted, "")


def _tell(outcome: Outcome) -> None:
    """What the figures do not say: where, and what processes left behind."""
    for fault, examples in outcome.verdict.examples.items():
        for example in examples:
            console.print(f"{fault}: {example}", style="red", markup=False, highlight=False, soft_wrap=True)
    for ending in (*outcome.bad_stops, *outcome.by_themselves):
        console.rule(f"{ending.worker} {ending.cause}, status {ending.status}", style="red")
        console.print(ending.log.read_text(errors="replace")[-2_000:], markup=False, highlight=False)
    if outcome.unanswered:
        console.print(
            f"{outcome.unanswered} records got no answer from the brokers: they are not judged", style="yellow"
        )
    if outcome.verdict.undetermined:
        console.print(
            f"{outcome.verdict.undetermined} users depend on an order that the log does not tell", style="yellow"
        )


def _kinds(text: str | None) -> tuple[Kind, ...] | None:
    if text is None:
        return None
    try:
        return tuple(Kind(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{error}; there are {', '.join(Kind)}", param_hint="--kinds") from None


def _settings(pairs: list[str]) -> dict[str, str] | None:
    parted = [pair.partition("=") for pair in pairs]
    if wrong := [name for name, equals, _ in parted if not equals or not name.startswith("MMREC_")]:
        raise typer.BadParameter(f"{wrong[0]}: give MMREC_NAME=VALUE", param_hint="--setting")
    return {name: value for name, _, value in parted} or None
