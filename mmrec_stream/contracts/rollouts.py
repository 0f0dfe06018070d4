"""What workers say of a release that is being rolled out: what they have counted, and what was decided."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Id, SchemaVersion

Stage = Literal["shadow", "canary", "live", "withdrawn"]
"""`shadow`: scored beside, never shown. `canary`: shown to a share of the users. `live`: shown to everybody else.
`withdrawn`: shown to nobody."""

Reason = Annotated[str, Meta(max_length=1_000)]
Count = Annotated[int, Meta(ge=0)]


class StageRecord(Struct, tag="stage", kw_only=True, frozen=True, omit_defaults=True):
    """A release has reached a stage. The key is `stage/VERSION/STAGE`.

    Of several stages of a release the last in the order of `Stage` counts, whichever came first.
    """

    version: Id
    announced: EventTime
    """Of which announcement of the version: its record's time. One that is announced again begins anew."""
    stage: Stage
    reason: Reason
    at: EventTime
    v: SchemaVersion = 1


class Trial(Struct, kw_only=True, frozen=True):
    """How often something was looked at, and how often it was bad."""

    n: Count = 0
    bad: Count = 0


class CountsRecord(Struct, tag="counts", kw_only=True, frozen=True, omit_defaults=True):
    """What one run of a worker has counted of a release since its stage began. The key is `counts/WORKER`.

    A worker that starts again is another one.
    """

    worker: Id
    version: Id
    announced: EventTime
    stage: Stage
    since: EventTime
    """When this worker began."""
    at: EventTime
    trials: dict[str, Trial] = {}
    """By the name of the guard."""
    agreement: float = 0.0
    """Mean share of places that the release's lists have in common with the live release's."""
    latency: float = 0.0
    """Median of the ratio of its scoring time to the live release's."""
    refused: Reason = ""
    """Why this worker cannot load the release; empty where it can."""
    v: SchemaVersion = 1


RolloutRecord = StageRecord | CountsRecord

encode_rollout = msgspec.json.Encoder().encode
decode_rollout = msgspec.json.Decoder(RolloutRecord).decode
