"""A picture of any size as a small JPEG, and a small one as what encoders read."""

import warnings
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

SIDE = 512
"""Most pixels along an edge of a kept picture: sharp on a card of a page, some 40 KB as JPEG, where the contract
allows 256 KB and models look at 32 pixels."""

QUALITY = 85
"""JPEG quality, as the simulator's pictures have it."""

MAX_PIXELS = 64_000_000
"""Larger pictures than any camera's of today would take a second and hundreds of megabytes to unpack."""

MAX_SMALL_PIXELS = 16_000_000
"""Larger pictures are no thumbnails and would take seconds and hundreds of megabytes to decode."""

FORMATS = ("JPEG", "PNG", "WEBP")
"""The kinds of picture that are read; decoders of rarer ones are where the holes are."""

KEPT = ("JPEG", "PNG")
"""What a catalogue record's own picture may be: pages and encoders are given it as it is."""


def thumbnail(data: bytes, side: int = SIDE) -> bytes:
    """A picture as JPEG of at most `side` pixels along an edge, on white where it is transparent.

    Raises:
        ValueError: it is no picture of `FORMATS`, or one of absurd size; says which.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"it has {image.width} × {image.height} pixels, more than {MAX_PIXELS:,}")
                image.thumbnail((side, side))
                rgba = image.convert("RGBA")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"it is no picture of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError) as error:  # Pillow reports broken PNG chunks as SyntaxError
        raise ValueError(f"it is no picture: {error}") from None
    ground = Image.new("RGB", rgba.size, "white")
    ground.paste(rgba, mask=rgba.getchannel("A"))
    buffer = BytesIO()
    ground.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def thumbnail_pixels(data: bytes, size: int) -> NDArray[np.uint8] | None:
    """A picture of `KEPT` as (3, size, size), squeezed to a square; None where it cannot be decoded or is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=KEPT) as picture:
                if picture.width * picture.height > MAX_SMALL_PIXELS:
                    return None
                picture.draft("RGB", (size, size))
                small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow reports broken PNG chunks as SyntaxError.
        return None
    return np.ascontiguousarray(np.asarray(small, dtype=np.uint8).transpose(2, 0, 1))
