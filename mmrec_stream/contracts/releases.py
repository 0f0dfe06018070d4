"""Release announcements: a model release is complete, checked and ready to be loaded."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Id, SchemaVersion

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ReleaseAnnouncement(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Where a release lies and how to know it. The key is the model's name; the newest value counts."""

    version: Id
    path: Annotated[str, Meta(min_length=1, max_length=4_096, description="folder, as the workers see it")]
    manifest_sha256: Sha256
    created: EventTime
    metrics: dict[str, float] = {}
    """Offline metrics on the validation events, by name."""
    v: SchemaVersion = 1


encode_release = msgspec.json.Encoder().encode
decode_release = msgspec.json.Decoder(ReleaseAnnouncement).decode
