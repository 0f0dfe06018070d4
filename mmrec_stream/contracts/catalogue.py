"""Catalogue items: what a product looks like, says and costs, and whether it can be sold now.

The key is the item id; the newest value of a key counts; a null value takes the item out.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Id, Label, Price, SchemaVersion

MAX_TEXT = 8_192
MAX_THUMBNAIL = 256 * 1024


class CatalogueItem(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One product. Every modality may be missing; the model works with what is there."""

    item_id: Id
    v: SchemaVersion = 1
    title: Annotated[str, Meta(max_length=1_024)] = ""
    description: Annotated[str, Meta(max_length=MAX_TEXT)] = ""
    category: Label | None = None
    brand: Label | None = None
    price: Price | None = None
    tags: Annotated[list[Label], Meta(max_length=64)] = []
    image_url: Annotated[str, Meta(max_length=2_048)] | None = None
    thumbnail: (
        Annotated[bytes, Meta(max_length=MAX_THUMBNAIL, description="JPEG or PNG, base64 on the wire")] | None
    ) = None
    features: dict[Label, list[float]] = {}
    """Precomputed vectors by name, for encoders of the kind `precomputed`."""
    numbers: Annotated[dict[Label, float], Meta(max_length=64)] = {}
    """What rules may weigh by name: margin, rating, season …"""
    available: bool = True
    stock: Annotated[int, Meta(ge=0)] | None = None
    available_from: EventTime | None = None
    """It can be sold from this moment on."""
    available_until: EventTime | None = None
    """It can be sold until this moment, and no longer at it; never, where that is before `available_from`."""
    updated: EventTime | None = None

    @property
    def offered(self) -> bool:
        """Whether the item may be recommended as far as the clock has no say in it."""
        return self.available and self.stock != 0

    def sellable_at(self, now_ms: int) -> bool:
        """Whether the item may be recommended at a moment, ms since 1970."""
        return (
            self.offered
            and (self.available_from is None or self.available_from <= now_ms)
            and (self.available_until is None or now_ms < self.available_until)
        )


encode_item = msgspec.json.Encoder().encode
decode_item = msgspec.json.Decoder(CatalogueItem).decode
