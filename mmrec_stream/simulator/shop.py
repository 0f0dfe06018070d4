"""The synthetic shop: products whose text, picture and attributes each tell a part of what they are.

What an item really is (category, style, colour, use, material, brand, quality) decides how shoppers take to it. Every
modality shows some of it and hides some: the colour is always in the picture and in half of the texts, the use is in
the text alone, the style is hinted at by words, pattern and brand, each with gaps. So each modality helps, and together
they help more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.simulator.pictures import PATTERNS, SIDE, picture
from mmrec_stream.simulator.words import BRANDS, CATEGORIES, COLOURS, FILLERS, STYLES, USES, Category

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SUCCESSORS = 4
"""Items that are looked at right after an item more often than chance: enough for a list, few enough to be learned
from a hundred views of the item."""

COMPLEMENTS = 3
"""Items that go with an item."""

CLUES = 0.75
"""Probability that a modality shows an item's style truly. At 1 one modality would do; at .5 none would teach much."""

LATER = 0.12
"""Share of the assortment that comes in while the past log is written, and half as many again while it is live."""

_CANDIDATES = 32
"""Items among which relatives are chosen: of 32, the best four agree in style and mostly in colour."""


@dataclass(frozen=True, eq=False)
class Shop(Sequence[CatalogueItem]):
    """The assortment. All arrays have shape (items,) unless said; an item's row is its place in `items`."""

    items: tuple[CatalogueItem, ...]
    category: Ints
    """Index into `words.CATEGORIES`."""
    brand: Ints
    style: Ints
    colour: Ints
    use: Ints
    level: Floats
    """Natural logarithm of the price over the category's median."""
    quality: Floats
    """How much anybody likes it, standard normal."""
    popularity: Floats
    """Relative probability of coming into view: a Zipf-like tail."""
    successors: Ints
    """Rows looked at after it, shape (items, SUCCESSORS)."""
    complements: Ints
    """Rows bought with it, shape (items, COMPLEMENTS)."""
    tranche: Ints
    """0: there from the start, 1: comes in during the past log, 2: comes in while live."""

    @overload
    def __getitem__(self, index: int) -> CatalogueItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CatalogueItem]: ...
    def __getitem__(self, index: int | slice) -> CatalogueItem | Sequence[CatalogueItem]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


def make_shop(items: int = 2000, seed: int = 7, *, pictures: bool = True, side: int = SIDE) -> Shop:
    """An assortment of `items` products, the same for the same arguments.

    Args:
        items: how many; at least one a category is made when there are as many.
        seed: what everything is drawn from.
        pictures: whether thumbnails are drawn, about 0.2 ms each. The rest does not depend on it.
        side: pixels along an edge of a thumbnail; `pictures.SHOP_SIDE` is for people, and takes 15 ms a picture.

    Raises:
        ValueError: fewer items than categories.
    """
    if items < len(CATEGORIES):
        raise ValueError(f"a shop needs at least {len(CATEGORIES)} items, one a category; got {items}")
    rng = np.random.default_rng([seed, 1])
    shares = np.array([category.share for category in CATEGORIES])
    category = rng.permutation(
        np.concatenate(
            [
                np.arange(len(CATEGORIES)),
                rng.choice(len(CATEGORIES), items - len(CATEGORIES), p=shares / shares.sum()),
            ]
        )
    )
    brand_style = rng.permutation(np.arange(len(BRANDS)) % len(STYLES))
    brand_level = rng.normal(0, 0.35, len(BRANDS))
    carries = rng.random((len(BRANDS), len(CATEGORIES))) < 0.45
    carries[rng.integers(len(BRANDS), size=len(CATEGORIES)), np.arange(len(CATEGORIES))] = True
    brand = _choose(rng, carries.T[category].astype(float))
    style = np.where(rng.random(items) < CLUES, brand_style[brand], rng.integers(len(STYLES), size=items))
    colour = rng.integers(len(COLOURS), size=items)
    use = rng.integers(len(USES), size=items)
    level = brand_level[brand] + rng.normal(0, 0.25, items)
    quality = rng.normal(0, 1, items)
    # Exponent .8 gives the busiest tenth of the items about half of the views, as shops report.
    popularity = (rng.permutation(items) + 5.0) ** -0.8 * np.exp(0.4 * quality)
    tranche = np.digitize(rng.random(items), [1 - 1.5 * LATER, 1 - 0.5 * LATER])
    traits = np.stack([style, colour, use, brand], axis=1)
    successors = _relatives(rng, category, category[:, None], traits, np.array([1.5, 1.0, 0.5, 0.5]), SUCCESSORS)
    names = [c.name for c in CATEGORIES]
    pairs = np.array([[names.index(c.complements[k % len(c.complements)]) for k in range(2)] for c in CATEGORIES])
    complements = _relatives(rng, category, pairs[category], traits, np.array([1.5, 1.2, 0.8, 0.5]), COMPLEMENTS)
    products = _products(
        np.random.default_rng([seed, 2]), category, brand, style, colour, use, level, side if pictures else 0
    )
    return Shop(
        items=tuple(products),
        category=category,
        brand=brand,
        style=style,
        colour=colour,
        use=use,
        level=level,
        quality=quality,
        popularity=popularity / popularity.sum(),
        successors=successors,
        complements=complements,
        tranche=tranche,
    )


def _choose(rng: np.random.Generator, weights: Floats) -> Ints:
    """One column a row of `weights` (rows, columns), with probability in proportion."""
    cumulated = weights.cumsum(axis=1)
    return np.asarray((cumulated < rng.random(len(weights))[:, None] * cumulated[:, -1:]).sum(axis=1))


def _relatives(
    rng: np.random.Generator, category: Ints, wanted: Ints, traits: Ints, weights: Floats, count: int
) -> Ints:
    """For each item `count` rows out of its `wanted` categories that share its traits, shape (items, count)."""
    items = len(category)
    order = np.argsort(category, kind="stable")
    starts = np.searchsorted(category[order], np.arange(len(CATEGORIES) + 1))
    target = np.take_along_axis(wanted, rng.integers(wanted.shape[1], size=(items, _CANDIDATES)), axis=1)
    span = starts[target + 1] - starts[target]
    candidates = order[starts[target] + (rng.random(target.shape) * span).astype(int)]
    alike = ((traits[candidates] == traits[:, None, :]) * weights).sum(axis=2) + rng.gumbel(0, 0.3, target.shape)
    alike[candidates == np.arange(items)[:, None]] = -np.inf
    best = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return np.asarray(np.take_along_axis(candidates, best, axis=1))


def _products(
    rng: np.random.Generator,
    category: Ints,
    brand: Ints,
    style: Ints,
    colour: Ints,
    use: Ints,
    level: Floats,
    side: int,
) -> list[CatalogueItem]:
    colours, styles = list(COLOURS), list(STYLES)
    width = len(str(len(category) - 1))
    products = []
    for row in range(len(category)):
        kind = CATEGORIES[category[row]]
        material = str(rng.choice(kind.materials))
        shown_style = style[row] if rng.random() < CLUES else rng.integers(len(STYLES))
        title, description = _texts(
            rng, kind, BRANDS[brand[row]], colours[colour[row]], material, styles[shown_style], int(use[row])
        )
        pattern = style[row] if rng.random() < CLUES else rng.integers(len(PATTERNS))
        rgb = np.clip(np.array(COLOURS[colours[colour[row]]]) + rng.integers(-12, 13, 3), 0, 255)
        shade, shift = float(rng.uniform(0.88, 1)), rng.integers(-3, 4, 2)
        tags = [material] + ([colours[colour[row]]] if rng.random() < 0.3 else [])
        products.append(
            CatalogueItem(
                item_id=f"item-{row:0{width}d}",
                title=title,
                description=description,
                category=kind.name,
                brand=BRANDS[brand[row]],
                price=round(float(kind.price * np.exp(level[row])), 2),
                tags=tags,
                thumbnail=picture(
                    int(category[row]),
                    (int(rgb[0]), int(rgb[1]), int(rgb[2])),
                    int(pattern),
                    shade,
                    (int(shift[0]), int(shift[1])),
                    side,
                )
                if side
                else None,
                stock=int(rng.integers(5, 500)),
            )
        )
    return products


def _texts(
    rng: np.random.Generator, kind: Category, brand: str, colour: str, material: str, style: str, use: int
) -> tuple[str, str]:
    words = [str(word) for word in rng.choice(STYLES[style], 2, replace=False)]
    noun = str(rng.choice(kind.nouns))
    shows_colour = rng.random() < 0.5
    title = " ".join(filter(None, (brand, words[0], colour if shows_colour else "", material, noun)))
    use_words = str(rng.choice(list(USES.values())[use]))
    sentences = [f"{words[1].capitalize()} {noun} in {material}, {use_words}."]
    sentences += [str(filler) for filler in rng.choice(FILLERS, 2, replace=False)]
    return title, " ".join(sentences)
