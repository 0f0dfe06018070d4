"""A set's results as a report: methods beside each other, and how ours were learned and mixed."""

from collections.abc import Mapping

from benchmarks.quality.ours import Trainings
from benchmarks.quality.sets import Judged
from benchmarks.quality.table import Figures
from mmrec_stream.evaluation.metrics import Figure
from mmrec_stream.evaluation.report import Block, Plot, Report, Table
from model_export.config import ModelConfig

PARTS = ("warm", "cold")


def report_of(judged: Judged, results: Mapping[str, Figures], trainings: Trainings) -> Report:
    """The report of one run over a set."""
    dataset, split = judged.dataset, judged.split
    metrics = judged.main
    metrics = [*metrics, *(f"{metric} {part}" for metric in metrics for part in PARTS)]
    metrics += [f"{name}@{judged.ks[-1]}" for name in ("coverage", "novelty", "popularity-lift", "miscalibration")]
    shown = [metric for metric in metrics if any(metric in figures for figures in results.values())]
    rows = [[name, *(_cell(figures.get(metric)) for metric in shown)] for name, figures in results.items()]
    if judged.targets:
        wanted = {target.metric: target for target in judged.targets}
        rows.append(["must pass", *(f"{wanted[m].passing:.4f}" if m in wanted else "" for m in shown)])
        rows.append(["aim", *(f"{wanted[m].aim:.4f}" if m in wanted else "" for m in shown)])
    blocks: list[Block] = [Table("Methods", ["method", *shown], rows, "95% bootstrap intervals over users.")]
    blocks += _learning(trainings)
    facts = {
        "set": f"{dataset.users:,} users, {dataset.items:,} items, {len(dataset.interactions):,} events",
        "split": judged.note,
        "judged": f"{len(split.test):,} cases, all items ranked, history {'' if split.mask_history else 'not '}masked",
        "ties": "broken by a random order of the items, drawn once a run",
        "tuned": "on validation cases alone",
    }
    return Report(f"Quality on {dataset.name}", facts, blocks)


def _learning(trainings: Trainings) -> list[Block]:
    """Learning curves, the α sweep, and the modalities' shares of the trained models; nothing where none was."""
    if not trainings.models:
        return []
    named = {_name(config): model for config, model in trainings.models.items()}
    curves = {name: model.report.metrics for name, model in named.items()}
    losses = {name: model.report.losses for name, model in named.items()}
    sweeps = {name: sorted(model.report.alpha_curve.items()) for name, model in named.items()}
    lengths = sorted({length for model in named.values() for length in model.report.alpha})
    alphas = [
        [name, *(f"{m.report.alpha.get(length, float('nan')):.2f}" for length in lengths)] for name, m in named.items()
    ]
    shares = [
        [name, ", ".join(f"{modality} {share:.0%}" for modality, share in model.report.modality_weights.items())]
        for name, model in named.items()
    ]
    return [
        Plot("Learning: loss", "pass", "nats", {name: list(enumerate(each, 1)) for name, each in losses.items()}),
        Plot(
            "Learning: p_user on validation",
            "pass",
            "NDCG",
            {name: list(enumerate(each, 1)) for name, each in curves.items()},
        ),
        Plot("One α for all, on validation", "α, the weight of p_user", "NDCG", sweeps),
        Table("α by history length", ["training", *(f"from {length}" for length in lengths)], alphas),
        Table(
            "Share of each modality",
            ["training", "share"],
            shares,
            "By how much of p_user goes to other items when the modality is left out where lists are made.",
        ),
    ]


def _name(config: ModelConfig) -> str:
    encoders = "+".join(config.encoders) or "all"
    return f"{config.fusion}, {encoders}, seed {config.seed}"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.4f}…{figure.high:.4f})"
    return f"{figure.value:.4f}{interval}"
