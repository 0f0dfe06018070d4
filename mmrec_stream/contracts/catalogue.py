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
    updated: EventTime | None = None

    @property
    def sellable(self) -> bool:
        """Whether the item may be recommended now."""
        return self.available and self.stock != 0


encode_item = msgspec.json.Encoder().encode
decode_item = msgspec.json.Decoder(CatalogueItem).decode
