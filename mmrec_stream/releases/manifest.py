"""What a release says of itself: its manifest, as a contract of its own."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Id
from mmrec_stream.contracts.releases import Sha256

FORMAT = 3
"""Version of the release format that this code writes and reads."""

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Compression = Literal["fp32", "fp16", "int8"]


class FileEntry(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One file of a release."""

    sha256: Sha256
    size: Annotated[int, Meta(ge=0, description="bytes")]


class Dimensions(Struct, kw_only=True, frozen=True):
    """The sizes that the arrays and graphs of a release agree on."""

    vector: Annotated[int, Meta(ge=1, description="width of an item vector")]
    items: Count
    neighbours: Annotated[int, Meta(ge=1, description="directed associations kept of an item")]
    history: Annotated[int, Meta(ge=1, description="most events of a user that the ranker was trained on")]


class Tensor(Struct, kw_only=True, frozen=True):
    """One input or output of a graph; a dimension that varies has a name."""

    name: str
    dtype: str
    shape: list[int | str]


class Signature(Struct, kw_only=True, frozen=True):
    """What goes into a graph and what comes out."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class AlphaBucket(Struct, kw_only=True, frozen=True):
    """The weight of p_user for users with at least `min_history` events (up to the next bucket)."""

    min_history: Annotated[int, Meta(ge=0)]
    alpha: Share


class TrainingData(Struct, kw_only=True, frozen=True):
    """What the release was trained on."""

    events: Count
    users: Count
    items: Count
    first: EventTime
    last: EventTime


class Manifest(Struct, kw_only=True, frozen=True):
    """The manifest of a release: `manifest.json` in its folder."""

    format: Annotated[int, Meta(ge=1)] = FORMAT
    version: Id
    created: EventTime
    files: dict[str, FileEntry]
    dimensions: Dimensions
    fusion: str
    encoders: dict[str, str]
    """The encoder of each modality: text, image, attributes, id, or a precomputed feature."""
    user_encoder: str
    alpha: list[AlphaBucket]
    modality_weights: dict[str, float] = {}
    """Share of each modality in p_user, by how much of it goes to other items when the modality is left out; none where
    there is only one."""
    metrics: dict[str, float] = {}
    """Offline metrics on the validation events."""
    data: TrainingData
    preset: str = "shop"
    """Name of the preset by whose weights and half-life it was trained."""
    compression: Compression = "fp32"
    opset: int
    graphs: dict[str, Signature]
    seed: int = 0


encode_manifest = msgspec.json.Encoder(order="sorted").encode
decode_manifest = msgspec.json.Decoder(Manifest).decode
