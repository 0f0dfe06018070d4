"""Product pictures: the shape shows the category, the colour the colour, the pattern the style.

Small ones for models; larger ones, drawn with care from the same outlines, for people who look at a shop.
"""

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SIDE = 48
"""Pixels along an edge: the least at which shapes and patterns survive JPEG, at about 1 KB a picture."""

SHOP_SIDE = 288
"""Pixels along an edge of a picture for people: sharp on a card of a shop's page, at about 6 KB a picture."""

QUALITY = 85
"""JPEG quality: below 75 the thin stripes smear into the neighbouring pattern."""

PATTERNS = ("plain", "checks", "diagonal", "border", "stripes", "dots")
"""One a style, in the order of `words.STYLES`."""

Mask = NDArray[np.bool_]


def picture(
    category: int, colour: tuple[int, int, int], pattern: int, shade: float, shift: tuple[int, int], side: int = SIDE
) -> bytes:
    """A product as JPEG of `side` × `side`.

    Args:
        category: index into `words.CATEGORIES`: the shape.
        colour: sRGB of the product.
        pattern: index into `PATTERNS`.
        shade: brightness of the background, 0 (black) to 1 (white).
        shift: pixels of a picture of `SIDE` that the product is moved right and down.
        side: pixels along an edge; other ones than `SIDE` have rounded outlines, light and shadow.
    """
    if side == SIDE:
        image = Image.fromarray(_sketch(category, colour, pattern, shade, shift))
    else:
        image = _portrait(category, colour, pattern, shade, shift, side)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _sketch(
    category: int, colour: tuple[int, int, int], pattern: int, shade: float, shift: tuple[int, int]
) -> NDArray[np.uint8]:
    background = round(255 * shade)
    pixels = np.full((SIDE, SIDE, 3), background, np.uint8)
    shape = np.roll(_shape(category), shift, (1, 0))
    pixels[shape] = colour
    accent = tuple(round(c + (255 - c) * 0.7) for c in colour)
    pixels[shape & _pattern(pattern, category)] = accent
    return pixels


def _portrait(
    category: int, colour: tuple[int, int, int], pattern: int, shade: float, shift: tuple[int, int], side: int
) -> Image.Image:
    """The sketch as an illustration: on a tinted ground, rounded, lit from above, with its shadow."""
    scale = side / SIDE
    moved = (round(shift[0] * scale), round(shift[1] * scale))
    product = np.array(colour, float)
    fall = np.linspace(1.03, 0.93, side)[:, None, None]
    ground = np.clip((product * 0.1 + 255 * 0.9) * shade**0.5 * fall, 0, 255) * np.ones((side, side, 1))
    shadow = np.roll(_shadow(category, side), moved, (1, 0))[..., None]
    ground *= 1 - 0.28 * shadow
    shape = np.roll(_alpha(category, side), moved, (1, 0))[..., None]
    light = np.linspace(1.12, 0.86, side)[:, None, None]
    accent = product + (255 - product) * 0.7
    figure = _figure(pattern, category, side)[..., None]
    body = (product * (1 - figure) + accent * figure) * light
    dark = _details(category, side)[..., None]
    body = np.roll(body * (1 - 0.42 * dark), moved, (1, 0))
    return Image.fromarray(np.clip(ground * (1 - shape) + body * shape, 0, 255).astype(np.uint8))


_OUTLINES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((18, 8), (30, 8), (28, 20), (39, 41), (9, 41), (20, 20)),  # dress
    ((16, 9), (32, 9), (42, 18), (37, 24), (33, 20), (33, 40), (15, 40), (15, 20), (11, 24), (6, 18)),  # shirt
    ((14, 7), (34, 7), (42, 34), (36, 36), (34, 22), (34, 42), (14, 42), (14, 22), (12, 36), (6, 34)),  # jacket
    ((7, 24), (20, 20), (26, 27), (41, 31), (41, 37), (7, 37)),  # sneakers
    ((14, 8), (26, 8), (26, 28), (40, 33), (40, 41), (14, 41)),  # boots
    ((15, 10), (33, 10), (38, 16), (38, 41), (10, 41), (10, 16)),  # backpack
    ((17, 8), (31, 8), (31, 12), (20, 12), (19, 20), (40, 20), (42, 40), (6, 40), (8, 20), (16, 20)),  # handbag
    ((17, 7), (31, 7), (38, 25), (26, 25), (26, 38), (32, 41), (16, 41), (22, 38), (22, 25), (10, 25)),  # lamp
    ((7, 11), (24, 14), (41, 11), (38, 24), (41, 38), (24, 35), (7, 38), (10, 24)),  # cushion
    ((10, 12), (32, 12), (32, 16), (40, 16), (40, 30), (32, 30), (32, 39), (10, 39)),  # mug
    ((4, 22), (20, 22), (20, 17), (43, 17), (41, 33), (22, 33), (20, 26), (4, 26)),  # pan
    ((20, 5), (28, 5), (28, 12), (33, 17), (33, 42), (15, 42), (15, 17), (20, 12)),  # bottle
)


@cache
def _shape(category: int) -> Mask:
    image = Image.new("1", (SIDE, SIDE))
    ImageDraw.Draw(image).polygon(_OUTLINES[category], fill=1)
    return np.asarray(image, bool)


@cache
def _pattern(pattern: int, category: int) -> Mask:
    if PATTERNS[pattern] == "border":
        inside = Image.fromarray(_shape(category)).resize((SIDE * 3 // 4, SIDE * 3 // 4))
        inner = np.zeros((SIDE, SIDE), bool)
        margin = SIDE // 8
        inner[margin : margin + inside.height, margin : margin + inside.width] = np.asarray(inside, bool)
        return ~inner
    y, x = np.mgrid[:SIDE, :SIDE]
    return _lighter(pattern, x, y)


def _lighter(pattern: int, x: NDArray[Any], y: NDArray[Any]) -> Mask:
    """Where a pattern without outline is lighter, at points of a picture of `SIDE`."""
    match PATTERNS[pattern]:
        case "plain":
            return np.zeros(x.shape, bool)
        case "checks":
            return np.asarray((x // 5 + y // 5) % 2 == 0)
        case "diagonal":
            return np.asarray((x + y) % 10 < 4)
        case "stripes":
            return np.asarray(y % 8 < 3)
        case _:
            return np.asarray((x % 9 - 4) ** 2 + (y % 9 - 4) ** 2 <= 5)


# What a shape has besides its outline, drawn darker: straps, soles, seams.
_DETAILS: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = (
    (((19, 19), (29, 19), (28.4, 21.4), (19.6, 21.4)), ((20, 8), (28, 8), (24, 13))),  # dress: belt, neckline
    (((23.6, 12), (24.4, 12), (24.4, 40), (23.6, 40)), ((19, 9), (29, 9), (24, 14))),  # shirt: buttons, collar
    (
        ((23.4, 13), (24.6, 13), (24.6, 42), (23.4, 42)),
        ((18, 7), (30, 7), (24, 15)),
        ((16, 30), (21, 30), (21, 31), (16, 31)),
        ((27, 30), (32, 30), (32, 31), (27, 31)),
    ),  # jacket: zip, collar, pockets
    (((6, 34.5), (42, 34.5), (42, 38), (6, 38)), ((20, 22), (25, 27), (23.5, 28), (18, 23))),  # sneakers: sole, lace
    (((13, 38.5), (41, 38.5), (41, 42), (13, 42)), ((14, 9.5), (26, 9.5), (26, 11.5), (14, 11.5))),  # boots: sole, rim
    (
        ((14, 27), (34, 27), (34, 28), (14, 28)),
        ((14, 28), (15, 28), (15, 38), (14, 38)),
        ((33, 28), (34, 28), (34, 38), (33, 38)),
        ((21, 6), (27, 6), (27, 10), (21, 10)),
    ),  # backpack: pocket, handle
    (((6, 20), (42, 20), (42, 21.5), (6, 21.5)), ((22, 24), (26, 24), (26, 28), (22, 28))),  # handbag: flap, clasp
    (((22, 25), (26, 25), (26, 38), (22, 38)), ((14, 38), (34, 38), (34, 42), (14, 42))),  # lamp: stem, foot
    (((23.6, 13), (24.4, 13), (24.4, 36), (23.6, 36)),),  # cushion: seam
    (((10, 36.5), (32, 36.5), (32, 39), (10, 39)), ((32.5, 19), (37, 19), (37, 27), (32.5, 27))),  # mug: foot, handle
    (((4, 22), (19, 22), (19, 26.5), (4, 26.5)),),  # pan: handle
    (((20, 5), (28, 5), (28, 11), (20, 11)), ((15, 30), (33, 30), (33, 31), (15, 31))),  # bottle: cap, band
)


def _rounded(points: tuple[tuple[float, float], ...], scale: float) -> list[tuple[float, float]]:
    """A closed outline with its corners cut twice (Chaikin 1974), a fifth of each edge at a time."""
    outline = np.array(points, float) * scale
    for _ in range(2):
        following = np.roll(outline, -1, axis=0)
        cut = np.stack([outline * 0.85 + following * 0.15, outline * 0.15 + following * 0.85], axis=1)
        outline = cut.reshape(-1, 2)
    return [(float(x), float(y)) for x, y in outline]


def _drawn(outlines: list[list[tuple[float, float]]], side: int) -> Image.Image:
    """Polygons as a grey picture, drawn at twice the size so that edges are smooth."""
    image = Image.new("L", (2 * side, 2 * side))
    for outline in outlines:
        ImageDraw.Draw(image).polygon([(2 * x, 2 * y) for x, y in outline], fill=255)
    return image.resize((side, side), Image.Resampling.BOX)


def _share(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image, np.float64) / 255


@cache
def _alpha(category: int, side: int) -> NDArray[np.float64]:
    return _share(_drawn([_rounded(_OUTLINES[category], side / SIDE)], side))


@cache
def _details(category: int, side: int) -> NDArray[np.float64]:
    scale = side / SIDE
    return _share(_drawn([[(x * scale, y * scale) for x, y in detail] for detail in _DETAILS[category]], side))


@cache
def _shadow(category: int, side: int) -> NDArray[np.float64]:
    image = _drawn([_rounded(_OUTLINES[category], side / SIDE)], side)
    shifted = Image.fromarray(np.roll(np.asarray(image), side // 40, axis=0))
    return _share(shifted.filter(ImageFilter.GaussianBlur(side / 32)))


@cache
def _figure(pattern: int, category: int, side: int) -> NDArray[np.float64]:
    """Where the pattern is lighter (1) and where it is not (0), with smooth edges."""
    fine = 2 * side
    if PATTERNS[pattern] == "border":
        inside = _drawn([_rounded(_OUTLINES[category], fine / SIDE * 0.75)], fine)
        lighter = np.roll(np.asarray(inside), fine // 8, (0, 1)) < 128
    else:
        y, x = np.mgrid[:fine, :fine] * (SIDE / fine)
        lighter = _lighter(pattern, x, y)
    return _share(Image.fromarray(lighter.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX))
