"""Training: what is to be foreseen, that something is learned, and that the parts fit the stream's own."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import leave_one_out
from mmrec_stream.errors import UserError
from mmrec_stream.profiles.tastes import Tastes
from model_export.associations import (
    AssociationSettings,
    BehaviourSources,
    neighbour_rows,
)
from model_export.config import ModelConfig
from model_export.hybrid import TrainedModel, case_features, request_batches, table_of
from model_export.rounds import release_split
from model_export.sequences import NO_TARGET, Sequences, side_inputs, training_sequences
from model_export.training import Progress, fit, states_of
from tests.tiny import NOW, TINY, tiny_dataset, tiny_model


def log_of(users: list[int], items: list[int], types: list[EventType] | None = None) -> Interactions:
    times = NOW + 1000 * np.arange(len(users))
    codes = None if types is None else np.array(types)
    return Interactions.of(np.array(users), np.array(items), times, codes)


def cycle(users: int = 60, length: int = 12, items: int = 24) -> Dataset:
    """Everybody goes through the items in a circle, from a place of their own."""
    steps = np.arange(length)
    rows = [(user, int((user + step) % items), step) for user in range(users) for step in steps]
    columns = np.array(rows).T
    log = Interactions.of(columns[0], columns[1], NOW + columns[2] * 1000)
    return Dataset("cycle", log, [f"u{u}" for u in range(users)], [f"i{i}" for i in range(items)])


def test_targets_are_the_next_likings_of_items_not_yet_had() -> None:
    view, impression, back, buy = EventType.VIEW, EventType.IMPRESSION, EventType.RETURN, EventType.PURCHASE
    log = log_of([0, 0, 0, 0, 0, 1, 1], [5, 6, 5, 7, 8, 9, 9], [view, view, buy, back, view, view, buy])
    pieces = training_sequences(log.without_impressions(), 10, repeats=False)
    assert pieces.rows[0, :5].tolist() == [5, 6, 5, 7, 8]
    assert pieces.targets[0, :5].tolist() == [6, 8, 8, 8, NO_TARGET]
    assert len(pieces) == 1, "a user who only comes back to one item has nothing to foresee"
    again = training_sequences(log.without_impressions(), 10, repeats=True)
    assert again.targets[0, :5].tolist() == [6, 5, 8, 8, NO_TARGET]
    shown = log_of([0, 0, 0], [1, 2, 3], [view, impression, view])
    assert training_sequences(shown.without_impressions(), 10, repeats=False).rows[0, :2].tolist() == [1, 3]


def test_a_poor_rating_is_no_target_and_no_association() -> None:
    view, rating, back = EventType.VIEW, EventType.RATING, EventType.RETURN
    times = NOW + 1000 * np.arange(5)
    types, ratings = np.array([view, rating, rating, back, view]), np.array([0.0, 1.0, 4.5, 0.0, 0.0])
    log = Interactions.of(np.zeros(5, dtype=int), np.arange(5), times, types, ratings)
    pieces = training_sequences(log, 10, repeats=False)
    assert pieces.rows[0].tolist()[:5] == [0, 1, 2, 3, 4], "it stays part of the history"
    assert pieces.targets[0].tolist()[:5] == [2, 2, 4, 4, NO_TARGET]
    assert pieces.tastes[0].tolist()[:5] == [1.0, 0.0, 2.0, 0.0, 1.0]
    behaviour = BehaviourSources(ModelConfig(), log, 5)
    assert behaviour.support.tolist() == [1, 0, 1, 0, 1]
    linked = behaviour.rows(AssociationSettings()).toarray() > 0
    assert not linked[[1, 3]].any()
    assert not linked[:, [1, 3]].any()
    assert linked[0, 2]
    cases = release_split(replace(cycle(), interactions=_and_poorly_rated(cycle().interactions))).validation
    assert len(cases)
    assert EventType.RATING not in cases.log.types[cases.ends]


def _and_poorly_rated(log: Interactions) -> Interactions:
    """The log, and after it everybody's poor rating of an item they have not had."""
    users = np.unique(log.users)
    columns = [
        np.concatenate(pair)
        for pair in (
            (log.users, users),
            (log.items, (users + 12) % 24),
            (log.times, np.full(len(users), log.times.max() + 1000)),
            (log.types, np.full(len(users), EventType.RATING)),
            (log.ratings, np.full(len(users), 2.0)),
        )
    ]
    users, items, times, types, ratings = columns
    return Interactions.of(users, items, times, types, ratings)


def test_long_histories_are_cut_without_losing_a_target() -> None:
    log = log_of([0] * 25 + [1] * 4, list(range(29)))
    pieces = training_sequences(log, 10, repeats=False)
    assert pieces.targets[pieces.targets != NO_TARGET].tolist() == [*range(1, 25), *range(26, 29)]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    length=st.integers(1, 12),
)
def test_what_comes_late_in_a_long_history_is_foreseen_by_half_a_piece_at_least(
    lengths: list[int], length: int
) -> None:
    users = np.repeat(np.arange(len(lengths)), lengths).tolist()
    pieces = training_sequences(log_of(users, list(range(len(users)))), length, repeats=False)
    begins = np.cumsum([0, *lengths[:-1]])
    foreseen = []
    for rows, types, targets in zip(pieces.rows, pieces.types, pieces.targets, strict=True):
        held = rows[: int((types > 0).sum())].tolist()
        assert held == list(range(held[0], held[0] + len(held))), "a piece is events in a row, from its first place on"
        for place in np.flatnonzero(targets != NO_TARGET):
            foreseen.append(int(targets[place]))
            assert targets[place] == rows[place] + 1
            before = rows[place] - begins[users[rows[place]]] + 1
            assert place + 1 >= min(before, length // 2 + 1)
    assert sorted(foreseen) == sorted(set(range(len(users))) - set(begins.tolist()))


def test_batches_hold_every_piece_once_and_no_needless_padding() -> None:
    log = log_of([0] * 3 + [1] * 7 + [2] * 5, list(range(15)))
    pieces = training_sequences(log, 10, repeats=False)
    batches = list(pieces.batches(2, np.random.default_rng(0)))
    assert [len(batch) for batch in batches] == [2, 1]
    assert sorted(int(batch.rows[row, 0]) for batch in batches for row in range(len(batch))) == [0, 3, 10]
    for batch in batches:
        assert (batch.types > 0).sum(1).max() == batch.rows.shape[1]


def test_the_model_learns_what_follows_what() -> None:
    dataset = cycle()
    told: list[Progress] = []
    config = replace(TINY, epochs=20, batch=8, patience=20)
    model = fit(dataset, leave_one_out(dataset), config, progress=told.append)
    assert model.report.losses[-1] < 0.7 * model.report.losses[0]
    test = leave_one_out(dataset).test
    for part in ("mixed", "user", "item"):
        scores = model.score(test, part)
        for case in range(len(test)):
            scores[case, test.history(case)] = 0.0
        first = scores.argmax(1)
        assert (first == test.targets.values).mean() > 0.8, part
    assert told[-1].epoch <= 20
    assert all(one.step <= one.steps for one in told)
    assert set(model.alpha) == set(model.report.alpha)


def test_the_same_seed_gives_the_same_model_and_another_one_does_not() -> None:
    dataset = cycle(users=20)
    split = leave_one_out(dataset)
    one, other = fit(dataset, split, TINY), fit(dataset, split, TINY)
    assert np.array_equal(one.vectors, other.vectors)
    assert one.report.losses == other.report.losses
    assert not np.array_equal(one.vectors, fit(dataset, split, replace(TINY, seed=TINY.seed + 1)).vectors)


def test_p_user_and_p_item_are_distributions() -> None:
    model = tiny_model()
    cases = release_split(tiny_dataset()).validation
    p_user, p_item, mixed = (model.score(cases, part) for part in ("user", "item", "mixed"))
    for scores in (p_user, p_item, mixed):
        assert scores.min() >= 0
        assert np.allclose(scores.sum(1), 1, atol=1e-3)


def test_every_modality_has_a_share() -> None:
    weights = tiny_model().report.modality_weights
    assert set(weights) == {"id", "lstm", "cnn", "attributes"}
    assert np.isclose(sum(weights.values()), 1, atol=1e-3)
    assert min(weights.values()) > 0.02


def test_a_modality_that_tells_nothing_apart_has_no_share() -> None:
    dataset = tiny_dataset()
    assert dataset.catalogue is not None
    alike = [msgspec.structs.replace(item, title="thing", description="") for item in dataset.catalogue]
    config = replace(TINY, encoders=("attributes", "lstm"))
    shares = fit(replace(dataset, catalogue=alike), release_split(dataset), config).report.modality_weights
    assert shares == {"attributes": 1.0, "lstm": 0.0}


def test_items_never_seen_in_training_get_a_vector_from_their_content() -> None:
    dataset = tiny_dataset()
    unseen = [3, 9]
    log = dataset.interactions.where(~np.isin(dataset.interactions.items, unseen))
    known = replace(dataset, interactions=log)
    model = fit(known, release_split(known), TINY)
    lengths = np.linalg.norm(model.vectors, axis=1)
    assert lengths[unseen].min() > 0.1
    assert (model.neighbours[unseen] >= 0).all()
    assert np.allclose(model.neighbour_weights.sum(1), 1, atol=1e-4)


def test_the_training_sees_the_user_as_the_stream_does() -> None:
    """The side inputs of a whole sequence, last place, are what fold and gather make of the same events."""
    model, dataset = tiny_model(), tiny_dataset()
    cases = release_split(dataset).validation
    few = cases.where(np.flatnonzero((cases.lengths >= 2) & (cases.lengths <= TINY.history))[:20])
    features = case_features(few, dataset, model.inputs, model.config)
    (request,) = request_batches(features)
    served = model.ranker.user_vectors(request, torch.from_numpy(model.vectors))
    for row in range(len(few)):
        events = slice(int(few.starts[row]), int(few.ends[row]))
        log = few.log
        piece = Sequences(
            log.items[None, events].astype(np.int64),
            log.types[None, events].astype(np.int64),
            log.tastes[None, events],
            (log.times[None, events] // 1000).astype(np.float64),
            np.zeros((1, events.stop - events.start), dtype=np.int64),
            log.rule.half_life_ms / 1000.0,
        )
        assert torch.allclose(trained_vector(model, piece), served[row], atol=2e-3), row


def trained_vector(model: TrainedModel, piece: Sequences) -> torch.Tensor:
    """The user's vector at the last place of a piece, by the trainer's own arithmetic."""
    history = torch.from_numpy(model.vectors)[torch.from_numpy(piece.rows)]
    with torch.no_grad():
        return states_of(model.ranker.users.eval(), piece, history, model.inputs.facts)[0, -1]


def test_side_inputs_are_by_the_rule_of_the_log() -> None:
    day, news = 86_400_000, Tastes.of("news")
    types = np.array([EventType.PURCHASE, EventType.VIEW])
    log = Interactions.of(np.zeros(2, dtype=int), np.arange(2), np.array([NOW, NOW + day]), types, rule=news)
    weights, _, _ = side_inputs(training_sequences(log, 2, repeats=False), None)
    assert np.allclose(weights[0, 1], [3.0 / 2.0, 0.5])


def test_side_inputs_decay_and_look_back_only() -> None:
    week = 7 * 86_400.0
    piece = Sequences(
        np.array([[0, 1, 0]]),
        np.array([[EventType.VIEW, EventType.PURCHASE, 0]]).astype(np.int64),
        np.array([[1.0, 5.0, 0.0]], dtype=np.float32),
        np.array([[0.0, week, week]]),
        np.zeros((1, 3), dtype=np.int64),
        week,
    )
    weights, bands, counts = side_inputs(piece, None)
    assert weights[0, 0].tolist() == [1.0, 0.0, 0.0]
    assert np.allclose(weights[0, 1], [0.5, 5.0, 0.0])
    assert not bands.any()
    assert np.isclose(counts[0, 1, 2, EventType.VIEW], 0.5)
    assert np.isclose(counts[0, 1, 2, EventType.PURCHASE], 1.0)


def test_association_rows_are_directed_and_lean_on_content_where_behaviour_is_thin() -> None:
    log = log_of([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1])
    behaviour = BehaviourSources(ModelConfig(), log, 3)
    weights = behaviour.rows(AssociationSettings(backward=0.0))
    alike = sp.csr_matrix(np.array([[0, 0, 1], [0.5, 0, 0.5], [0.9, 0.1, 0]], dtype=np.float32))
    neighbours, shares = neighbour_rows(weights, alike, behaviour.support, trust=0.01, neighbours=2)
    assert neighbours[0, 0] == 1
    assert shares[0, 0] > 0.9
    assert shares[1].max() == 0.5, "nothing followed item 1, so that its row is all content"
    assert neighbours[2, 0] == 0, "an item that nobody has had goes by its looks"
    assert np.allclose(shares.sum(1), 1)


def test_regressed_associations_work_the_same_way() -> None:
    dataset = cycle()
    config = ModelConfig(associations="regressed")
    weights = BehaviourSources(config, dataset.interactions, dataset.items).rows(AssociationSettings(backward=0.0))
    assert weights.min() >= 0
    assert (np.asarray(weights.argmax(axis=1)).ravel() == (np.arange(24) + 1) % 24).all()


@pytest.mark.parametrize("user_encoder", ["gru", "attention"])
@pytest.mark.parametrize("fusion", ["weighted", "concat", "attention"])
def test_every_fusion_and_user_encoder_trains(fusion: str, user_encoder: str) -> None:
    dataset = tiny_dataset()
    config = replace(TINY, epochs=1, fusion=fusion, user_encoder=user_encoder, layers=2)  # type: ignore[arg-type]
    model = fit(dataset, release_split(dataset), config)
    assert np.isfinite(model.vectors).all()
    assert np.isfinite(model.report.losses).all()


def test_mistakes_are_told() -> None:
    dataset = tiny_dataset()
    split = release_split(dataset)
    with pytest.raises(UserError, match="there is no encoder bert"):
        fit(dataset, split, replace(TINY, encoders=("bert",)))
    bare = cycle(users=5)
    bare_split = leave_one_out(bare)
    with pytest.raises(UserError, match="no item has anything for it"):
        fit(bare, bare_split, replace(TINY, encoders=("id", "cnn")))
    many = replace(bare, item_ids=[str(row) for row in range(25_001)])
    with pytest.raises(UserError, match="too many to regress"):
        fit(many, bare_split, replace(TINY, associations="regressed"))
    lonely = Dataset("lonely", log_of([0, 1], [0, 1]), ["a", "b"], ["x", "y"])
    lonely_split = leave_one_out(lonely)
    with pytest.raises(UserError, match="longer log"):
        fit(lonely, lonely_split, TINY)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no GPU"):
            fit(dataset, split, replace(TINY, device="cuda"))


class StoppedError(Exception):
    """What stops a training in these tests."""


def test_an_interrupted_training_goes_on_and_comes_to_the_same_model(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    split = release_split(dataset)
    config = replace(TINY, epochs=3)
    whole = fit(dataset, split, config)
    file = tmp_path / "state" / "checkpoint.pt"

    def interrupt(progress: Progress) -> None:
        if progress.epoch == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(dataset, split, config, progress=interrupt, checkpoint=file)
    assert file.exists()
    with pytest.raises(UserError, match="of another training"):
        fit(dataset, split, replace(config, dim=8), checkpoint=file)
    epochs: list[int] = []
    resumed = fit(dataset, split, config, progress=lambda one: epochs.append(one.epoch), checkpoint=file)
    assert set(epochs) == {3}
    assert resumed.report.losses == whole.report.losses
    assert np.array_equal(resumed.vectors, whole.vectors)
    assert not file.exists()


def test_a_checkpoint_that_is_none_is_refused_unread(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    split = release_split(dataset)
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UserError, match="cannot be read"):
        fit(dataset, split, TINY, checkpoint=file)


def test_a_table_of_everything_is_available() -> None:
    model = tiny_model()
    table = table_of(model.vectors, model.neighbours, model.neighbour_weights)
    assert table.available.all()
