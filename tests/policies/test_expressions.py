"""Expressions evaluated for all products at once give what CEL's own evaluator gives for each."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmrec_stream.catalogue.columns import ProductColumns
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.policies.expressions import ExpressionError, compile_expression, oracle

WORDS = ["", "shoes", "shoes.boots", "Ember", "sale"]
words = st.sampled_from(WORDS)
numbers = st.sampled_from([0.0, -1.0, 0.5, 19.99, 20.0, 1e9])


def literal(word: str) -> str:
    return f'"{word}"'


texts = st.sampled_from(["item.id", "item.category", "item.brand", "user.id", "context.surface"]) | words.map(literal)
doubles: st.SearchStrategy[str] = st.deferred(
    lambda: (
        st.sampled_from(["item.price", "user.share", 'item.numbers["margin"]', "item.numbers.rating"])
        | numbers.map(repr)
        | st.just("double(item.stock)")
        | st.tuples(doubles, st.sampled_from("+-*/"), doubles).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | st.tuples(booleans, doubles, doubles).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})")
    )
)
ints = st.sampled_from(["item.stock", "user.events", "item.tags.size()", "3", "0"])
orders = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
booleans: st.SearchStrategy[str] = st.deferred(
    lambda: (
        st.sampled_from(["true", "context.adult", "has(item.numbers.margin)", '"margin" in item.numbers'])
        | st.tuples(doubles, orders, doubles).map(lambda t: f"{t[0]} {t[1]} {t[2]}")
        | st.tuples(ints, orders, ints).map(lambda t: f"{t[0]} {t[1]} {t[2]}")
        | st.tuples(texts, orders, texts).map(lambda t: f"{t[0]} {t[1]} {t[2]}")
        | st.tuples(texts, st.sampled_from(["startsWith", "endsWith", "contains"]), texts).map(
            lambda t: f"{t[0]}.{t[1]}({t[2]})"
        )
        | texts.map(lambda text: f"{text} in item.tags")
        | st.tuples(texts, st.lists(words, min_size=1, max_size=3)).map(
            lambda t: f"{t[0]} in [{', '.join(map(literal, t[1]))}]"
        )
        | st.tuples(booleans, st.sampled_from(["&&", "||"]), booleans).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | booleans.map(lambda one: f"!({one})")
    )
)
products = st.builds(
    CatalogueItem,
    item_id=st.sampled_from(["i-1", "i-2", "i-3", "i-4"]),
    category=st.none() | st.sampled_from(WORDS[1:]),
    brand=st.none() | st.sampled_from(WORDS[1:]),
    price=st.none() | st.sampled_from([0.0, 19.99, 20.0, 250.0]),
    stock=st.none() | st.integers(0, 5),
    tags=st.lists(st.sampled_from(WORDS[1:]), max_size=2),
    numbers=st.dictionaries(st.sampled_from(["margin", "rating"]), numbers, max_size=2),
)
viewers = st.fixed_dictionaries(
    {
        "user.id": words,
        "user.events": st.integers(0, 5),
        "user.share": st.floats(0, 1),
        "context.surface": words,
        "context.locale": words,
        "context.adult": st.booleans(),
        "context.consent": st.booleans(),
    }
)


@given(booleans | doubles, st.lists(products, min_size=1, max_size=4, unique_by=lambda one: one.item_id), viewers)
@settings(deadline=None, max_examples=300)
def test_all_at_once_is_what_cel_says_of_each(source: str, items: list[CatalogueItem], viewer: dict[str, Any]) -> None:
    try:
        program = compile_expression(source, "bool")
    except ExpressionError as error:
        assume("recursion limit" not in str(error))  # deeper than CEL takes
        program = compile_expression(source, "double")
    columns = ProductColumns()
    rows = columns.update(items)
    arrays = {f"item.{name}": array[rows] for name, array in columns.arrays.items()}
    found = program.result(program.of_products(arrays), np.arange(len(rows)), viewer)
    values = np.broadcast_to(found.value, rows.shape).tolist()
    errors = np.broadcast_to(found.error, rows.shape).tolist()
    for place in range(len(items)):
        one = {name: array[place] for name, array in arrays.items()}
        known = {
            "item.id": one["item.id"],
            "item.category": one["item.category"],
            "item.brand": one["item.brand"],
            "item.price": float(one["item.price"]),
            "item.stock": int(one["item.stock"]),
            "item.tags": list(one["item.tags"]),
            "item.numbers": one["item.numbers"],
        }
        expected, failed = oracle(source, known | viewer)
        assert errors[place] == failed, (source, known)
        if not failed:
            same = values[place] == expected or (
                isinstance(expected, float) and math.isnan(expected) and math.isnan(values[place])
            )
            assert same, (source, known, values[place], expected)


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        ("item.price <", 1, 13, "Syntax error"),
        ("item.prise < 2.0", 1, 5, "undeclared reference to 'item.prise'"),
        ('item.price < "a"', 1, 12, "no matching overload"),
        ("item.price < 20", 1, 12, "20.0"),
        ("item.price < 2.0 &&\n  item.nope == 1", 2, 7, "undeclared"),
        ('item.tags.exists(t, t == "a")', 1, 17, "at once"),
        ('item.tags[0] == "a"', 1, 10, "at once"),
        ("1 + item.stock > 2", 1, 3, "doubles"),
        ('item.tags == ["a"]', 1, 11, "lists"),
        ("item.price", 1, 1, "gives DOUBLE"),
    ],
)
def test_a_mistake_is_pointed_at(source: str, line: int, column: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, "bool")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in str(caught.value)
