"""Files of events, read in batches of bounded memory: CSV, Parquet and JSON lines, compressed or not."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.fields import MAX_ID_LENGTH
from mmrec_stream.errors import UserError
from mmrec_stream.replay.mapping import Described, FileOptions, Named
from mmrec_stream.replay.rows import Outcome, Reject, events_of_batch, events_of_lines, item_of, items_of_batch
from mmrec_stream.replay.undecodable import Utf8Stream, shown

BATCH_BYTES = 1024 * 1024
"""Bytes of text in a batch: about 10,000 rows. Smaller ones cost more a row, larger ones stay out of the cache."""

BATCH_ROWS = 8192
"""Rows of a batch where they can be counted: Parquet and JSON lines."""


@dataclass(frozen=True)
class Chunk:
    """What a batch of rows came to."""

    rows: int
    """Rows read, rejects and skipped ones included."""
    outcomes: list[Outcome]
    done: float
    """Share of the file that is read, 0 to 1."""


@dataclass(frozen=True)
class Source:
    """A file and what its columns mean; without a mapping it holds our own events as JSON lines."""

    path: Path
    format: Named | None = None
    anonymous_as: str | None = None
    """Name of what stands in for a missing user; without, such rows are rejected."""

    def __post_init__(self) -> None:
        known = sorted(self.format.mapping.anonymous) if self.format else []
        if self.anonymous_as is not None and self.anonymous_as not in known:
            where = self.format.name if self.format else "jsonl"
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{where} has nothing called {self.anonymous_as!r} for users that are missing: {there}")


def read_events(source: Source) -> Iterator[Chunk]:
    """The events and rejects of a file, in its order.

    Raises:
        UserError: the file cannot be read, is damaged, or lacks a column that the mapping names.
    """
    if source.format is None:
        yield from _json_chunks(source.path)
        return
    mapping = source.format.mapping
    for rows in batches_of(source.path, source.format):
        outcomes = events_of_batch(rows.batch, rows.lines, mapping, source.anonymous_as, suspect=rows.suspect)
        yield Chunk(len(rows.lines) + len(rows.rejects), [*rows.rejects, *outcomes], rows.done)


def read_items(source: Source) -> Iterator[CatalogueItem]:
    """The catalogue items that a file's rows tell of, one an item id. Reads the whole file; keeps items only.

    Raises:
        UserError: as for `read_events`; or the mapping says nothing of the catalogue.
    """
    if source.format is None or not source.format.mapping.catalogue:
        raise UserError(f"{source.format.name if source.format else 'jsonl'} says nothing of the catalogue")
    found: dict[str, dict[str, str]] = {}
    for rows in batches_of(source.path, source.format):
        items_of_batch(rows.batch, source.format.mapping, found, suspect=rows.suspect)
    for item_id, fields in found.items():
        if len(item_id) <= MAX_ID_LENGTH:
            yield item_of(item_id, fields)


@dataclass(frozen=True)
class Rows:
    """A batch of a file's rows."""

    batch: pa.RecordBatch
    lines: range | list[int]
    rejects: list[Reject]
    suspect: bool
    """Whether its texts stand for bytes that are no text."""
    done: float


def batches_of(path: Path, source: Described) -> Iterator[Rows]:
    """The rows of a file that a mapping describes, in its order.

    Raises:
        UserError: the file cannot be read, is damaged, or lacks a column that the mapping names.
    """
    kind = source.mapping.file.kind or ("parquet" if path.suffix == ".parquet" else "csv")
    try:
        yield from (_parquet if kind == "parquet" else _csv)(path, source)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError, UnicodeError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _parquet(path: Path, source: Described) -> Iterator[Rows]:
    with pyarrow.parquet.ParquetFile(path) as file:
        _check_columns(path, source, file.schema_arrow.names)
        total, seen = file.metadata.num_rows, 0
        for batch in file.iter_batches(BATCH_ROWS):
            lines = range(seen + 1, seen + batch.num_rows + 1)
            seen += batch.num_rows
            yield Rows(batch, lines, [], False, seen / total)


def _csv(path: Path, source: Described) -> Iterator[Rows]:
    options = source.mapping.file
    names = _header(path, options) if options.header else options.columns
    _check_columns(path, source, names)
    wrong: list[Reject] = []
    gone: set[int] = set()

    def wrong_row(row: Any) -> str:
        gone.add(row.number)
        if row.text.strip():
            reason = f"has {row.actual_columns} columns instead of {row.expected_columns}"
            wrong.append(Reject(row.number, "", reason, shown(row.text)))
        return "skip"

    with _opened(path) as (stream, done):
        text = Utf8Stream(stream, options.encoding)
        reader = pyarrow.csv.open_csv(
            text,
            # One thread: only then do wrong rows have their numbers.
            pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=BATCH_BYTES,
                column_names=names,
                skip_rows=int(options.header),
            ),
            pyarrow.csv.ParseOptions(
                delimiter=options.delimiter,
                newlines_in_values=options.multiline,
                ignore_empty_lines=False,
                invalid_row_handler=wrong_row,
            ),
            # No guessing of types: what a value means is for the mapping and the contract to say.
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
        line = 1 + int(options.header)
        for batch in reader:
            there = (n for n in range(line, line + batch.num_rows + len(gone)) if n not in gone)
            lines = list(islice(there, batch.num_rows)) if gone else range(line, line + batch.num_rows)
            line = lines[-1] + 1 if lines else line
            gone = {number for number in gone if number >= line}
            rejects, wrong[:] = wrong[:], []
            yield Rows(batch, lines, rejects, text.suspect, done())
    if wrong:
        yield Rows(_no_rows(names), [], wrong, False, 1.0)


def _header(path: Path, options: FileOptions) -> list[str]:
    with _opened(path) as (stream, _):
        line = io.BufferedReader(Utf8Stream(stream, options.encoding)).readline()
    row = next(csv.reader([line.decode().removeprefix("\ufeff")], delimiter=options.delimiter), [])
    return [name.strip() for name in row]


def _check_columns(path: Path, source: Described, names: list[str]) -> None:
    if not names:
        raise UserError(f"{path} is empty: its first line should name the columns")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} has two columns called {twice[0]!r}")
    for place, column in source.mapping.columns().items():
        if column not in names:
            raise UserError(
                f"{source.name}: `{place}` is {column!r}, which {path.name} does not have; "
                f"it has {', '.join(map(repr, names))}"
            )


def _no_rows(names: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], pa.schema([(name, pa.string()) for name in names]))


def _json_chunks(path: Path) -> Iterator[Chunk]:
    line = 1
    try:
        with _opened(path) as (stream, done):
            file = io.BufferedReader(stream, BATCH_BYTES)
            while rows := list(islice(file, BATCH_ROWS)):
                yield Chunk(len(rows), events_of_lines(rows, line), done())
                line += len(rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Callable[[], float]]]:
    """The file, decompressed if its name says so, and how to ask what share of it has been read."""
    try:
        size = max(path.stat().st_size, 1)
        raw = pa.OSFile(str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    compression = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(path.suffix)
    with raw, pa.CompressedInputStream(raw, compression) if compression else nullcontext(raw) as stream:
        yield stream, lambda: raw.tell() / size
