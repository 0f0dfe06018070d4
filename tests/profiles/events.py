"""Events for property tests: few users and items, so that they meet often."""

from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    BehaviourEvent,
    Cancel,
    Click,
    Follow,
    Impression,
    Purchase,
    Rating,
    RemoveFromCart,
    Return,
    View,
)

START_MS = 1_700_000_000_000
SPAN_MS = 60 * 86_400_000

users = st.sampled_from(["ann", "bob", "käthe"])
items = st.sampled_from([f"item-{number}" for number in range(12)])
times = st.integers(START_MS, START_MS + SPAN_MS)
labels = st.none() | st.sampled_from([f"label-{number}" for number in range(12)])
prices = st.none() | st.floats(0, 2_000)
common = {"user_id": users, "ts": times}
item_common = common | {"item_id": items, "category": labels, "brand": labels, "price": prices}


def events() -> st.SearchStrategy[BehaviourEvent]:
    plain = [View, Click, AddToCart, RemoveFromCart, Purchase, Cancel, Return]
    return st.one_of(
        *(st.builds(kind, **item_common) for kind in plain),
        st.builds(Rating, rating=st.floats(0, 5), **item_common),
        st.builds(Impression, list_id=st.just("list"), position=st.integers(0, 20), **item_common),
        st.builds(Follow, brand=st.sampled_from(["label-1", "label-2"]), **common),
    )
