"""Presets: what differs from one field to another, as one TOML file each. A shop's is what holds without any."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.errors import UserError

SHOP = "shop"

Days = Annotated[float, Meta(ge=0, le=36_500)]


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a preset's file; a key that is none of its fields is an error."""


class Weights(_Table, frozen=True):
    """How much one event of each type says of a taste.

    A rating counts as its distance above the middle of its scale; types that are not here say nothing.
    """

    view: Annotated[float, Meta(ge=0, le=1000)]
    click: Annotated[float, Meta(ge=0, le=1000)]
    add_to_cart: Annotated[float, Meta(ge=0, le=1000)]
    purchase: Annotated[float, Meta(ge=0, le=1000)]
    follow: Annotated[float, Meta(ge=0, le=1000)]


class Defaults(_Table, frozen=True):
    """Settings of the same names, where nobody sets them."""

    seen_days: Days
    repurchase_days: Days


class Surfaces(_Table, frozen=True):
    """Which of the field's pages each of the widget's surfaces stands for."""

    home: str
    product: str
    cart: str


class Preset(_Table, frozen=True):
    """A whole preset."""

    title: str
    why: str
    """What is different in this field, in a few words for whoever chooses."""
    half_life_days: Annotated[float, Meta(gt=0, le=36_500)]
    """Tastes fade by half in this time."""
    weights: Weights
    defaults: Defaults
    events: dict[str, str]
    """The field's words for what users do, and the event type (or `skip`) that each stands for: replay knows them."""
    surfaces: Surfaces


def preset_names() -> list[str]:
    """The names of the presets that come along."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """A preset that comes along, by its name, or one's own, by the path of its file (which ends in `.toml`).

    Raises:
        UserError: there is none, or a key of it is missing, unknown or wrong; names key and file.
    """
    return parse_preset(preset_text(name), name)


def parse_preset(text: str, name: str) -> Preset:
    """The preset that a TOML text describes; `name` stands for it in messages.

    Raises:
        UserError: as for `load_preset`.
    """
    try:
        preset = msgspec.toml.decode(text, type=Preset)
    except msgspec.DecodeError as error:
        raise UserError(f"preset {name}: {str(error).replace('`$.', '`').replace(' - at `$`', '')}") from None
    types = [kind.name.lower() for kind in EventType]
    for word, kind in preset.events.items():
        if kind not in (*types, "skip"):
            raise UserError(f"preset {name}: `events.{word}` is {kind!r}: one of {', '.join(types)} or skip")
    return preset


def preset_text(name: str) -> str:
    """The file of a preset, to read and to copy from.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    own = name.endswith(".toml")
    if not own and name not in preset_names():
        raise UserError(
            f"no preset is called {name!r}: there are {', '.join(preset_names())}, and the path of a .toml of your own"
        )
    try:
        return (Path(name) if own else _folder() / f"{name}.toml").read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the preset {name} cannot be read: {error}") from None


def _folder() -> Traversable:
    return files("mmrec_stream.presets")
