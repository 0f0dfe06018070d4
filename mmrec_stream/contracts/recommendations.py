"""Recommendation lists: what one user should be shown next, why, and how long it took to know."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import Id, Offset, Partition, SchemaVersion

Milliseconds = Annotated[float, Meta(description="milliseconds since 1970, UTC, with fractions")]


class Reason(Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """What put an item where it is."""

    kind: Annotated[str, Meta(description="interaction, association, attribute, rule, popular …; an open word")]
    of: str | None = None
    """Which one: the id of the item that led here, of the rule, or the attribute's value."""


class Recommended(Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """One place of a list. `score` = α·`p_user` + (1 − α)·`p_item`, times what rules boost.

    Where the release has a re-ranker, the score is its share of what that formula gives to the candidates together;
    the halves are the item's own all the same.
    """

    item_id: Id
    score: float
    p_user: float = 0.0
    p_item: float = 0.0
    reason: Reason | None = None
    """None where the halves of the score say it: taste by `p_user`, association by `p_item`."""
    propensity: Annotated[float, Meta(gt=0, le=1, description="probability of being here; 1: nothing was drawn")] = 1.0


class Cause(Struct, kw_only=True, frozen=True, gc=False):
    """The newest event that the list takes into account."""

    topic: str
    partition: Partition
    offset: Offset


class Times(Struct, kw_only=True, frozen=True, gc=False):
    """When the causing event passed each step of the way."""

    event: Milliseconds
    """When it happened, by its producer."""
    appended: Milliseconds
    """When the broker has it in its log (the record's timestamp)."""
    fetched: Milliseconds
    folded: Milliseconds
    scored: Milliseconds
    published: Milliseconds
    """When the list was handed to the producer."""


class RecommendationList(Struct, kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """A user's fresh list. A newer list of the same user replaces it. The key is the user id."""

    list_id: Id
    user_id: Id
    items: list[Recommended]
    release: Id
    strategy: Annotated[str, Meta(min_length=1, max_length=64, description="how it was made: hybrid, popular …")]
    """An open word. `popular`: nothing is known of the user that the release can use."""
    cause: Cause
    times: Times
    alpha: float = 1.0
    surface: Annotated[str, Meta(pattern="^[a-z0-9_-]{1,32}$", description="what it was made for")] = "home"
    policy: Annotated[str, Meta(max_length=256, description="rules it obeys: id/version, with what gave way")] = ""
    revision: Annotated[int, Meta(ge=0)] = 0
    """How many times the list was made again for the same cause, as a product in it could no longer be sold."""
    v: SchemaVersion = 1


encode_list = msgspec.json.Encoder(decimal_format="number").encode
decode_list = msgspec.json.Decoder(RecommendationList).decode
