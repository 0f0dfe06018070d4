"""The scorer: a release, loaded, checked and warmed up, that turns users' features into lists."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.errors import UserError, first_line
from mmrec_stream.ranking.approximate import PROBED_USERS
from mmrec_stream.ranking.content import Vocabularies, content_key, encoded
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.providers import Device, choose_device, session_on
from mmrec_stream.ranking.repeats import Cycles
from mmrec_stream.ranking.reranking import CANDIDATES, Counts, Reranker, candidate_features
from mmrec_stream.ranking.retrieval import Retrieval
from mmrec_stream.ranking.types import TOLERANCES, Features, Lists, blank_features, close
from mmrec_stream.ranking.users import UserEncoder
from mmrec_stream.releases.folder import (
    ANY,
    ITEM_ENCODER,
    RANKER,
    RERANKER,
    VOCABULARIES,
    Expected,
    Half,
    Release,
    load_release,
)

TABLE_INPUTS = ("item_vectors", "neighbours", "neighbour_weights", "available")
OUTPUTS = ("rows", "scores", "p_user", "p_item", "alpha")

ALPHAS = "alphas"
"""The weight of the ranker's graph that holds α by history length; a run may be given other values."""

ALPHA_MARGIN = 1e-6
"""α is kept this far from 0 and 1: then the half that does not count still breaks ties, and a list is full even where
associations alone name fewer items."""

GROUP = 32
"""Users in one run on a CPU. Half of what a history of 50 places costs is the GRU, which runs over all places of the
longest; histories differ, so smaller runs of like ones are cheaper, until the items' vectors are read too often for too
few users: of a Zipf-like crowd, 128 at once take 89 µs each in runs of 8, 65 in runs of 32 and 85 in one."""

WHOLE_ITEMS = 100_000
"""Largest catalogue that is scored whole on a CPU where nobody says otherwise: there both ways take the same time, and
at a million items candidates take a fifth of it."""

HALVES: dict[Half, float] = {"user": 1.0, "item": 0.0}
"""The α that leaves a half of the mix alone."""

KEPT = 0.5
"""How much of its vector a trained item keeps when its text or picture changes. The vector knows behaviour, which the
content's does not; what it was made of is not known any more, so that neither can be told from the other. A corrected
title must not undo what was learned, and another picture must count; the next release has both."""

WARM_BATCHES = (1, 64)
"""Batch sizes run before the first user: the first run of a size allocates, and takes ten times as long as the next."""

log = logging.getLogger(__name__)


class Scorer:
    """One release, serving. Load it in a thread: reading, checking and warming up take from 0.1 s to seconds.

    `run` may be called while another thread changes the table; a change is seen whole at the next run.
    """

    def __init__(self, release: Release, device: Device, threads: int) -> None:
        """Sessions on a verified release, on a device that works; see `load`."""
        self.release = release
        self.device = device
        self._threads = threads
        self.vocabularies = Vocabularies.of(release.vocabularies)
        self.table = ItemTable(release.item_ids, release.item_vectors, release.neighbours, release.neighbour_weights)
        self.cycles: Cycles | None = None
        """After how long items are bought again."""
        if release.repurchases is not None:
            self.cycles = Cycles.of(id_keys(release.item_ids), release.repurchases)
        self._contents = np.zeros(len(self.table), dtype=np.uint64)
        """What each item's vector was made of, `content_key` by row; 0 where no catalogue record was seen."""
        self._alphas: dict[str, NDArray[np.float32]] = {}
        self._ranker = session_on(str(release.path / RANKER), device, threads)
        self._encoder = session_on(str(release.path / ITEM_ENCODER), "cpu", threads)
        self._resident: tuple[int, dict[str, ort.OrtValue]] | None = None
        self._two_stages: tuple[UserEncoder, Retrieval] | None = None
        self.reranker: Reranker | None = None
        if release.counts is not None:
            counts = Counts(release.counts, len(release.item_ids))
            self.reranker = Reranker(release.path / RERANKER, counts, threads)
        # An index is brought up to date by whoever searches it next.
        self._searching = threading.Lock()

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        provider: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int = 0,
        expected: Expected = ANY,
    ) -> "Scorer":
        """Verify the release at `path`, load it, compare it with its golden outputs, and warm it up.

        Args:
            path: The release's folder.
            provider: Where to run (`settings.provider`).
            threads: Threads of one run (`settings.scoring_threads`); 0 lets ONNX Runtime choose.
            expected: What the release has to be, beside whole.

        Raises:
            UserError: The release is damaged, or computes something else here than where it was exported.
        """
        began = time.perf_counter()
        release = load_release(path, expected)
        device = choose_device(provider)
        try:
            scorer = cls(release, device, threads)
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise UserError(f"release {path}: ONNX Runtime cannot load it: {first_line(error)}") from error
        scorer._check_golden()
        scorer._warm_up()
        log.info(
            "release %s serves on %s: %d items, %s, %d threads, ready in %.2f s",
            release.manifest.version,
            device.upper(),
            len(scorer.table),
            release.manifest.compression,
            threads,
            time.perf_counter() - began,
        )
        return scorer

    @property
    def version(self) -> str:
        """The release's version."""
        return self.release.manifest.version

    @property
    def max_history(self) -> int:
        """Most events of a user's history that the ranker was trained on; longer ones gain nothing."""
        return self.release.manifest.dimensions.history

    def run(self, features: Features, k: int) -> Lists:
        """The `k` best items of each user; fewer columns where the table has fewer items."""
        k = min(k, len(self.table))  # which never shrinks
        if self.reranker is None:
            return self._mixed(features, k)
        lists = self._mixed(features, min(max(k, CANDIDATES), len(self.table)))
        return self.reranker.rerank(features, lists, self.table.vectors).places(slice(k))

    def _mixed(self, features: Features, k: int) -> Lists:
        """The `k` best items of each user by the mix."""
        rank = self._of_all if self._two_stages is None else self._of_candidates
        if self.device != "cpu" or len(features) <= GROUP:
            return rank(features, k)
        # Users with histories of about the same length together: a run pads all to its longest.
        order = np.argsort(features.lengths, kind="stable")
        parts = [
            rank(features.part(order[start : start + GROUP]).cropped(), k) for start in range(0, len(order), GROUP)
        ]
        back = np.argsort(order, kind="stable")
        return Lists(*(np.concatenate([getattr(part, name) for part in parts])[back] for name in OUTPUTS))

    def retrieve(self, method: Literal["auto", "whole", "exact", "approximate"]) -> None:
        """How lists are made from the next run on: of the whole catalogue, or in two stages (see `retrieval`).

        Args:
            method: `auto` takes the whole up to `WHOLE_ITEMS` and on CUDA, and `exact` beyond.

        Raises:
            UserError: The release's user encoder computes something else here than where it was exported, or what an
                approximate index needs is not installed.
        """
        if method == "auto":
            method = "whole" if self.device != "cpu" or len(self.table) <= WHOLE_ITEMS else "exact"
        if method == "whole":
            self._two_stages = None
            return
        encoder = UserEncoder(self.release, self.table, self._threads)
        index = Retrieval(self.table, method, threads=self._threads, users=encoder.likely(PROBED_USERS))
        self._two_stages = encoder, index
        self.run(blank_features(1, self.max_history), 1)

    def _of_all(self, features: Features, k: int) -> Lists:
        feed = {field.name: getattr(features, field.name) for field in fields(features)}
        feed["k"] = np.array([k], dtype=np.int64)
        return Lists(*self._ranker.run(OUTPUTS, feed | self._alphas | self._table_on_device()))

    def _of_candidates(self, features: Features, k: int) -> Lists:
        encoder, index = cast("tuple[UserEncoder, Retrieval]", self._two_stages)
        users = encoder.encode(features)
        with self._searching:
            return index.lists(users, features.excluded, k)

    def at_alpha(self, alpha: float) -> "Scorer":
        """The same release, and the same item table, with one α for everybody: 1 is p_user alone, 0 p_item alone.

        It ranks the whole catalogue, and nothing is re-ranked.
        """
        other = self.without_reranker()
        other._alphas, other._two_stages = alphas_of(self._ranker, alpha), None
        return other

    def without_reranker(self) -> "Scorer":
        """The same release, and the same item table, with lists in the order of the mix."""
        other = copy(self)
        other.reranker = None
        return other

    def encode(self, items: Sequence[CatalogueItem]) -> NDArray[np.float32]:
        """Vectors of catalogue items by what they are, (items, d), as for `table.add`."""
        return encoded(self._encoder, items, self.vocabularies)

    def add_items(self, items: Sequence[CatalogueItem]) -> NDArray[np.int64]:
        """Take catalogue items as they are now; says which rows all `items` have.

        Items that the release has not seen are encoded and recommendable from then on; those whose text, picture or
        attributes have changed since they were last given get another vector (see `KEPT`). Items that the release was
        trained on keep theirs at first, which knows behaviour as well as content. Price and stock cost no encoding.
        """
        if changed := self.changed(items):
            self.table.resemble(self.learn(changed, self.encode(changed))[1])
        now_ms = int(time.time() * 1000)
        rows = self.table.rows(id_keys([item.item_id for item in items]))
        self.table.set_available(rows, np.array([item.sellable_at(now_ms) for item in items], dtype=bool))
        return rows

    def knows(self, item_ids: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each item has a vector, (items,)."""
        return self.table.rows(id_keys(item_ids)) >= 0

    def changed(self, items: Sequence[CatalogueItem]) -> list[CatalogueItem]:
        """Those items, each once, whose vector is not made of what they are now: `learn` wants one.

        What an item that the release was trained on is made of is not known before it is first asked about.
        """
        rows = self.table.rows(id_keys([item.item_id for item in items])).tolist()
        found = {}
        for item, row in zip(items, rows, strict=True):
            content = content_key(item)
            if 0 <= row < len(self._contents) and self._contents[row] == 0:
                self._contents[row] = content
            if not 0 <= row < len(self._contents) or self._contents[row] != content:
                found[item.item_id] = item
            else:
                found.pop(item.item_id, None)
        return list(found.values())

    def learn(
        self, items: Sequence[CatalogueItem], vectors: NDArray[np.float32], available: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Take the vectors of different items, (items, d), as `encode` makes them.

        Args:
            items: Different items.
            vectors: Theirs, (items, d).
            available: Whether items that the table does not have yet can be sold.

        Returns:
            Their rows, (items,), and those of them that are new and have no neighbours yet (`ItemTable.resemble`).
        """
        ids = [item.item_id for item in items]
        known = self.table.rows(id_keys(ids))
        trained = (known >= 0) & (known < len(self.release.item_ids))
        vectors = vectors.copy()
        vectors[trained] = KEPT * self.table.vectors[known[trained]] + (1 - KEPT) * vectors[trained]
        if len(self.table) + len(items) > len(self._contents):
            self._contents = np.concatenate(
                [self._contents, np.zeros(len(self.table) // 4 + len(items), dtype=np.uint64)]
            )
        rows, fresh = self.table.place(ids, vectors, available)
        self._contents[rows] = [content_key(item) for item in items]
        return rows, fresh

    def adopt(self, other: "Scorer") -> int:
        """Take over the vectors of items that another release was told of and this one was not trained on.

        Nothing is taken where the two encode items differently; those have to be told of by `add_items`.

        Returns:
            How many items were taken over.
        """
        mine, theirs = self.release.manifest, other.release.manifest
        if any(mine.files[name].sha256 != theirs.files[name].sha256 for name in (ITEM_ENCODER, VOCABULARIES)):
            return 0
        known = len(other.release.item_ids)
        vectors, ids = other.table.vectors, list(other.table.ids)
        rows = [row for row in range(known, len(vectors)) if self.table.row(ids[row]) < 0]
        if rows:
            added = self.table.add([ids[row] for row in rows], vectors[rows])
            self._contents = np.concatenate([self._contents, np.zeros(len(self.table), dtype=np.uint64)])
            self._contents[added] = other._contents[rows]
        return len(rows)

    def withdraw(self, item_ids: Sequence[str]) -> None:
        """Recommend these items no more; ids that the table does not have are passed over."""
        self.table.set_available(self.table.rows(id_keys(item_ids)), False)

    def offer(self, sellable: Mapping[str, bool]) -> None:
        """Say whether items can be sold; ids that the table does not have are passed over."""
        rows = self.table.rows(id_keys(list(sellable)))
        self.table.set_available(rows, np.array(list(sellable.values()), dtype=bool))

    def _table_on_device(self) -> dict[str, ort.OrtValue]:
        """The table's arrays where the ranker reads them; on a CPU these are the arrays themselves."""
        version = self.table.version
        if self._resident is None or self._resident[0] != version:
            arrays = self.table.arrays()
            values = {name: ort.OrtValue.ortvalue_from_numpy(array, self.device) for name, array in arrays.items()}
            self._resident = version, values
        return self._resident[1]

    def _check_golden(self) -> None:
        """The mix and each half alone, since an α near 0 or 1 hides what is wrong with the half that hardly counts."""
        golden, kind = self.release.golden_of, self.release.manifest.compression
        try:
            inputs = golden(RANKER, "in")
            k = int(inputs.pop("k")[0])
            features = Features(**inputs)  # type: ignore[arg-type]
            same = {"lists": _same_lists(self._of_all(features, k), golden(RANKER, "out"), TOLERANCES[kind])}
            for half, alpha in HALVES.items():
                lists = self.at_alpha(alpha)._of_all(features, k)
                same[f"p_{half}"] = _same_lists(lists, golden(RANKER, half), TOLERANCES[kind])
            vectors = self._encoder.run(["vectors"], golden(ITEM_ENCODER, "in"))[0]
            same["item vectors"] = close(vectors, golden(ITEM_ENCODER, "out")["vectors"], kind)
            if self.reranker is not None:
                same |= self._check_reranker(self.reranker, features)
        except Exception as error:
            raise UserError(f"release {self.release.path}: its golden inputs fail: {first_line(error)}") from error
        if different := [name for name, alike in same.items() if not alike]:
            raise UserError(
                f"release {self.release.path}: {self.device.upper()} gives other results than where it was exported "
                f"({', '.join(different)}); try MMREC_PROVIDER=cpu, or export it with this version of ONNX Runtime"
            )

    def _check_reranker(self, reranker: Reranker, features: Features) -> dict[str, bool]:
        """Features and logits apart: two items that are as good as tied may change places, and their features jump."""
        golden, kind = self.release.golden_of, self.release.manifest.compression
        expected = golden(RERANKER, "out")
        lists = Lists(**golden(RERANKER, "in"))  # type: ignore[arg-type]
        found = candidate_features(features, lists, self.table.vectors, reranker.counts)
        logits = reranker.logits(expected["features"].astype(np.float32))
        return {
            "features of candidates": close(found, expected["features"], kind),
            "logits of candidates": close(logits, expected["logits"], kind),
        }

    def _warm_up(self) -> None:
        for batch in WARM_BATCHES:
            self.run(blank_features(batch, self.max_history), min(20, len(self.table)))


def alphas_of(ranker: ort.InferenceSession, alpha: float) -> dict[str, NDArray[np.float32]]:
    """What to add to the inputs of a run of the ranker's graph, so that everybody is ranked with this α.

    It is kept `ALPHA_MARGIN` away from 0 and 1, as in every release.
    """
    (weight,) = (tensor for tensor in ranker.get_overridable_initializers() if tensor.name == ALPHAS)
    return {ALPHAS: np.full(weight.shape, min(max(alpha, ALPHA_MARGIN), 1 - ALPHA_MARGIN), dtype=np.float32)}


def _same_lists(lists: Lists, expected: dict[str, NDArray[np.generic]], tolerance: float) -> bool:
    """Whether places' and items' scores agree within it, and the items too but for those tied at the end."""
    # What is excluded has a score far below 0, and no place.
    found, scores = (np.maximum(array, 0) for array in (lists.scores, expected["scores"].astype(np.float32)))
    slack = tolerance * scores.max(axis=1, keepdims=True)
    if found.shape != scores.shape or not (np.abs(found - scores) <= slack).all():
        return False
    alike = lists.rows[:, :, None] == expected["rows"][:, None, :]
    apart = np.abs(found[:, :, None] - scores[:, None, :]) > slack[:, :, None]
    # An expected row may be missing only where its score is as good as tied with the last place.
    missing = ~alike.any(axis=1)
    return not (alike & apart).any() and bool((scores - scores[:, -1:] <= 2 * slack)[missing].all())
