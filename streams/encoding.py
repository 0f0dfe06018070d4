"""Products' vectors, made on a thread of their own: neither stock nor lists nor rules wait for an encoder or a picture.

A product that has to be encoded and whose picture lies elsewhere is recommendable by the rest of it at once, and by its
picture too when that has come. One that a release was trained on keeps the vector it has until then.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.pictures.reading import Outcome, PictureReader, own_picture
from mmrec_stream.pictures.sources import Sources
from mmrec_stream.ranking.scorer import Scorer
from streams.metrics import Metrics

ENCODE_BATCH = 256
"""Items encoded in one run: the encoder's cost per item stops falling there."""

MOST_ASKED = 100_000
"""Products whose pictures are waited for at a time. A whole catalogue of unseen products that all have their pictures
elsewhere is more than one worker reads in a quarter of an hour; beyond this, products do without."""

COMPLAIN_S = 10.0
"""Least time between two lines about pictures that cannot be used: a folder that moved breaks thousands."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Waiting:
    item: CatalogueItem
    since: float
    outcome: Outcome | None = None
    """Of its picture, where that lies elsewhere and is known."""


class Encoding:
    """The line of products to encode, newest state of each, and the thread that takes from it."""

    def __init__(
        self,
        sources: Sources,
        scorers: Callable[[], Sequence[Scorer]],
        take: Callable[[Scorer, Sequence[CatalogueItem], NDArray[np.float32]], NDArray[np.int64]],
        metrics: Metrics,
    ) -> None:
        """Nothing happens before `start`.

        Args:
            sources: where pictures may be read.
            scorers: the releases that encode.
            take: gives vectors of items to a release, and says which rows are new.
            metrics: told of pictures and of how long vectors took.
        """
        self._sources = sources
        self._scorers = scorers
        self._take = take
        self._metrics = metrics
        self._reader: PictureReader | None = None
        self._waiting: dict[str, _Waiting] = {}
        self._asked: dict[str, CatalogueItem] = {}
        """Items whose pictures are being read, in their newest state."""
        self._news = threading.Condition()
        self._ended = False
        self._complained = float("-inf")
        self._silent = 0
        self._thread = threading.Thread(target=self._run, name="encoding", daemon=True)

    def __len__(self) -> int:
        """Products that wait for their vector."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin."""
        if self._sources:
            self._reader = PictureReader(self._sources)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, when it is done with what it has in hand."""
        with self._news:
            self._ended = True
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join()
        if self._reader is not None:
            self._reader.close()

    def put(self, items: Iterable[CatalogueItem]) -> None:
        """Products that are there now, or have changed. Those whose vector says all of that cost a look."""
        now = time.monotonic()
        with self._news:
            for item in items:
                known = self.known(item)
                self._waiting[item.item_id] = _Waiting(known, now)
            self._news.notify()

    def known(self, item: CatalogueItem) -> CatalogueItem:
        """An item as a vector is to be made of it: without a picture's address where that is not read."""
        if item.image_url is None or self._sources.wanted(item) is not None:
            return item
        return msgspec.structs.replace(item, image_url=None)

    def drop(self, item_ids: Iterable[str]) -> None:
        """Products that were taken out of the catalogue."""
        with self._news:
            for item_id in item_ids:
                self._waiting.pop(item_id, None)
                self._asked.pop(item_id, None)

    def _run(self) -> None:
        while True:
            with self._news:
                self._metrics.to_encode.set(len(self._waiting))
                while not self._waiting and not self._ended:
                    self._news.wait()
                if self._ended:
                    return
                batch = [self._waiting.pop(item_id) for item_id in list(self._waiting)[:ENCODE_BATCH]]
            try:
                self._encode(batch)
            except Exception:
                log.exception("%d products are left as they were, from %s", len(batch), batch[0].item.item_id)

    def _encode(self, batch: Sequence[_Waiting]) -> None:
        made: set[str] = set()
        for scorer in self._scorers():
            due = {item.item_id for item in scorer.changed([one.item for one in batch])}
            known = scorer.knows([one.item.item_id for one in batch]).tolist()
            to_make: list[tuple[CatalogueItem, CatalogueItem]] = []
            for one, there in zip(batch, known, strict=True):
                if one.item.item_id not in due:
                    continue
                if one.item.image_url is None:
                    to_make.append((one.item, self._sound(one.item)))
                elif one.outcome is not None:
                    to_make.append((one.item, msgspec.structs.replace(one.item, thumbnail=one.outcome.picture)))
                else:
                    self._ask(one.item)
                    if not there:
                        bare = msgspec.structs.replace(one.item, image_url=None)
                        to_make.append((bare, bare))
            if to_make:
                vectors = scorer.encode([seen for _, seen in to_make])
                fresh = self._take(scorer, [item for item, _ in to_make], vectors)
                made |= {item.item_id for item, _ in to_make}
                scorer.table.resemble(fresh)
        now = time.monotonic()
        for one in batch:
            if one.item.item_id in made and one.outcome is None:
                self._metrics.encoding.observe(now - one.since)

    def _sound(self, item: CatalogueItem) -> CatalogueItem:
        """The item without its own picture, if that is none."""
        outcome = own_picture(item)
        if outcome.kind != "broken":
            return item
        self._count(item.item_id, outcome)
        return msgspec.structs.replace(item, thumbnail=None)

    def _ask(self, item: CatalogueItem) -> None:
        """Begin to read an item's picture, unless that is under way."""
        reference = item.image_url
        if self._reader is None or reference is None:
            return
        with self._news:
            before = self._asked.get(item.item_id)
            if before is None and len(self._asked) >= MOST_ASKED:
                return
            self._asked[item.item_id] = item
        if before is None or before.image_url != reference:
            self._reader.read(reference).add_done_callback(lambda done: self._read(item.item_id, reference, done))

    def _read(self, item_id: str, reference: str, done: "Future[Outcome]") -> None:
        """A picture has come, or will not; on the reader's thread."""
        if done.cancelled():
            return
        outcome = done.result()
        with self._news:
            item = self._asked.get(item_id)
            if item is None or item.image_url != reference:
                return  # taken out, or another picture by now
            del self._asked[item_id]
            self._count(item_id, outcome)
            newer = self._waiting.get(item_id)
            if newer is not None and newer.item.image_url != reference:
                return
            since = time.monotonic() if newer is None else newer.since
            self._waiting[item_id] = _Waiting(item if newer is None else newer.item, since, outcome)
            self._news.notify()

    def _count(self, item_id: str, outcome: Outcome) -> None:
        """Count what became of a picture, and say it where that is worth a line."""
        self._metrics.pictures.labels(outcome=outcome.kind).inc()
        if outcome.kind == "read":
            return
        now = time.monotonic()
        if now - self._complained < COMPLAIN_S:
            self._silent += 1
            return
        more = f" (and {self._silent} more since the last such line)" if self._silent else ""
        log.warning("the picture of %s is left out: %s%s; see `mmrec pictures`", item_id, outcome.reason, more)
        self._complained, self._silent = now, 0
