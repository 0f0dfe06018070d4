"""Calibration: everything between the two halves and the list is fitted on validation cases, by likelihood or NDCG.

In this order: how an association row is made (NDCG of p_item), how much each place and type of a history counts
(likelihood of p_item), the temperature of p_user (likelihood), and α by history length (NDCG of the mix).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec_stream.data.splits import Cases
from mmrec_stream.ranking.types import Features
from model_export.associations import AssociationSettings, BehaviourSources, ContentSources, association_rows
from model_export.config import ModelConfig
from model_export.hybrid import Report, ndcg_at, request_batches, table_of, with_demand
from model_export.ranker import BUCKETS, Ranker, Request, Table, in_season
from model_export.season import Season

GRID: dict[str, tuple[float, ...]] = {
    "window": (3, 30),
    "backward": (0.0, 0.6, 1.0),
    "discount": (0.25, 0.5),
    "trust": (0.5, 10.0),
}
"""Values tried beside the defaults, one setting after the other: a full grid costs five times as much and was never
more than .001 better."""

REGRESSION_SHARES = (0.3, 0.7)

CONTENT_GRID: dict[str, tuple[float, ...]] = {"trust": (0.5, 10.0, 100.0)}
"""What is tried in addition where items are described: learned vectors alone say little that behaviour does not."""

SEASON_POWERS = (0.5, 1.0, 1.5)

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)

INVERSE_TEMPERATURES = tuple(float(value) for value in np.geomspace(0.25, 4.0, 25))
"""Steps of 12%: the likelihood is flat to the third digit within one."""

MIN_BUCKET_CASES = 50
"""Cases that a history length needs for an α of its own; with fewer the choice would be noise, and the α that is best
for all is used."""

FIT_STEPS = 150
"""Adam steps of the place and type weights: 20 numbers on a likelihood that converges in about 100."""

CASES_TIMES_ITEMS = 30_000_000
"""Bound on the dense scores held at once: 120 MB each of p_user and p_item."""


def calibrate(
    ranker: Ranker,
    config: ModelConfig,
    behaviour: BehaviourSources,
    vectors: NDArray[np.float32],
    content: ContentSources,
    cases: Cases,
    features: Features,
    users: Tensor,
    report: Report,
    *,
    mask_history: bool,
) -> AssociationSettings:
    """Fit the ranker's buffers in place; how association rows are best made.

    Args:
        ranker: What is calibrated.
        config: How the model is made.
        behaviour: What follows what.
        vectors: Item vectors, (items, dim).
        content: What resembles what.
        cases: What to fit on.
        features: The ranker's inputs for them.
        users: Their users' vectors, (cases, dim).
        report: Takes α and what the halves are worth.
        mask_history: Whether what a user has had is left out of lists.
    """
    few = np.arange(min(len(cases), max(1, CASES_TIMES_ITEMS // max(len(vectors), 1))))
    cases, features = cases.where(few), features.part(slice(len(few)))
    batches = list(request_batches(features))

    def p_item(settings: AssociationSettings) -> NDArray[np.float32]:
        return _p_item(ranker, batches, make(settings), cases, behaviour.season(settings))

    def p_item_quality(settings: AssociationSettings) -> float:
        return float(ndcg_at(config.places, p_item(settings), cases, mask_history=mask_history).mean())

    def make(settings: AssociationSettings) -> Table:
        return table_of(vectors, *association_rows(config, behaviour, content, settings))

    chosen = AssociationSettings()
    best = p_item_quality(chosen)
    choices = content.choices()
    grid: dict[str, Sequence[object]] = {**GRID, "content": choices}
    if len(choices) > 1:
        grid |= CONTENT_GRID
    if behaviour.seasons:
        grid["season"] = SEASON_POWERS
    if config.associations == "regressed":
        grid["regression"] = REGRESSION_SHARES
    for name, values in grid.items():
        for settings in [_with(chosen, name, value) for value in values]:
            if (quality := p_item_quality(settings)) > best:
                best, chosen = quality, settings
    table = make(chosen)
    _fit_places(ranker, batches, table, cases, behaviour.season(chosen))
    p_user = _fit_temperature(ranker, users[: len(few)] @ table.item_vectors.T, cases)
    _fit_alpha(
        ranker,
        p_user,
        p_item(chosen),
        cases,
        np.asarray(features.lengths),
        report,
        config.places,
        mask_history=mask_history,
    )
    return chosen


def choose_alphas(quality: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of some α is used for each of `BUCKETS`, (buckets,), as row numbers of `quality`.

    The α that is best for all, but where a history length has one that is better by more than a standard error of the
    paired difference: the best of many α on a few hundred cases is mostly the one whose noise is greatest.

    Args:
        quality: What each α is worth on each case, higher is better, (α, cases).
        lengths: The cases' history lengths, (cases,).
    """
    overall = int(quality.mean(axis=1).argmax())
    chosen = np.full(len(BUCKETS), overall)
    for bucket, (low, high) in enumerate(pairwise([*BUCKETS, np.iinfo(np.int64).max])):
        inside = quality[:, (lengths >= low) & (lengths < high)]
        if inside.shape[1] < MIN_BUCKET_CASES:
            continue
        own = int(inside.mean(axis=1).argmax())
        gain = inside[own] - inside[overall]
        if gain.mean() > gain.std() / len(gain) ** 0.5:
            chosen[bucket] = own
    return chosen


def _with(settings: AssociationSettings, name: str, value: object) -> AssociationSettings:
    return replace(settings, **{name: value})  # type: ignore[arg-type]


def _p_item(
    ranker: Ranker, batches: list[Request], table: Table, cases: Cases, season: Season | None
) -> NDArray[np.float32]:
    """(cases, items)."""
    parts = []
    with torch.no_grad():
        for request, demand in with_demand(batches, cases, season):
            rows, weights = ranker.associated(request, table, demand)
            dense = torch.zeros(len(rows), len(table.item_vectors))
            parts.append(dense.scatter_add(1, rows, weights).numpy())
    return np.concatenate(parts)


def _fit_places(ranker: Ranker, batches: list[Request], table: Table, cases: Cases, season: Season | None) -> None:
    """Fit the weights of places and types: the likelihood of each case's first target under p_item."""
    targets = torch.from_numpy(cases.targets.values[cases.targets.offsets[:-1]])
    shown, there, types = [], [], []
    done = 0
    for request, demand in with_demand(batches, cases, season):
        places = request.lengths.unsqueeze(1) - 1 - torch.arange(ranker.recent)
        inside, places = places >= 0, places.clamp(min=0)
        sources = request.history_rows.gather(1, places)
        neighbours, weights = table.neighbours[sources], table.neighbour_weights[sources]
        if demand is not None:
            rows = neighbours.clamp(min=0).to(torch.int64)
            weights = in_season(weights, demand.gather(1, rows.flatten(1)).reshape(rows.shape))
        match = neighbours == targets[done : done + len(sources), None, None]
        shown.append((weights * match).sum(2))
        there.append(inside)
        types.append(request.history_types.gather(1, places))
        done += len(sources)
    evidence, mask, type_codes = torch.cat(shown), torch.cat(there), torch.cat(types)
    # Cases whose target no row names tell nothing of how to weigh the rows.
    useful = (evidence * mask).sum(1) > 0
    if int(useful.sum()) < MIN_BUCKET_CASES:
        return
    evidence, mask, type_codes = evidence[useful], mask[useful], type_codes[useful]
    place_logits = ranker.place_logits.clone().requires_grad_()
    type_logits = ranker.type_logits.clone().requires_grad_()
    start = ranker.place_logits.clone()
    optimizer = torch.optim.Adam([place_logits, type_logits], lr=0.05)
    for _ in range(FIT_STEPS):
        share = torch.softmax(torch.where(mask, place_logits + type_logits[type_codes], -1e9), 1)
        loss = -torch.log((share * evidence).sum(1) + 1e-9).mean()
        # A prior as strong as a few cases: places and types that hardly occur stay where they began.
        pull = ((place_logits - start) ** 2).sum() + (type_logits**2).sum()
        optimizer.zero_grad()
        (loss + pull / len(evidence)).backward()
        optimizer.step()
    with torch.no_grad():
        ranker.place_logits.copy_(place_logits)
        ranker.type_logits.copy_(type_logits)


def _fit_temperature(ranker: Ranker, logits: Tensor, cases: Cases) -> NDArray[np.float32]:
    """Fit p_user's temperature to logits (cases, items) by likelihood; p_user at it."""
    with torch.no_grad():
        owners = torch.from_numpy(np.repeat(np.arange(len(cases)), cases.targets.lengths))
        wanted = logits[owners, torch.from_numpy(cases.targets.values)]

        def likelihood(inverse: float) -> float:
            return float((wanted * inverse - torch.logsumexp(logits * inverse, 1)[owners]).mean())

        best = max(INVERSE_TEMPERATURES, key=likelihood)
        ranker.inverse_temperature.fill_(best)
        return torch.softmax(logits * best, 1).numpy()


def _fit_alpha(
    ranker: Ranker,
    p_user: NDArray[np.float32],
    p_item: NDArray[np.float32],
    cases: Cases,
    lengths: NDArray[np.int64],
    report: Report,
    places: int,
    *,
    mask_history: bool,
) -> None:
    """Choose α for each history length by NDCG."""
    quality = np.array([ndcg_at(places, mix, cases, mask_history=mask_history) for mix in _mixes(p_user, p_item)])
    means = quality.mean(axis=1)
    chosen = choose_alphas(quality, lengths)
    ranker.set_alphas([ALPHAS[index] for index in chosen])
    report.alpha = {low: ALPHAS[index] for low, index in zip(BUCKETS, chosen, strict=True)}
    report.alpha_curve = {alpha: float(mean) for alpha, mean in zip(ALPHAS, means, strict=True)}
    bucket = np.searchsorted(np.array(BUCKETS), lengths, side="right") - 1
    own = quality[chosen[bucket], np.arange(len(lengths))]
    report.validation = {
        f"ndcg@{places}": float(own.mean()),
        f"ndcg@{places} p_user": float(means[-1]),
        f"ndcg@{places} p_item": float(means[0]),
    }


def _mixes(p_user: NDArray[np.float32], p_item: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The mix at each of `ALPHAS`, 0 and 1 with the other half breaking ties."""
    for alpha in ALPHAS:
        weight = np.float32(min(max(alpha, 1e-6), 1 - 1e-6))
        yield weight * p_user + (1 - weight) * p_item
