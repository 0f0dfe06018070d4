"""Joined sessions: whose a visitor's events became at login, and up to where they have been taken over.

The key is the session id; the newest value of a key counts.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Id, Offset, SchemaVersion


class SessionJoin(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A session's events up to `upto` have been written again as the user's, in the same transaction as this."""

    session_id: Id
    user_id: Id
    upto: dict[str, Offset]
    """By topic, the first offset that was not looked at, in the session's partition."""
    events: Annotated[int, Meta(ge=0, description="events taken over, in all")]
    joined: EventTime
    v: SchemaVersion = 1


encode_join = msgspec.json.Encoder(order="deterministic").encode
decode_join = msgspec.json.Decoder(SessionJoin).decode
