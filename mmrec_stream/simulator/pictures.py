"""Small product pictures: the shape shows the category, the colour the colour, the pattern the style."""

from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE = 48
"""Pixels along an edge: the least at which shapes and patterns survive JPEG, at about 1 KB a picture."""

QUALITY = 85
"""JPEG quality: below 75 the thin stripes smear into the neighbouring pattern."""

PATTERNS = ("plain", "checks", "diagonal", "border", "stripes", "dots")
"""One a style, in the order of `words.STYLES`."""

Mask = NDArray[np.bool_]


def picture(category: int, colour: tuple[int, int, int], pattern: int, shade: float, shift: tuple[int, int]) -> bytes:
    """A product as JPEG of `SIDE` × `SIDE`.

    Args:
        category: index into `words.CATEGORIES`: the shape.
        colour: sRGB of the product.
        pattern: index into `PATTERNS`.
        shade: brightness of the background, 0 (black) to 1 (white).
        shift: pixels that the product is moved right and down.
    """
    background = round(255 * shade)
    pixels = np.full((SIDE, SIDE, 3), background, np.uint8)
    shape = np.roll(_shape(category), shift, (1, 0))
    pixels[shape] = colour
    accent = tuple(round(c + (255 - c) * 0.7) for c in colour)
    pixels[shape & _pattern(pattern, category)] = accent
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


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
    y, x = np.mgrid[:SIDE, :SIDE]
    match PATTERNS[pattern]:
        case "plain":
            return np.zeros((SIDE, SIDE), bool)
        case "checks":
            return np.asarray((x // 5 + y // 5) % 2 == 0)
        case "diagonal":
            return np.asarray((x + y) % 10 < 4)
        case "border":
            inside = Image.fromarray(_shape(category)).resize((SIDE * 3 // 4, SIDE * 3 // 4))
            inner = np.zeros((SIDE, SIDE), bool)
            margin = SIDE // 8
            inner[margin : margin + inside.height, margin : margin + inside.width] = np.asarray(inside, bool)
            return ~inner
        case "stripes":
            return np.asarray(y % 8 < 3)
        case _:
            return np.asarray((x % 9 - 4) ** 2 + (y % 9 - 4) ** 2 <= 5)
