"""What the columns of a file mean: a TOML mapping, built in for well-known files or written for one's own."""

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, Protocol, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct, field

from mmrec_stream.errors import UserError

_T = TypeVar("_T")

EventName = Literal[
    "view",
    "click",
    "add_to_cart",
    "remove_from_cart",
    "purchase",
    "cancel",
    "return",
    "rating",
    "follow",
    "impression",
]
FieldName = Literal[
    "user_id",
    "session_id",
    "item_id",
    "category",
    "brand",
    "price",
    "quantity",
    "order_id",
    "rating",
    "followed_user_id",
    "list_id",
    "position",
]
CatalogueField = Literal["title", "description", "category", "brand", "price", "image_url"]

ProductField = Literal[
    "item_id",
    "title",
    "description",
    "category",
    "brand",
    "price",
    "tags",
    "image_url",
    "stock",
    "available",
    "picture",
]


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the mapping file; a key that is none of its fields is an error."""


class FileOptions(_Table, frozen=True):
    """How the file is written. `.gz` and other compressions are known by the file's name."""

    kind: Literal["csv", "parquet"] | None = None
    """By the file's name where it is not given."""
    delimiter: str = ","
    encoding: str = "utf-8"
    header: bool = True
    """Whether the first line names the columns."""
    columns: list[str] = []
    """The names of the columns, for a file without a header."""
    multiline: bool = False
    """Whether quoted values may hold line breaks; slower, and one stray quote costs many rows."""


class Time(_Table, frozen=True):
    """The event's time. Without `format` and `unit`: ISO 8601, or what a Parquet column says."""

    column: str
    format: str | None = None
    """As for strptime."""
    unit: Literal["s", "ms"] | None = None
    """The column holds seconds or milliseconds since 1970."""
    timezone: str = "UTC"
    """Of times that name none."""


class When(_Table, frozen=True):
    """Rows whose `column` begins with `prefix` are events of `type`."""

    column: str
    prefix: str
    type: EventName
    negative: list[FieldName] = []
    """Fields that are written as negative numbers in these rows."""


class Type(_Table, frozen=True):
    """The event's type: by a column's values, or one for all rows; `when` overrides both."""

    column: str | None = None
    values: dict[str, EventName | Literal["skip"]] = {}
    """What each value of `column` stands for; rows of a `skip` are passed over."""
    constant: EventName | None = None
    when: list[When] = []


class Mapping(_Table, frozen=True):
    """A whole mapping file."""

    time: Time
    type: Type
    fields: dict[FieldName, str]
    """Which column each field of the event is in."""
    file: FileOptions = field(default_factory=FileOptions)
    anonymous: dict[str, str] = {}
    """Columns that may stand in where the user is missing, by the name to ask for them."""
    catalogue: dict[CatalogueField, str] = {}
    """Which column each field of a catalogue item is in."""

    def columns(self) -> dict[str, str]:
        """Every place of the mapping that names a column, with the column."""
        places = {"time.column": self.time.column}
        if self.type.column is not None:
            places["type.column"] = self.type.column
        places |= {f"type.when[{n}].column": rule.column for n, rule in enumerate(self.type.when)}
        for table in ("fields", "anonymous", "catalogue"):
            places |= {f"{table}.{name}": column for name, column in getattr(self, table).items()}
        return places


class CatalogueMapping(_Table, frozen=True):
    """A whole mapping file of a catalogue: one row a product."""

    fields: dict[ProductField, str]
    """Which column each field of the product is in."""
    file: FileOptions = field(default_factory=FileOptions)
    decimal: Literal[".", ","] = "."
    """How the price's fraction is set off; the other of the two, spaces and apostrophes group thousands."""
    tag_separator: str = ","

    def columns(self) -> dict[str, str]:
        """Every place of the mapping that names a column, with the column."""
        return {f"fields.{name}": column for name, column in self.fields.items()}


class Table(Protocol):
    """What a mapping of any kind says of its file."""

    @property
    def file(self) -> FileOptions:
        """How the file is written."""

    def columns(self) -> dict[str, str]:
        """Every place of the mapping that names a column, with the column."""


class Described(Protocol):
    """A mapping of any kind, and where it was read."""

    @property
    def mapping(self) -> Table:
        """The mapping."""

    @property
    def name(self) -> str:
        """For messages."""


@dataclass(frozen=True)
class NamedCatalogue:
    """A catalogue's mapping and where it was read, for messages."""

    mapping: CatalogueMapping
    name: str


@dataclass(frozen=True)
class Named:
    """A mapping and where it was read, for messages."""

    mapping: Mapping
    name: str


def builtin_formats() -> list[str]:
    """The names of the built-in mappings."""
    return sorted(entry.name.removesuffix(".toml") for entry in _formats().iterdir() if entry.name.endswith(".toml"))


def builtin(name: str) -> Named:
    """A built-in mapping.

    Raises:
        UserError: there is none of that name; lists those there are.
    """
    if name not in builtin_formats():
        raise UserError(f"no format is called {name!r}: there are jsonl, csv, {', '.join(builtin_formats())}")
    return parse_mapping((_formats() / f"{name}.toml").read_text("utf-8"), f"format {name}")


def load_mapping(path: Path, events: dict[str, str] | None = None) -> Named:
    """The mapping in a file; what it does not say of a type's values, `events` (word: type) does.

    Raises:
        UserError: it cannot be read, or a key is missing, unknown or wrong; names key and file.
    """
    try:
        return parse_mapping(path.read_text("utf-8"), str(path), events)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the mapping {path} cannot be read: {error}") from None


def load_catalogue_mapping(path: Path) -> NamedCatalogue:
    """The mapping of a catalogue in a file.

    Raises:
        UserError: as for `load_mapping`.
    """
    name = str(path)
    try:
        mapping = _decoded(path.read_text("utf-8"), name, CatalogueMapping)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the mapping {path} cannot be read: {error}") from None
    if "item_id" not in mapping.fields:
        raise UserError(f"{name}: `fields.item_id` is missing: name the column that has the product's id")
    if not mapping.tag_separator:
        raise UserError(f"{name}: `tag_separator` is empty: name what stands between two tags")
    if complaint := _file_complaint(mapping.file):
        raise UserError(f"{name}: {complaint}")
    return NamedCatalogue(mapping, name)


def parse_mapping(text: str, name: str, events: dict[str, str] | None = None) -> Named:
    """The mapping that a TOML text describes; `name` stands for it in messages, `events` is as for `load_mapping`.

    Raises:
        UserError: as for `load_mapping`.
    """
    mapping = _decoded(text, name, Mapping)
    if events and mapping.type.column is not None:
        known = msgspec.convert(events, dict[str, EventName | Literal["skip"]])
        kind = msgspec.structs.replace(mapping.type, values=known | mapping.type.values)
        mapping = msgspec.structs.replace(mapping, type=kind)
    if complaint := _complaint(mapping):
        raise UserError(f"{name}: {complaint}")
    return Named(mapping, name)


def _decoded(text: str, name: str, kind: type[_T]) -> _T:
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise UserError(f"{name}: {str(error).replace('`$.', '`').replace(' - at `$`', '')}") from None


def _formats() -> Traversable:
    return files("mmrec_stream.replay") / "formats"


def _complaint(mapping: Mapping) -> str | None:
    """What is wrong with a mapping whose keys and types are right."""
    time, kind = mapping.time, mapping.type
    if "user_id" not in mapping.fields:
        return "`fields.user_id` is missing: name the column that says who did it"
    if "item_id" not in mapping.fields and kind.constant != "follow":
        return "`fields.item_id` is missing: name the column that says which item it was about"
    if time.format is not None and time.unit is not None:
        return "`time` has both `format` and `unit`: text is read with one, numbers with the other"
    try:
        ZoneInfo(time.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        return f"`time.timezone` is {time.timezone!r}, which is no time zone: use a name like Europe/Berlin"
    if (kind.column is None) == (kind.constant is None):
        return "`type` needs either `column` with `values`, or `constant`"
    if kind.column is not None and not kind.values:
        return "`type.values` is missing: say which event each value of the column is"
    return _file_complaint(mapping.file)


def _file_complaint(file: FileOptions) -> str | None:
    if len(file.delimiter) != 1:
        return f"`file.delimiter` is {file.delimiter!r}: one character, for instance ',' or '\\t'"
    if not file.header and not file.columns:
        return "`file.columns` is missing: a file without a header needs its columns named"
    return None
