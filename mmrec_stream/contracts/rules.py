"""Rule sets: what a merchandiser wants of every list, as data.

The newest value of the topic that can be used counts; a null value takes the version with its key back. Expressions are
CEL (Common Expression Language) over the product, the user and the context; docs/rules.md has their words.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import Id, SchemaVersion

RuleId = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,63}$", description="shown in lists and messages")]
Expression = Annotated[str, Meta(min_length=1, max_length=4_096, description="CEL")]
SurfaceName = Annotated[str, Meta(pattern="^[a-z0-9_-]{1,32}$")]
Surfaces = Annotated[list[SurfaceName], Meta(max_length=16, description="where it counts; everywhere when empty")]


class Filter(Struct, kw_only=True, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Products that lists have or do not have. Exactly one of `only` and `exclude` is given."""

    id: RuleId
    only: Expression | None = None
    """Lists have products alone for which this holds."""
    exclude: Expression | None = None
    """Lists have no product for which this holds."""
    required: bool = False
    """Whether it counts even where nothing is left: law, age, safety. Others give way rather than show nothing."""
    surfaces: Surfaces = []

    def __post_init__(self) -> None:
        if (self.only is None) == (self.exclude is None):
            raise ValueError("a filter has either `only` or `exclude`")


class Boost(Struct, kw_only=True, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Scores of products for which `when` holds are multiplied by `by`."""

    id: RuleId
    when: Expression = "true"
    by: Expression
    """A double: `1.5`, or an objective by attribute: `1.0 + 2.0 * item.numbers["margin"]`. Below 0 counts as 0."""
    surfaces: Surfaces = []


class Objective(Struct, kw_only=True, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What else a product is worth than that the user may like it; a share of its score."""

    id: RuleId
    of: Expression
    """A double by the product: `item.numbers.margin`. What counts is its rank in the catalogue, from 0 to 1."""
    weight: Annotated[float, Meta(gt=0, lt=1)]
    """Its share of the score. All of them come to less than 1; the rest is what the user likes."""
    surfaces: Surfaces = []


class Pin(Struct, kw_only=True, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A product that has a fixed place, as long as it can be sold and no filter takes it out."""

    id: RuleId
    item_id: Id
    position: Annotated[int, Meta(ge=0, le=199)] = 0
    surfaces: Surfaces = []


class RuleSet(Struct, kw_only=True, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All rules that are in force, as one value. Lists name it as `id/version`."""

    id: RuleId
    version: Annotated[int, Meta(ge=1, description="counted up by `mmrec rules publish`")] = 1
    note: Annotated[str, Meta(max_length=1_024, description="for people")] = ""
    banned: Annotated[list[Id], Meta(max_length=10_000)] = []
    """Products that no list has, whatever else is said."""
    filters: Annotated[list[Filter], Meta(max_length=200)] = []
    boosts: Annotated[list[Boost], Meta(max_length=200)] = []
    objectives: Annotated[list[Objective], Meta(max_length=20)] = []
    pins: Annotated[list[Pin], Meta(max_length=200)] = []
    max_per_category: Annotated[int, Meta(ge=1)] | None = None
    max_per_brand: Annotated[int, Meta(ge=1)] | None = None
    diversity: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """0: by score alone; 1: by difference from what is above alone (MMR over the release's item vectors)."""
    v: SchemaVersion = 1

    def __post_init__(self) -> None:
        if (total := sum(one.weight for one in self.objectives)) >= 1:
            raise ValueError(f"the objectives' weights come to {total:g}: less than 1, as the rest is what users like")

    @property
    def name(self) -> str:
        """What lists say that they obey."""
        return f"{self.id}/{self.version}"

    @property
    def key(self) -> bytes:
        """The key of its record, its own: a broken version must not replace a good one when the topic is compacted."""
        return self.name.encode()


encode_rules = msgspec.json.Encoder().encode
decode_rules = msgspec.json.Decoder(RuleSet).decode
