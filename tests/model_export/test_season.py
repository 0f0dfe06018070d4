"""What is in season: seen in what is taken of the catalogue's neighbourhood, before the moment and not after it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrec_stream.data.dataset import DAY_MS, Dataset, Interactions
from mmrec_stream.data.splits import last_basket
from model_export.hybrid import TrainedModel, case_features, request_batches, table_of
from model_export.ranker import in_season
from model_export.season import Season
from model_export.training import fit
from tests.tiny import NOW, TINY, tiny_dataset, tiny_model

ITEMS = 200
START = NOW // DAY_MS * DAY_MS


def log_of_days(items: list[int], days: list[int]) -> Interactions:
    return Interactions.of(np.arange(len(items)), np.array(items), START + np.array(days) * DAY_MS)


def test_demand_is_of_what_was_listed_together_and_taken_before_the_day() -> None:
    season = Season(log_of_days([20, 21, 22, 170, 171, 172], [0, 0, 1, 300, 300, 301]), ITEMS, power=1.0)
    first_day, later, much_later = season.at(START + np.array([0, 2, 302]) * DAY_MS)
    assert np.allclose(first_day, first_day[0]), "nothing was taken before the first day"
    assert later[23] > 10 * later[170], "nobody has taken item 23, but what was listed beside it"
    assert much_later[173] > 10 * much_later[23]
    assert np.array_equal(season.now(), much_later)
    assert np.array_equal(season.at(np.array([START - DAY_MS]))[0], first_day)
    assert np.array_equal(season.at(np.array([START + 5_000 * DAY_MS]))[0], much_later)


def test_the_power_says_how_much_demand_counts() -> None:
    log = log_of_days([20, 21, 150], [0, 0, 1])
    plain, squared = (Season(log, ITEMS, power).now() for power in (1.0, 2.0))
    assert np.allclose(squared, plain**2, rtol=1e-5)


def test_rows_in_season_keep_their_sum() -> None:
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.0, 0.0], [0.0, 0.0, 0.0]])
    demand = torch.tensor([[0.1, 1.0, 2.0], [3.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    weighed = in_season(weights, demand)
    assert torch.allclose(weighed.sum(1), weights.sum(1))
    assert torch.allclose(weighed[0], torch.tensor([0.05, 0.3, 0.4]) / 0.75)


def test_a_release_has_the_weights_that_the_model_scores_with_after_the_log() -> None:
    model = tiny_model()
    dataset = tiny_dataset()
    model = replace(model, season=Season(dataset.interactions, dataset.items, power=1.0))
    assert not np.allclose(model.released_weights, model.neighbour_weights)
    cases = last_basket(dataset).test
    after = replace(cases, times=np.full(len(cases), dataset.interactions.times.max() + DAY_MS))
    features = case_features(cases, dataset, model.inputs, model.config)
    table = table_of(model.vectors, model.neighbours, model.released_weights)
    (request,) = request_batches(features)
    rows, weights = model.ranker.associated(request, table)
    released = torch.zeros(len(cases), dataset.items).scatter_add(1, rows, weights).detach().numpy()
    assert np.allclose(model.score(after, "item"), released, atol=1e-6)


@pytest.fixture(scope="module")
def seasonal_shop() -> Dataset:
    """A catalogue of which everybody buys, at random, what was brought in lately."""
    rng = np.random.default_rng(0)
    users, visits = 120, 5
    days = np.sort(rng.integers(0, 400, (users, visits)), axis=1).ravel()
    items = np.clip(days * ITEMS // 400 - rng.integers(0, 12, len(days)), 0, ITEMS - 1)
    log = Interactions.of(np.repeat(np.arange(users), visits), items, START + days * DAY_MS)
    return Dataset("shop", log, [f"u{u}" for u in range(users)], [f"i{i}" for i in range(ITEMS)], listed=True)


def test_training_finds_out_that_a_shop_has_seasons(seasonal_shop: Dataset) -> None:
    model = _fitted(seasonal_shop)
    assert model.season is not None
    cases = last_basket(seasonal_shop).test
    lists = np.argsort(-model.score(cases, "item"), axis=1)[:, :10]
    unlisted = cases.times[:, None] < START + (lists * 400 // ITEMS - 20) * DAY_MS
    assert unlisted.mean() < 0.05, "hardly anything is recommended before it was listed"


def test_without_an_order_of_listing_there_are_no_seasons(seasonal_shop: Dataset) -> None:
    assert _fitted(replace(seasonal_shop, listed=False)).season is None
    assert _fitted(replace(seasonal_shop, timed=False)).season is None


def _fitted(dataset: Dataset) -> TrainedModel:
    return fit(dataset, last_basket(dataset), replace(TINY, epochs=1, neighbours=64))
