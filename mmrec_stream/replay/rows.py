"""Rows into events: pure, a batch at a time. What cannot be an event becomes a reject that says why."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from mmrec_stream.contracts.behaviour import BehaviourEvent, BehaviourRecord, decode_event
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.replay.mapping import CatalogueMapping, Mapping, Time, Type
from mmrec_stream.replay.undecodable import is_undecodable, shown

Column = Any
"""A pyarrow array; the library is not typed."""

Texts = list[str | None]

_CLASSES: dict[str, type[BehaviourEvent]] = {str(kind.__struct_config__.tag): kind for kind in get_args(BehaviourEvent)}
"""Each type of event by its name. Converting to one of them is six times faster than converting to the family."""

_FIELD = re.compile(r"`\$\.([^`]+)`|field `([^`]+)`")


@dataclass(frozen=True)
class Reject:
    """A row that is no event."""

    line: int
    """Line of a text file, row of a Parquet file; the first is 1, a header counts."""
    field: str
    """The event's field that is missing or wrong; empty where the whole row is unreadable."""
    reason: str
    row: str
    """The row itself, as text."""
    item_id: str = ""
    """The product that the row is about, where it is a catalogue's and says so."""


@dataclass(frozen=True)
class Product:
    """A row of a catalogue."""

    line: int
    item: CatalogueItem
    picture: str | None
    """What the row says of its picture's file."""


Outcome = BehaviourRecord | Reject


def events_of_batch(
    batch: pa.RecordBatch,
    lines: Sequence[int],
    mapping: Mapping,
    anonymous_as: str | None = None,
    *,
    suspect: bool = False,
) -> list[Outcome]:
    """The events of a batch of rows, in order; blank rows and rows of a skipped type are left out.

    Args:
        batch: columns as text (from text files) or typed (from Parquet).
        lines: the number of each row, for rejects.
        mapping: what the columns mean.
        anonymous_as: name in `mapping.anonymous` of what stands in for a missing user.
        suspect: whether texts may hold undecodable bytes, which takes a look at each.
    """
    texts = _Texts(batch, suspect)
    names = tuple(mapping.fields)
    columns = [texts[column] for column in mapping.fields.values()]
    times = _times(batch.column(mapping.time.column), mapping.time, texts[mapping.time.column])
    types, negative = _types(mapping.type, texts, batch.num_rows)
    stand_in = texts[mapping.anonymous[anonymous_as]] if anonymous_as else repeat(None)
    meaning = {column: name for name, column in mapping.fields.items()} | {mapping.time.column: "ts"}
    outcomes: list[Outcome] = []
    rows = zip(lines, times, types, stand_in, zip(*columns, strict=True), strict=False)
    for at, (line, ts, kind, instead, row) in enumerate(rows):
        if kind == "skip":
            continue
        fields: dict[str, Any] = {name: value for name, value in zip(names, row, strict=True) if value}
        if instead and "user_id" not in fields:
            fields["user_id"] = f"{anonymous_as}-{instead}"
        if at in negative:
            fields |= {name: fields[name].removeprefix("-") for name in negative[at] if name in fields}
        if not fields and not row_text(batch, at).strip(","):
            continue
        if at in texts.undecodable:
            name = meaning.get(texts.undecodable[at], texts.undecodable[at])
            outcomes.append(Reject(line, name, "holds bytes that are no text", row_text(batch, at)))
        elif kind is None:
            found = texts[mapping.type.column or ""][at]
            outcomes.append(Reject(line, "type", f"{found!r} has no place in type.values", row_text(batch, at)))
        elif ts is None:
            found = texts[mapping.time.column][at]
            outcomes.append(Reject(line, "ts", f"{found!r} is no time {_wanted(mapping.time)}", row_text(batch, at)))
        else:
            fields["type"], fields["ts"] = kind, ts
            try:
                outcomes.append(msgspec.convert(fields, _CLASSES[kind], strict=False))
            except msgspec.ValidationError as error:
                name, reason = explain(error, fields)
                outcomes.append(Reject(line, name, reason, row_text(batch, at)))
    return outcomes


def events_of_lines(rows: Sequence[bytes], first_line: int) -> list[Outcome]:
    """The events of JSON lines, in order; blank lines are left out."""
    outcomes: list[Outcome] = []
    for line, row in enumerate(rows, first_line):
        if not row.strip():
            continue
        try:
            outcomes.append(decode_event(row))
        except msgspec.ValidationError as error:
            outcomes.append(Reject(line, *explain(error, {}), row.decode(errors="backslashreplace").rstrip("\n")))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            outcomes.append(Reject(line, "", str(error), row.decode(errors="backslashreplace").rstrip("\n")))
    return outcomes


def items_of_batch(
    batch: pa.RecordBatch, mapping: Mapping, found: dict[str, dict[str, str]], *, suspect: bool = False
) -> None:
    """Add to `found`, by item id, what a batch says of items; the last value of a field that is not empty counts."""
    texts = _Texts(batch, suspect)
    ids = texts[mapping.fields["item_id"]]
    columns = {name: texts[column] for name, column in mapping.catalogue.items()}
    for name, values in columns.items():
        for at, (item_id, value) in enumerate(zip(ids, values, strict=True)):
            if item_id and value and at not in texts.undecodable:
                found.setdefault(item_id, {})[name] = value


def item_of(item_id: str, fields: dict[str, str]) -> CatalogueItem:
    """The catalogue item of what was found of it; fields that are wrong are left out.

    Raises:
        msgspec.ValidationError: the id itself cannot be one.
    """
    fields = dict(fields)
    while True:
        try:
            return msgspec.convert({"item_id": item_id, **fields}, CatalogueItem, strict=False)
        except msgspec.ValidationError as error:
            name, _ = explain(error, {})
            if fields.pop(name, None) is None:
                raise


def products_of_batch(
    batch: pa.RecordBatch, lines: Sequence[int], mapping: CatalogueMapping, *, suspect: bool = False
) -> list["Product | Reject"]:
    """The products of a batch of rows, one a row, in order; blank rows are left out.

    Args:
        batch: columns as text (from text files) or typed (from Parquet).
        lines: the number of each row, for rejects.
        mapping: what the columns mean.
        suspect: whether texts may hold undecodable bytes.
    """
    texts = _Texts(batch, suspect)
    names = tuple(mapping.fields)
    columns = [texts[column] for column in mapping.fields.values()]
    outcomes: list[Product | Reject] = []
    for at, (line, row) in enumerate(zip(lines, zip(*columns, strict=True), strict=False)):
        fields: dict[str, Any] = {name: value for name, value in zip(names, row, strict=True) if value}
        if not fields:
            continue
        if at in texts.undecodable:
            known = fields.get("item_id", "")
            known = "" if is_undecodable(known) else known
            why = "holds bytes that are no text"
            outcomes.append(Reject(line, texts.undecodable[at], why, row_text(batch, at), known))
            continue
        picture = fields.pop("picture", None)
        shown_as = dict(fields)
        if "price" in fields:
            fields["price"] = _plain_number(fields["price"], mapping.decimal)
        if "tags" in fields:
            fields["tags"] = [tag.strip() for tag in fields["tags"].split(mapping.tag_separator) if tag.strip()]
        try:
            item = msgspec.convert(fields, CatalogueItem, strict=False)
        except msgspec.ValidationError as error:
            known = shown_as.get("item_id", "")
            outcomes.append(Reject(line, *explain(error, shown_as), row_text(batch, at), known))
        else:
            outcomes.append(Product(line, item, picture))
    return outcomes


def _plain_number(text: str, decimal: str) -> str:
    """A number as it is written for people, with a point and nothing else."""
    grouping = "," if decimal == "." else "."
    return re.sub(rf"[\s'{grouping}]", "", text).replace(decimal, ".")


def explain(error: msgspec.ValidationError, fields: dict[str, Any]) -> tuple[str, str]:
    """The field that a contract's refusal is about (empty where it names none), and why in words."""
    text = str(error)
    match = _FIELD.search(text)
    name = (match[1] or match[2]) if match else ""
    if "missing required" in text:
        return name, "is missing"
    reason = text.split(" - at ")[0]
    reason = reason[0].lower() + reason[1:]
    return name, f"is {fields[name]!r}, {reason}" if name in fields else reason


def row_text(batch: pa.RecordBatch, at: int) -> str:
    """A row as one line of CSV."""
    values = [column[at].as_py() for column in batch.columns]
    buffer = io.StringIO()
    plain = [v.decode(errors="backslashreplace") if isinstance(v, bytes) else "" if v is None else v for v in values]
    csv.writer(buffer, lineterminator="").writerow(plain)
    return shown(buffer.getvalue())


class _Texts:
    """A batch's columns as lists of text, made when they are asked for."""

    def __init__(self, batch: pa.RecordBatch, suspect: bool) -> None:
        self._batch = batch
        self._suspect = suspect
        self._made: dict[str, Texts] = {}
        self.undecodable: dict[int, str] = {}
        """Rows with a value that is no text, and the column."""

    def __getitem__(self, column: str) -> Texts:
        if column not in self._made:
            self._made[column] = self._make(column)
        return self._made[column]

    def _make(self, name: str) -> Texts:
        column = self._batch.column(name)
        if pa.types.is_floating(column.type):
            # A column of whole numbers with gaps comes as floats out of data frames.
            whole = pc.all(pc.equal(pc.floor(column), column), min_count=0).as_py()
            column = pc.cast(column, pa.int64()) if whole else column
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            return [self._decode(at, name, value) for at, value in enumerate(column.to_pylist())]
        texts = cast("Texts", pc.cast(column, pa.string()).to_pylist())
        if self._suspect:
            self.undecodable |= {at: name for at, text in enumerate(texts) if text and is_undecodable(text)}
        return texts

    def _decode(self, at: int, name: str, value: bytes | None) -> str | None:
        try:
            return None if value is None else value.decode()
        except UnicodeDecodeError:
            self.undecodable[at] = name
            return None


def _types(kind: Type, texts: _Texts, rows: int) -> tuple[list[str | None], dict[int, list[str]]]:
    """The type of each row, None where the mapping has none, and the fields that are negative in some rows."""
    types: list[str | None]
    if kind.column is None:
        types = [kind.constant] * rows
    else:
        types = [kind.values.get(value or "") for value in texts[kind.column]]
    negative: dict[int, list[str]] = {}
    for rule in kind.when:
        for at, value in enumerate(texts[rule.column]):
            if value and value.startswith(rule.prefix):
                types[at] = rule.type
                negative[at] = list(rule.negative)
    return types, negative


def _times(column: Column, time: Time, texts: Texts) -> list[int | None]:
    """Milliseconds since 1970 of each row, None where there is no time."""
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            column = pc.assume_timezone(column, time.timezone, ambiguous="earliest", nonexistent="earliest")
        return cast(
            "list[int | None]", pc.cast(pc.cast(column, pa.timestamp("ms", "UTC"), safe=False), pa.int64()).to_pylist()
        )
    if time.unit is not None:
        return _each(texts, _number(1000 if time.unit == "s" else 1))
    if time.format is not None and not re.search("%[zZf]", time.format):
        found = pc.strptime(pa.array(texts, pa.string()), time.format, "ms", error_is_null=True)
        found = pc.assume_timezone(found, time.timezone, ambiguous="earliest", nonexistent="earliest")
        return cast("list[int | None]", pc.cast(found, pa.int64()).to_pylist())
    zone = ZoneInfo(time.timezone)
    form = time.format
    parse = datetime.fromisoformat if form is None else lambda text: datetime.strptime(text, form)
    return _each(texts, lambda text: _milliseconds(parse(text), zone))


def _each(texts: Texts, parse: Callable[[str], int]) -> list[int | None]:
    times: list[int | None] = []
    for text in texts:
        try:
            times.append(parse(text) if text else None)
        except (ValueError, OverflowError):
            times.append(None)
    return times


def _number(factor: int) -> Callable[[str], int]:
    return lambda text: round(float(text) * factor)


def _milliseconds(time: datetime, zone: ZoneInfo) -> int:
    return round((time if time.tzinfo else time.replace(tzinfo=zone)).timestamp() * 1000)


def _wanted(time: Time) -> str:
    if time.unit is not None:
        return f"in {time.unit} since 1970"
    return "in ISO 8601" if time.format is None else f"like {time.format}"
