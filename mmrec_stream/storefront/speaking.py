"""Which modality spoke for a list: what each brings to the likeness of its products to those that the visitor chose.

An item's vector is the sum of its modalities' vectors by their weights (fusion `weighted`), so the product of two
items' vectors is a sum over one item's modalities: each summand is what that modality says. What the vector has beyond
its content was learned from behaviour. With other fusions the mean weights stand for an item's own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.ranking.content import Vocabularies, encoded
from mmrec_stream.ranking.providers import session_on
from mmrec_stream.releases import Release, load_release
from mmrec_stream.releases.folder import ITEM_ENCODER
from mmrec_stream.storefront.api import Card
from mmrec_stream.storefront.modalities import ATTRIBUTES, BEHAVIOUR, PICTURE, TEXT, modality_of

Floats = NDArray[np.float32]


def _alone(*kept: str) -> Callable[[CatalogueItem], CatalogueItem]:
    return lambda item: CatalogueItem(item_id=item.item_id, **{name: getattr(item, name) for name in kept})


_ALONE = {
    TEXT: _alone("title", "description"),
    PICTURE: _alone("thumbnail"),
    ATTRIBUTES: _alone("category", "brand", "price", "tags"),
}
"""A product as if it had one modality and no other."""


class Voices:
    """The modalities of one release. Any thread may ask; a list takes some 50 ms."""

    def __init__(self, release: Release) -> None:
        self.version = release.manifest.version
        self._rows = {item_id: row for row, item_id in enumerate(release.item_ids)}
        self._vectors = release.item_vectors
        self._encoder = session_on(str(release.path / ITEM_ENCODER), "cpu", 1)
        self._vocabularies = Vocabularies.of(release.vocabularies)
        self._weights: dict[str, float] = {}
        for encoder, weight in release.manifest.modality_weights.items():
            name = modality_of(encoder)
            self._weights[name] = self._weights.get(name, 0.0) + weight

    @classmethod
    def announced(cls, announcement: ReleaseAnnouncement) -> "Voices":
        """Those of an announced release.

        Raises:
            UserError: it is not there, or not as announced.
        """
        return cls(load_release(Path(announcement.path), announcement.manifest_sha256))

    def shares(self, listed: Sequence[CatalogueItem], chosen: Sequence[CatalogueItem]) -> dict[str, float]:
        """Each modality's share in the likeness, by name; they sum to 1. Empty where nothing speaks for the list.

        Args:
            listed: the list's products.
            chosen: what the visitor looked at last.
        """
        if not listed or not chosen:
            return {}
        speaking = {name: max(0.0, float(said.sum())) for name, said in self.amounts(listed, chosen).items()}
        total = sum(speaking.values())
        return {name: amount / total for name, amount in speaking.items()} if total > 0 else {}

    def amounts(
        self, listed: Sequence[CatalogueItem], chosen: Sequence[CatalogueItem]
    ) -> dict[str, NDArray[np.float64]]:
        """What each modality adds to the product of an item's vector with the chosen ones' mean, (items,), by name."""
        visitor = self._vectors_of(chosen).mean(axis=0)
        parts = {
            name: encoded(self._encoder, [alone(item) for item in listed], self._vocabularies)
            for name, alone in _ALONE.items()
            if name in self._weights
        }
        trained = np.array([item.item_id in self._rows for item in listed])
        # A modality that an item lacks leaves its weight to the others.
        weights = {name: self._weights[name] * np.any(part, axis=1) for name, part in parts.items()}
        whole = sum(weights.values(), self._weights.get(BEHAVIOUR, 0.0) * trained)
        said = {name: (part @ visitor) * weights[name] / np.maximum(whole, 1e-9) for name, part in parts.items()}
        if BEHAVIOUR in self._weights:
            content = sum(said.values(), np.zeros(len(listed)))
            said[BEHAVIOUR] = np.where(trained, self._vectors_of(listed) @ visitor - content, 0.0)
        return said

    def _vectors_of(self, items: Sequence[CatalogueItem]) -> Floats:
        """Vectors (items, d): the release's, and of items that it has not seen by their content."""
        vectors = encoded(self._encoder, items, self._vocabularies)
        for place, item in enumerate(items):
            if (row := self._rows.get(item.item_id)) is not None:
                vectors[place] = self._vectors[row]
        return vectors


def product_of(card: Card, thumbnail: bytes | None) -> CatalogueItem:
    """A product by what its card says and shows."""
    return CatalogueItem(
        item_id=card.item_id,
        title=card.title,
        description=card.description,
        category=card.category,
        brand=card.brand,
        price=card.price,
        tags=card.tags,
        thumbnail=thumbnail,
    )
