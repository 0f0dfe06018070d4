"""A value of every message, fields filled in, and how to draw any value of a contract at random."""

import json
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    Cancel,
    Click,
    Follow,
    Forget,
    Impression,
    Purchase,
    Rating,
    RemoveFromCart,
    Return,
    View,
    decode_event,
    encode_event,
)
from mmrec_stream.contracts.catalogue import CatalogueItem, decode_item, encode_item
from mmrec_stream.contracts.dead_letters import DeadLetter, Fault, Origin, decode_dead_letter, encode_dead_letter
from mmrec_stream.contracts.recommendations import (
    Cause,
    Reason,
    RecommendationList,
    Recommended,
    Times,
    decode_list,
    encode_list,
)
from mmrec_stream.contracts.releases import ReleaseAnnouncement, decode_release, encode_release
from mmrec_stream.contracts.rollouts import CountsRecord, StageRecord, Trial, decode_rollout, encode_rollout
from mmrec_stream.contracts.sessions import SessionJoin, decode_join, encode_join

TS = 1_790_000_000_123
WHO = {"user_id": "u-1", "ts": TS, "session_id": "s-9"}
ABOUT: dict[str, Any] = {**WHO, "item_id": "i-7", "category": "shoes.boots", "brand": "Ember", "price": 119.5}

EXAMPLES: dict[str, Any] = {
    "view": View(**ABOUT),
    "click": Click(**ABOUT, list_id="l-3", position=0),
    "add_to_cart": AddToCart(**ABOUT, quantity=2),
    "remove_from_cart": RemoveFromCart(**ABOUT),
    "purchase": Purchase(**ABOUT, quantity=2, order_id="o-5"),
    "cancel": Cancel(**ABOUT, order_id="o-5"),
    "return": Return(**ABOUT, quantity=2, order_id="o-5"),
    "rating": Rating(**ABOUT, rating=4.5),
    "follow_user": Follow(**WHO, followed_user_id="u-2"),  # type: ignore[arg-type]
    "follow_brand": Follow(**WHO, brand="Ember"),  # type: ignore[arg-type]
    "forget": Forget(user_id="u-1", ts=TS),
    "impression": Impression(**ABOUT, list_id="l-3", position=4),
    "view_bare": View(user_id="u-1", ts=TS, item_id="i-7"),
    "catalogue_item": CatalogueItem(
        item_id="i-7",
        title="Ember suede ankle boots",
        description="Made for the road — ✓.",
        category="shoes.boots",
        brand="Ember",
        price=119.5,
        tags=["suede", "brown"],
        image_url="https://shop.example/i-7.jpg",
        thumbnail=b"\xff\xd8\xff\xe0not really a picture",
        features={"text-minilm": [0.25, -1.5]},
        available=False,
        stock=3,
        updated=TS,
    ),
    "catalogue_item_in_season": CatalogueItem(
        item_id="i-8", available_from=TS, available_until=TS + 86_400_000, numbers={"margin": 0.25}
    ),
    "recommendation_list": RecommendationList(
        list_id="b5c0",
        user_id="u-1",
        items=[
            Recommended(item_id="i-8", score=0.75, p_user=0.5, p_item=1.0),
            Recommended(item_id="i-9", score=0.25),
        ],
        release="20261124T064500Z-3f2a",
        strategy="hybrid",
        cause=Cause(topic="mmrec.clicks", partition=3, offset=41),
        times=Times(
            event=1790000000123.0,
            appended=1790000000124.0,
            fetched=1790000000125.25,
            folded=1790000000125.5,
            scored=1790000000126.0,
            published=1790000000126.5,
        ),
        alpha=0.5,
        revision=1,
    ),
    "recommendation_list_by_rules": RecommendationList(
        list_id="b5c1",
        user_id="u-1",
        items=[
            Recommended(item_id="i-8", score=0.75, reason=Reason(kind="rule", of="summer")),
            Recommended(item_id="i-9", score=0.25, p_item=0.5, reason=Reason(kind="interaction", of="i-7")),
            Recommended(item_id="i-3", score=0.125, propensity=0.5),
        ],
        release="20261124T064500Z-3f2a",
        strategy="explored",
        cause=Cause(topic="mmrec.clicks", partition=3, offset=42),
        times=Times(
            event=1790000000123.0,
            appended=1790000000124.0,
            fetched=1790000000125.25,
            folded=1790000000125.5,
            scored=1790000000126.0,
            published=1790000000126.5,
        ),
        surface="cart",
        policy="shop/3",
    ),
    "release_announcement": ReleaseAnnouncement(
        version="20261124T064500Z-3f2a",
        uri="file:///releases/20261124T064500Z-3f2a",
        manifest_sha256="0f" * 32,
        created=TS,
        metrics={"ndcg@10": 0.125},
        stage="shadow",
        share=0.25,
        shadow_s=20.0,
        canary_s=300.0,
    ),
    "release_stage": StageRecord(
        version="20261124T064500Z-3f2a", announced=TS, stage="withdrawn", reason="shadow: too slow", at=TS + 9_000
    ),
    "release_counts": CountsRecord(
        worker="worker-1",
        version="20261124T064500Z-3f2a",
        announced=TS,
        stage="shadow",
        since=TS,
        at=TS + 9_000,
        trials={"errors": Trial(n=400, bad=2)},
        agreement=0.5,
        latency=1.25,
        refused="ranker.onnx was changed",
    ),
    "dead_letter": DeadLetter(
        fault=Fault.INVALID,
        detail="Object missing required field `item_id`",
        origin=Origin(topic="mmrec.clicks", partition=1, offset=17, timestamp=TS),
        key=b"u-1",
        value=b'{"type":"view"}',
        truncated=True,
        noticed=TS,
    ),
    "session_join": SessionJoin(
        session_id="s-9", user_id="u-1", upto={"mmrec.clicks": 41, "mmrec.feedback": 0}, events=3, joined=TS
    ),
}

EVENT_NAMES = [name for name, value in EXAMPLES.items() if hasattr(value, "CODE")]

_CODECS: dict[type, tuple[Any, Any, str]] = {
    CatalogueItem: (encode_item, decode_item, "catalogue-item"),
    RecommendationList: (encode_list, decode_list, "recommendation-list"),
    ReleaseAnnouncement: (encode_release, decode_release, "release-announcement"),
    StageRecord: (encode_rollout, decode_rollout, "rollout"),
    CountsRecord: (encode_rollout, decode_rollout, "rollout"),
    DeadLetter: (encode_dead_letter, decode_dead_letter, "dead-letter"),
    SessionJoin: (encode_join, decode_join, "session-join"),
}


def codec(value: object) -> tuple[Any, Any, str]:
    """How a message is encoded and decoded, and the name of its schema."""
    return _CODECS.get(type(value), (encode_event, decode_event, "behaviour-event"))


def as_json(value: object) -> dict[str, Any]:
    """The message as a plain JSON object, every field written out."""
    fields = {name: msgspec.to_builtins(getattr(value, name)) for name in value.__struct_fields__}  # type: ignore[attr-defined]
    tag = json.loads(codec(value)[0](value)).get("type")
    return {"type": tag, **fields} if tag else fields


def any_of(contract: Any) -> st.SearchStrategy[Any]:
    """Any value that a contract allows."""
    return _strategy(inspect.type_info(contract))


def _strategy(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.Metadata():
            return _strategy(kind.type)
        case inspect.StructType():
            fields = {
                f.name: _strategy(f.type) if f.required else st.just(_default(f)) | _strategy(f.type)
                for f in kind.fields
            }
            if kind.cls is Follow:
                whom = st.sampled_from(["followed_user_id", "brand"])
                names = {
                    name: fields.pop(name).filter(lambda v: v is not None) for name in ("followed_user_id", "brand")
                }
                one = whom.flatmap(lambda name: names[name].map(lambda value: {name: value}))
                return st.builds(lambda one, **rest: Follow(**rest, **one), one, **fields)
            return st.builds(kind.cls, **fields)
        case inspect.UnionType():
            return st.one_of([_strategy(each) for each in kind.types])
        case inspect.IntType():
            return st.integers(kind.ge if kind.ge is not None else -(2**53), kind.le if kind.le is not None else 2**53)
        case inspect.FloatType():
            low = kind.ge if kind.gt is None else kind.gt
            return st.floats(low, kind.le, exclude_min=kind.gt is not None, allow_nan=False, allow_infinity=False)
        case inspect.StrType():
            if kind.pattern:
                return st.from_regex(kind.pattern.replace("$", r"\Z"))
            return st.text(min_size=kind.min_length or 0, max_size=min(kind.max_length or 20, 20))
        case inspect.BytesType():
            return st.binary(max_size=64)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case inspect.LiteralType():
            return st.sampled_from(list(kind.values))
        case inspect.ListType():
            return st.lists(_strategy(kind.item_type), max_size=4)
        case inspect.DictType():
            return st.dictionaries(_strategy(kind.key_type), _strategy(kind.value_type), max_size=3)
    raise TypeError(f"no strategy for {kind}")


def _default(field: inspect.Field) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default
