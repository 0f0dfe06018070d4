"""Which modality spoke for a list: what each brings to the likeness of its products to those that the visitor chose.

An item's vector is, as far as can be, a sum of the vectors that the encoder gives of each modality alone, each with one
weight for all items (with the fusion `weighted` it is just that). So the product of two items' vectors is a sum over
one item's modalities, and each summand is what that modality says. What is left of the vector was learned from
behaviour.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.ranking.content import Vocabularies, encoded
from mmrec_stream.ranking.providers import session_on
from mmrec_stream.releases import Release, load_release
from mmrec_stream.releases.access import opened
from mmrec_stream.releases.folder import ITEM_ENCODER
from mmrec_stream.settings import Settings
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
        names = {modality_of(encoder) for encoder in release.manifest.encoders}
        self._alone = {name: alone for name, alone in _ALONE.items() if name in names}
        self._learned = BEHAVIOUR in names

    @classmethod
    def announced(cls, announcement: ReleaseAnnouncement, settings: Settings) -> "Voices":
        """Those of an announced release.

        Raises:
            UserError: as `opened`.
        """
        with opened(announcement, settings) as (path, expected):
            return cls(load_release(path, expected))

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
        items = [*listed, *chosen]
        vectors = self._vectors_of(items)
        visitor = vectors[len(listed) :].mean(axis=0)
        parts = [self._encoded([alone(item) for item in items]) for alone in self._alone.values()]
        said = np.zeros((len(parts), len(items)))
        trained = np.array([item.item_id in self._rows for item in items])
        for group in (trained, ~trained):
            columns = [part[group].ravel() for part in parts]
            if columns and group.any():
                weights = np.linalg.lstsq(np.stack(columns, axis=1), vectors[group].ravel(), rcond=None)[0]
                said[:, group] = [weight * (part[group] @ visitor) for weight, part in zip(weights, parts, strict=True)]
        found = dict(zip(self._alone, said[:, : len(listed)], strict=True))
        if self._learned:
            found[BEHAVIOUR] = (vectors @ visitor - said.sum(axis=0))[: len(listed)]
        return found

    def _vectors_of(self, items: Sequence[CatalogueItem]) -> Floats:
        """Vectors (items, d): the release's, and of items that it has not seen by their content."""
        vectors = self._encoded(items)
        for place, item in enumerate(items):
            if (row := self._rows.get(item.item_id)) is not None:
                vectors[place] = self._vectors[row]
        return vectors

    def _encoded(self, items: Sequence[CatalogueItem]) -> Floats:
        return encoded(self._encoder, items, self._vocabularies)


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
