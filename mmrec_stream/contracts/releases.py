"""Release announcements: a model release is complete, checked and ready to be loaded."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Id, SchemaVersion

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ReleaseAnnouncement(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Where a release lies and how to know it. The key is the version.

    How far the release has come lies on the rollouts' topic.
    """

    version: Id
    uri: Annotated[str, Meta(pattern="^(file|s3)://", max_length=4_096)]
    """Where it lies: a folder as the workers see it, or its manifest in a store, by hash."""
    manifest_sha256: Sha256
    created: EventTime
    metrics: dict[str, float] = {}
    """Offline metrics on the validation events, by name."""
    stage: Literal["shadow", "canary", "live"] = "live"
    """Where the release begins."""
    share: Annotated[float, Meta(ge=0.001, le=0.999)] = 0.1
    """Of the users, while it is a canary."""
    shadow_s: Annotated[float, Meta(ge=0)] = 30.0
    """Least time in shadow, s."""
    canary_s: Annotated[float, Meta(ge=0)] = 600.0
    """Least time as a canary, s."""
    v: SchemaVersion = 1

    def at(self, uri: str) -> "ReleaseAnnouncement":
        """The same release elsewhere."""
        return msgspec.structs.replace(self, uri=uri)


encode_release = msgspec.json.Encoder().encode
decode_release = msgspec.json.Decoder(ReleaseAnnouncement).decode
