"""Training: a data set and its split become a calibrated hybrid model, with a record of how it was learned."""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.requests import ItemFacts
from mmrec_stream.data.splits import Cases, Ragged, Split
from mmrec_stream.errors import UserError
from model_export.associations import AssociationSettings, BehaviourSources, ContentSources, association_rows
from model_export.beginnings import item_factors
from model_export.calibration import calibrate
from model_export.checkpoint import Checkpoint, State
from model_export.config import ModelConfig
from model_export.encoders import ID, CnnImage, LstmText, Precomputed, RawEncoder, make_encoder
from model_export.hybrid import Report, TrainedModel, case_features, ndcg_at, sample_cases, user_vectors
from model_export.inputs import Inputs, describe, encoder_names
from model_export.items import ItemModel
from model_export.pretext import Begun, begin
from model_export.ranker import Ranker
from model_export.reranker import counts_of
from model_export.reranking import learn_reranker
from model_export.sequences import NO_TARGET, Sequences, side_inputs, training_sequences
from model_export.shares import modality_shares
from model_export.social import WEIGHTS, Social
from model_export.users import UserModel

VALIDATION_CASES = 2_000
"""Cases the validation metric is taken on after each pass: its standard error is then about .005, and it takes a
second for 10,000 items."""

ENCODE_CHUNK = 512
"""Items whose content is encoded at a time in training: bounds the memory of the convolutions to some 100 MB."""

SHARE_USERS = 500
"""Users by whom the modalities' shares are taken: a share is then known to a hundredth."""

REFRESH_STEPS = 8
"""Steps that share one encoding of the catalogue's content. The content encoders learn from the gradients of all of
them at once; each step less would cost an encoding more."""

WARM_UP = 100
"""Steps over which the learning rate rises: Adam's first estimates are too rough for large steps."""

MOST_REGRESSED = 25_000
"""Items that regressed associations are made for: they take 7.5 GB and, on two cores, five minutes then."""

STEADINESS = 0.995
"""Share of the averaged weights that a step leaves: an average over some 200 steps, about a pass of a small log, takes
out the noise of single batches, as a falling learning rate would, and needs no end of training to be known."""

MIN_STEPS = 40
"""Steps that a pass has at least, by smaller batches where there are few sequences: validation after each pass would
otherwise stop training before it has begun."""

MIN_BATCH = 16
"""Sequences a step has at least: gradients of fewer are mostly noise."""


Judge = Callable[[UserModel, NDArray[np.float32]], float]
"""The quality of a user model with item vectors (items, dim), higher is better."""


Pretext = Callable[[ModelConfig, Inputs], Begun | None]
"""What encoders of raw input begin with, if they learn from content first."""


@dataclass(frozen=True)
class Progress:
    """Where training is; reported a few times a second."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    metric: float
    """NDCG of p_user on validation, as of the last pass."""
    events_per_s: float
    seconds_left: float
    """Until the last pass at the latest; early stopping may end before."""


def fit(
    dataset: Dataset,
    split: Split,
    config: ModelConfig | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: Path | None = None,
    pretext: Pretext | None = None,
) -> TrainedModel:
    """Train on the split's training events, stop and calibrate on its validation cases.

    Where the split has events to refit on, the model is trained again on those, for as many passes as were best, and
    keeps the calibration.

    Args:
        dataset: The log, and what is known of its items.
        split: What may be learned from, and what is tuned on; the test cases are not looked at.
        config: The settings; the defaults without.
        progress: Called a few times a second.
        checkpoint: A file that is written after each pass. If it is there already, from the same data and settings,
            training goes on where it stopped and comes to the same model; it is removed at the end.
        pretext: In place of `learn_from_content`, whose outcome several trainings may share.

    Raises:
        UserError: There is nothing to learn from, an encoder does not fit the data, or the checkpoint is of another
            training.
    """
    config = _settled(config or ModelConfig(), dataset)
    torch.manual_seed(config.seed)
    log = split.train.without_impressions()
    sequences = training_sequences(log, config.history, repeats=config.repeats)
    if not len(sequences):
        raise UserError(
            f"data set {dataset.name}: no user has two interactions with different items to learn from; "
            "give it a longer log"
        )
    if config.associations == "regressed" and dataset.items > MOST_REGRESSED:
        raise UserError(
            f"data set {dataset.name}: {dataset.items} items are too many to regress associations of "
            f"(at most {MOST_REGRESSED}); use counted ones"
        )
    began = time.monotonic()
    inputs = describe(dataset, config)
    begun = (pretext or learn_from_content)(config, inputs)
    validation = sample_cases(split.validation, VALIDATION_CASES)
    features = case_features(validation, dataset, inputs, config) if len(validation) else None

    def quality(users: UserModel, vectors: NDArray[np.float32]) -> float:
        assert features is not None  # noqa: S101 - only asked where there is something to validate on
        logits = user_vectors(Ranker(users, config), features, vectors).numpy() @ vectors.T
        return float(ndcg_at(config.places, logits, validation, mask_history=split.mask_history).mean())

    def learn(
        log: Interactions, sequences: Sequences, epochs: int, judge: Judge | None, saved: Checkpoint | None = None
    ) -> "_Trainer":
        support = np.bincount(log.items, minlength=dataset.items)
        trainer = _Trainer(config, inputs, sequences, support, judge, begun)
        if config.factors and trainer.items.has_id:
            trainer.begin_at(item_factors(log.where(log.likings), dataset.items, config.dim, config.seed))
        trainer.train(epochs, progress, saved)
        return trainer

    saved = Checkpoint.of(checkpoint, config, log) if checkpoint else None
    trainer = learn(log, sequences, config.epochs, quality if features is not None else None, saved)
    report = trainer.report
    vectors = trainer.table()
    ranker = Ranker(trainer.users, config).cpu().eval()
    columns = begun.columns if begun else {}
    content = ContentSources(inputs, trainer.items.names, vectors, config.neighbours, columns)
    seasons = dataset.timed and dataset.listed
    behaviour = BehaviourSources(config, log, dataset.items, seasons=seasons)
    settings, social = AssociationSettings(), None
    if features is not None:

        def vectors_of(cases: Cases) -> Tensor:
            return user_vectors(ranker, case_features(cases, dataset, inputs, config), vectors)

        users = user_vectors(ranker, features, vectors)
        if dataset.social is not None:
            social = Social.of(dataset.social, dataset.users, log)
            social = _weighed(
                social, users, validation, vectors, vectors_of, report, config.places, mask_history=split.mask_history
            )
            users = social.blend(users, validation, vectors_of)
        settings = calibrate(
            ranker,
            config,
            behaviour,
            vectors,
            content,
            validation,
            features,
            users,
            report,
            mask_history=split.mask_history,
        )
    rows, season = association_rows(config, behaviour, content, settings), behaviour.season(settings)
    model = TrainedModel(config, dataset, inputs, trainer.items, ranker, vectors, *rows, report, social, season)
    if config.rerank and len(split.validation):
        reranking = learn_reranker(model, log, split.validation, mask_history=split.mask_history)
        model = replace(model, reranking=reranking)
    if split.refit is not None:
        log = split.refit.without_impressions()
        sequences = training_sequences(log, config.history, repeats=config.repeats)
        trainer = learn(log, sequences, report.best_epoch, None)
        vectors = trainer.table()
        content = ContentSources(inputs, trainer.items.names, vectors, config.neighbours, columns)
        behaviour = BehaviourSources(config, log, dataset.items, seasons=seasons)
        ranker.users = trainer.users.cpu().eval()
        if social is not None and dataset.social is not None:
            social = replace(Social.of(dataset.social, dataset.users, log), weight=social.weight)
        rows, season = association_rows(config, behaviour, content, settings), behaviour.season(settings)
        if model.reranking is not None:
            counts = counts_of(log.where(log.likings), dataset.items)
            model = replace(model, reranking=replace(model.reranking, counts=counts))
        model = replace(model, items=trainer.items, vectors=vectors, social=social, season=season)
        model = replace(model, neighbours=rows[0], neighbour_weights=rows[1])
    moments = _last_moments(log)
    asked = case_features(moments, dataset, inputs, config)
    report.modality_weights = modality_shares(ranker, asked, vectors, trainer.without_each())
    report.seconds = time.monotonic() - began
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return model


def _settled(config: ModelConfig, dataset: Dataset) -> ModelConfig:
    """The settings with what is left to the data decided by it."""
    if config.associations != "auto":
        return config
    return replace(config, associations="regressed" if dataset.items <= config.regressed_items else "counted")


def raw_encoders(config: ModelConfig, inputs: Inputs) -> tuple[str, ...]:
    """Names of the encoders that read texts or pictures themselves."""
    return tuple(name for name in encoder_names(config, inputs) if name in (LstmText.name, CnnImage.name))


def learn_from_content(config: ModelConfig, inputs: Inputs) -> Begun | None:
    """What encoders of raw input begin with, where they are to learn from content first."""
    names = raw_encoders(config, inputs)
    if not config.pretext or not names:
        return None
    content = {name: torch.from_numpy(array) for name, array in inputs.content.feed().items()}
    # What comes after this is as random as without it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoders = {name: make_encoder(name, config.dim, inputs.sizes) for name in names}
        raw = {name: encoder for name, encoder in encoders.items() if isinstance(encoder, RawEncoder)}
        return begin(raw, content, config.pretext, config.seed)


class _Trainer:
    """The state of one training run. Items are numbered among the candidates: those that training has seen."""

    def __init__(
        self,
        config: ModelConfig,
        inputs: Inputs,
        sequences: Sequences,
        support: NDArray[np.int64],
        judge: Judge | None,
        begun: Begun | None,
    ) -> None:
        self.config, self.inputs, self.judge, self.report = config, inputs, judge, Report()
        self.device = _device(config)
        self.rng = np.random.default_rng(config.seed)
        self.sequences = sequences
        names = encoder_names(config, inputs)
        known = torch.from_numpy(support > 0)
        self.items = ItemModel(names, config.dim, config.fusion, known, inputs.sizes).to(self.device)
        lists = inputs.vocabularies
        self.users = UserModel(config, len(lists["categories"]), len(lists["brands"])).to(self.device)
        self.content = {
            name: torch.from_numpy(array).to(self.device)
            for name, array in inputs.content.feed().items()
            if name in self.items.inputs
        }
        for name, encoder in zip(self.items.names, self.items.encoders, strict=False):
            if isinstance(encoder, Precomputed):
                encoder.begin_at(self.content[encoder.inputs[0]])
            elif isinstance(encoder, RawEncoder) and begun is not None:
                encoder.load_state_dict(begun.trunks[name])
                self.content[encoder.inputs[0]] = begun.seen[name].to(self.device)
                encoder.begin_at(self.content[encoder.inputs[0]])
        self.candidates = torch.from_numpy(np.flatnonzero(support)).to(self.device)
        self.place = np.full(len(support), -1)
        self.place[np.flatnonzero(support)] = np.arange(int((support > 0).sum()))
        # Without labels and types, the side inputs would all be the same.
        tells_apart = bool(lists["categories"] or lists["brands"]) or len(np.unique(sequences.types)) > 2
        self.facts = inputs.facts if tells_apart else None
        self.batch = min(config.batch, max(MIN_BATCH, len(sequences) // MIN_STEPS))
        # Compiling takes a minute, which a GPU earns back and two cores do not.
        compiled = self.device.type == "cuda"
        self.sequence = torch.compile(self.users.sequence, dynamic=True) if compiled else self.users.sequence
        content_parameters = list(self.items.encoders.parameters())
        content_ids = {id(parameter) for parameter in content_parameters}
        own = [p for p in [*self.items.parameters(), *self.users.parameters()] if id(p) not in content_ids]
        self.optimizer = _optimizer(own, config)
        self.content_optimizer = _optimizer(content_parameters, config) if content_parameters else None
        self.steps = 0
        self.average = self._weights()

    def begin_at(self, vectors: NDArray[np.float32]) -> None:
        """Start the id embeddings at `vectors`, (items, dim)."""
        with torch.no_grad():
            self.items.ids.weight.copy_(torch.from_numpy(vectors))
        self.average = self._weights()

    def train(self, epochs: int, progress: Callable[[Progress], None] | None, saved: Checkpoint | None = None) -> None:
        """Pass over the sequences until validation gets no better, or the passes or the time are used up."""
        config, report = self.config, self.report
        began = time.monotonic()
        deadline = np.inf if config.minutes is None else began + config.minutes * 60
        kept: State = {}
        if saved and (state := saved.load()) is not None:
            kept = self._resume(state)
        best = max(report.metrics, default=-1.0)
        first = len(report.losses) + 1
        if first > 1 and first - 1 - report.best_epoch >= config.patience:
            first = epochs + 1
        for epoch in range(first, epochs + 1):
            report.losses.append(self._pass(epoch, began, deadline, progress))
            late = time.monotonic() > deadline
            if self.judge is None:
                report.best_epoch = epoch
            else:
                report.metrics.append(self._judged(self.judge))
                if report.metrics[-1] > best:
                    best, report.best_epoch = report.metrics[-1], epoch
                    kept = deepcopy(self.average)
            if saved:
                saved.save(self._state(kept))
            if late or epoch - report.best_epoch >= config.patience:
                break
        self._load(kept or self.average)

    def _weights(self) -> State:
        """The weights as they are, in copies."""
        return {"items": _copy(self.items), "users": _copy(self.users)}

    def _load(self, weights: State) -> None:
        self.items.load_state_dict(weights["items"])
        self.users.load_state_dict(weights["users"])

    def _follow(self) -> None:
        """Let the average follow the weights; less slowly as long as there have been few steps."""
        share = 1.0 - min(STEADINESS, self.steps / (self.steps + 9))
        with torch.no_grad():
            for name, module in (("items", self.items), ("users", self.users)):
                for key, weight in module.named_parameters():
                    self.average[name][key].lerp_(weight, share)

    def _state(self, kept: State) -> State:
        """All that a later training needs to go on as if nothing had happened."""
        optimizers = [self.optimizer.state_dict()]
        if self.content_optimizer:
            optimizers.append(self.content_optimizer.state_dict())
        report = self.report
        return {
            "items": self.items.state_dict(),
            "users": self.users.state_dict(),
            "average": self.average,
            "kept": kept,
            "optimizers": optimizers,
            "steps": self.steps,
            "losses": report.losses,
            "metrics": report.metrics,
            "best_epoch": report.best_epoch,
            "numpy": self.rng.bit_generator.state,
            "torch": torch.get_rng_state(),
        }

    def _resume(self, state: State) -> State:
        """Put a saved state in place; the best weights so far."""
        self._load(state["average"])
        self.average = self._weights()
        self._load(state)
        for optimizer, own in zip(
            filter(None, (self.optimizer, self.content_optimizer)), state["optimizers"], strict=True
        ):
            optimizer.load_state_dict(own)
        self.steps = state["steps"]
        self.report.losses, self.report.metrics = list(state["losses"]), list(state["metrics"])
        self.report.best_epoch = state["best_epoch"]
        self.rng.bit_generator.state = state["numpy"]
        torch.set_rng_state(state["torch"])
        kept: State = state["kept"]
        return kept

    def table(self, same: Mapping[int, Tensor] | None = None) -> NDArray[np.float32]:
        """Vectors of all items, (items, dim); with `same`, by modality number, the part that all of them have in it."""
        self.items.eval()
        vectors = []
        with torch.no_grad():
            for chunk in torch.arange(len(self.place), device=self.device).split(ENCODE_CHUNK):
                parts, present = self._encode(chunk) if self.content_optimizer else (None, None)
                for number, part in (same or {}).items():
                    if parts is not None:
                        parts[:, number] = part
                vectors.append(self.items.fuse(parts, present, chunk))
        return torch.cat(vectors).float().cpu().numpy()

    def without_each(self) -> dict[str, NDArray[np.float32]]:
        """The items' vectors without what each modality tells of them, by its name: all have the mean of it.

        The mean and not nothing: what all items have in common is no news of any. Of a single modality there is nothing
        to tell.
        """
        items = self.items.eval()
        if len(items.names) < 2:
            return {}
        with torch.no_grad():
            means = torch.zeros(len(items.encoders), items.dim, device=self.device)
            counts = torch.zeros(len(items.encoders), 1, device=self.device)
            for chunk in torch.arange(len(self.place), device=self.device).split(ENCODE_CHUNK):
                parts, present = self._encode(chunk)
                means += (parts * present.unsqueeze(2)).sum(0)
                counts += present.sum(0).unsqueeze(1)
            means /= counts.clamp(min=1)
            tables = {
                name: self.table({number: mean})
                for number, (name, mean) in enumerate(zip(items.names, means, strict=False))
            }
            if items.has_id:
                own = items.ids.weight.clone()
                items.ids.weight.copy_(own[items.known].mean(0).expand_as(own))
                tables[ID] = self.table()
                items.ids.weight.copy_(own)
        return tables

    def _encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.items.encode({name: array[rows] for name, array in self.content.items()})

    def _pass(self, epoch: int, began: float, deadline: float, progress: Callable[[Progress], None] | None) -> float:
        """One pass, or what of it there is time for; the mean loss."""
        config = self.config
        self.items.train()
        self.users.train()
        total, count, events = 0.0, 0, 0
        steps = -(-len(self.sequences) // self.batch)
        pass_began = last_shown = time.monotonic()
        content: _SharedContent | None = None
        for step, batch in enumerate(self.sequences.batches(self.batch, self.rng)):
            if self.content_optimizer and step % REFRESH_STEPS == 0:
                self._learn_content(content)
                content = self._share_content()
            loss = self._step(batch, content)
            places = int((batch.targets != NO_TARGET).sum())
            total, count, events = total + loss * places, count + places, events + int((batch.types > 0).sum())
            now = time.monotonic()
            if progress and (now - last_shown > 0.25 or step == steps - 1):
                last_shown = now
                done = epoch - 1 + (step + 1) / steps
                progress(
                    Progress(
                        epoch,
                        config.epochs,
                        step + 1,
                        steps,
                        total / count,
                        self.report.metrics[-1] if self.report.metrics else 0.0,
                        events / max(now - pass_began, 1e-9),
                        (now - began) / done * (config.epochs - done),
                    )
                )
            if now > deadline:
                break
        if content is not None:
            self._learn_content(content)
            # The encoders have moved since the last step, and the average that is judged has not.
            self._follow()
        return total / max(count, 1)

    def _share_content(self) -> "_SharedContent":
        """Encode the candidates' content once, for the next steps to read and to leave their gradients at."""
        with torch.no_grad():
            chunks = [self._encode(chunk) for chunk in self.candidates.split(ENCODE_CHUNK)]
        parts = torch.cat([part for part, _ in chunks]).requires_grad_()
        return _SharedContent(parts, torch.cat([present for _, present in chunks]))

    def _learn_content(self, content: "_SharedContent | None") -> None:
        """Carry the gradients of the shared encoding through the encoders (as in Gao et al., GradCache, 2021)."""
        if self.content_optimizer is None or content is None or content.parts.grad is None:
            return
        self.content_optimizer.zero_grad(set_to_none=True)
        gradients = content.parts.grad.split(ENCODE_CHUNK)
        for chunk, gradient in zip(self.candidates.split(ENCODE_CHUNK), gradients, strict=True):
            parts, _ = self._encode(chunk)
            parts.backward(gradient)
        self.content_optimizer.step()

    def _step(self, batch: Sequences, content: "_SharedContent | None") -> float:
        """One optimiser step on one batch; the loss."""
        for group in [
            *self.optimizer.param_groups,
            *(self.content_optimizer.param_groups if self.content_optimizer else ()),
        ]:
            group["lr"] = self.config.learning_rate * min(1.0, (self.steps + 1) / WARM_UP)
        self.steps += 1
        loss = self._loss(batch, content)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self._follow()
        return float(loss.detach())

    def _loss(self, batch: Sequences, content: "_SharedContent | None") -> Tensor:
        """Mean cross-entropy of the targets in the (sampled) softmax over the candidates."""
        config, device = self.config, self.device
        wanted = torch.from_numpy(batch.targets != NO_TARGET).to(device)
        history = torch.from_numpy(self.place[batch.rows] * (batch.types > 0)).to(device)
        targets = torch.from_numpy(self.place[batch.targets]).to(device)[wanted]
        everything = len(self.candidates) <= config.full_softmax_items
        if everything:
            used = torch.arange(len(self.candidates), device=device)
            negatives = used
        else:
            drawn = self.rng.choice(len(self.candidates), min(config.negatives, len(self.candidates)), replace=False)
            negatives = torch.from_numpy(drawn).to(device)
            used, places = torch.cat([history.flatten(), targets, negatives]).unique(return_inverse=True)
            history, targets, negatives = places.split([history.numel(), len(targets), len(negatives)])
            history = history.reshape(batch.rows.shape)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            parts, present = (content.parts[used], content.present[used]) if content else (None, None)
            vectors = self.items.fuse(parts, present, self.candidates[used], config.id_dropout)
            states = states_of(self.users, batch, vectors[history], self.facts, self.sequence)[wanted]
            positive = (states * vectors[targets]).sum(1, keepdim=True)
            others = states @ vectors[negatives].T
        others = others.float()
        if everything:
            return nn.functional.cross_entropy(others, targets)
        # Each negative stands for as many items as there are to a negative.
        others = others + np.log((len(self.candidates) - 1) / len(negatives))
        others = others.masked_fill(negatives == targets.unsqueeze(1), -1e9)
        logits = torch.cat([positive.float(), others], 1)
        return nn.functional.cross_entropy(logits, torch.zeros_like(targets))

    def _judged(self, judge: Judge) -> float:
        trained = self._weights()
        self._load(self.average)
        vectors = self.table()
        self.users.eval()
        quality = judge(self.users, vectors)
        self._load(trained)
        return quality


def _last_moments(log: Interactions) -> Cases:
    """Some users' last moments in the log, with nothing that they are asked about."""
    users = np.unique(log.users)
    ends = np.searchsorted(log.users, users, side="right")
    starts = np.searchsorted(log.users, users)
    nothing = Ragged(np.empty(0, dtype=np.int64), np.zeros(len(users) + 1, dtype=np.int64))
    return sample_cases(Cases(log, users, starts, ends, log.times[ends - 1], nothing), SHARE_USERS)


def states_of(
    users: UserModel,
    batch: Sequences,
    history: Tensor,
    facts: ItemFacts | None,
    sequence: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Users' vectors at each place of sequences, (batch, length, dim).

    Args:
        users: The user model.
        batch: The sequences.
        history: Their items' vectors, (batch, length, dim).
        facts: What the side inputs are made of; None leaves them out.
        sequence: The model's sequence encoder in a compiled form.
    """
    device = history.device
    times = torch.from_numpy(batch.times).to(device)
    gaps = torch.cat([torch.zeros_like(times[:, :1]), times[:, 1:] - times[:, :-1]], 1).float()
    states = (sequence or users.sequence)(history, torch.from_numpy(batch.types).to(device), gaps)
    if facts is None:
        return states
    side = users.side
    weights, bands, counts = (torch.from_numpy(array).to(device) for array in side_inputs(batch, facts))
    means = []
    for embedding, index in ((side.categories, facts.categories), (side.brands, facts.brands)):
        slots = torch.from_numpy(index[batch.rows]).to(device)
        used: Tensor = weights * (slots > 0).unsqueeze(1)
        means.append((used @ embedding(slots)) / used.sum(2, keepdim=True).clamp(min=1e-6))
    addition: Tensor = side(*means, bands, counts)
    return states + addition


@dataclass
class _SharedContent:
    """The candidates' encoded content; `parts` collects the gradients of the steps that read it."""

    parts: Tensor
    present: Tensor


def _weighed(
    social: Social,
    users: Tensor,
    cases: Cases,
    vectors: NDArray[np.float32],
    vectors_of: Callable[[Cases], Tensor],
    report: Report,
    places: int,
    *,
    mask_history: bool,
) -> Social:
    """The social signal at the weight that is best for p_user on validation."""
    for weight in WEIGHTS:
        blended = replace(social, weight=weight).blend(users, cases, vectors_of)
        logits = blended.numpy() @ vectors.T
        report.social[weight] = float(ndcg_at(places, logits, cases, mask_history=mask_history).mean())
    return replace(social, weight=max(report.social, key=lambda weight: report.social[weight]))


def _optimizer(parameters: list[nn.Parameter], config: ModelConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _device(config: ModelConfig) -> torch.device:
    """Where to train.

    Raises:
        UserError: CUDA was asked for and PyTorch finds none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: PyTorch finds no GPU here; use auto or cpu")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
