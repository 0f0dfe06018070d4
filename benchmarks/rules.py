"""What rules cost a list, and what a change of the catalogue costs rules."""

import time
from typing import Annotated

import numpy as np
import typer

from benchmarks.events import CATEGORIES, item_id
from benchmarks.results import Report, Target
from mmrec_stream.catalogue.columns import ProductColumns
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.rules import Boost, Filter, RuleSet
from mmrec_stream.policies.policy import POOL, Policy, Viewers

PRODUCTS = 10_000

PLACES = 20

BATCHES = (1, 8, 32, 128)
"""Lists made together: alone, the most that the event loop makes itself, a run of the ranker, a full batch."""

FILTERS = [
    Filter(id="dear", exclude="item.price > 190.0"),
    Filter(id="summer", exclude='"summer" in item.tags'),
    Filter(id="brand", only='item.brand != "brand007"'),
    Filter(id="last", only="item.stock > 2"),
    Filter(id="sale", exclude='item.category.endsWith("sale") && item.price > 100.0'),
]
BOOSTS = [
    Boost(id="cheap", when="item.price < 20.0", by="1.2"),
    Boost(id="margin", when="has(item.numbers.margin)", by="1.0 + item.numbers.margin"),
    Boost(id="house", when='item.brand == "brand003"', by="2.0"),
    Boost(id="new", when='"new" in item.tags', by="1.1"),
    Boost(id="shoes", when='item.category.startsWith("shoes")', by="1.3"),
]
FILTERS_BY_USER = [
    Filter(id=f"newcomers-{n}", exclude=f"user.events < {n + 2} && item.price > {100.0 + n}") for n in range(5)
]
BOOSTS_BY_USER = [
    Boost(id=f"share-{n}", when=f"user.share < 0.{n + 2}", by=f"1.0 + item.price / {100.0 + n}") for n in range(5)
]

RULES = {
    "ten rules, all by product": RuleSet(id="shop", filters=FILTERS, boosts=BOOSTS, max_per_category=4),
    "ten rules, two of them by user": RuleSet(
        id="shop",
        filters=[*FILTERS[:4], FILTERS_BY_USER[0]],
        boosts=[*BOOSTS[:4], BOOSTS_BY_USER[0]],
        max_per_category=4,
    ),
    "ten rules, all by user": RuleSet(id="shop", filters=FILTERS_BY_USER, boosts=BOOSTS_BY_USER, max_per_category=4),
}


def command(
    quick: Annotated[
        bool, typer.Option(help="A fifth of the repetitions; 100,000 products in place of a million.")
    ] = False,
) -> None:
    """Microseconds that rules add to a list of 20 out of 200 candidates, and that a changed product costs."""
    report = Report("rules", quick=quick, products=PRODUCTS, candidates=POOL)
    columns = _columns(PRODUCTS)
    keys = id_keys([item_id(row) for row in range(PRODUCTS)])
    random = np.random.default_rng(0)
    for name, rules in RULES.items():
        policy = Policy(rules)
        policy.refresh(columns)
        for batch in BATCHES:
            candidates = np.stack([random.choice(keys, POOL, replace=False) for _ in range(batch)])
            scores = np.sort(random.random((batch, POOL)).astype(np.float32) + 0.01, axis=1)[:, ::-1].copy()
            viewers = Viewers([f"u{user:05d}" for user in range(batch)], random.integers(0, 40, batch))
            lists = policy.choose_all(viewers, candidates, scores, PLACES)
            assert all(lists)
            times = []
            for _ in range((100 if quick else 500) // max(batch // 8, 1) + 20):
                at = time.perf_counter()
                policy.choose_all(viewers, candidates, scores, PLACES)
                times.append(1e6 * (time.perf_counter() - at) / batch)
            together = "a list alone" if batch == 1 else f"{batch} lists together"
            report.add(name, together, times, "µs a list", target=Target(50, at_least=False))
    for count in (PRODUCTS, 100_000 if quick else 1_000_000):
        _changes(report, count, 50 if quick else 200)
    report.close()


def _changes(report: Report, count: int, repetitions: int) -> None:
    columns = _columns(count)
    policy = Policy(RULES["ten rules, two of them by user"])
    at = time.perf_counter()
    policy.refresh(columns)
    report.add("rules come into force", f"{count:,} products", 1000 * (time.perf_counter() - at), "ms")
    times = []
    for number in range(repetitions):
        changed = columns.update([_product(number * 37 % count, price=float(number))])
        at = time.perf_counter()
        policy.refresh(columns, changed)
        times.append(1e6 * (time.perf_counter() - at))
    report.add("a product changes", f"{count:,} products", times, "µs")


def _columns(count: int) -> ProductColumns:
    columns = ProductColumns()
    for start in range(0, count, 10_000):
        columns.update([_product(row) for row in range(start, min(start + 10_000, count))])
    return columns


def _product(row: int, price: float | None = None) -> CatalogueItem:
    return CatalogueItem(
        item_id=item_id(row),
        category=CATEGORIES[row % len(CATEGORIES)],
        brand=f"brand{row % 200:03d}",
        price=float(row % 200) if price is None else price,
        stock=row % 90,
        tags=[("summer", "winter", "plain")[row % 3], ("new", "known")[row % 2]],
        numbers={"margin": (row % 50) / 100} if row % 5 else {},
    )
