"""A catalogue in a file, one row a product, with pictures out of a folder."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from mmrec_stream.errors import UserError
from mmrec_stream.pictures.thumbnails import thumbnail
from mmrec_stream.replay.mapping import NamedCatalogue
from mmrec_stream.replay.reading import batches_of
from mmrec_stream.replay.rows import Product, Reject, products_of_batch

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Of pictures that are named like their product."""


def read_products(path: Path, mapping: NamedCatalogue, pictures: Path | None) -> Iterator[Product | Reject]:
    """The products and rejects of a file, in its order; a product whose id came before is a reject.

    Args:
        path: CSV or Parquet, compressed or not.
        mapping: what its columns mean.
        pictures: folder with the files that the mapping's `picture` names, else with files named like products.

    Raises:
        UserError: the file or the folder cannot be read, or a column is missing.
    """
    if pictures is not None and not pictures.is_dir():
        raise UserError(f"--pictures {pictures}: no such folder")
    if pictures is None and "picture" in mapping.mapping.fields:
        raise UserError(f"{mapping.name}: `fields.picture` names files: give their folder with --pictures DIR")
    first_line: dict[str, int] = {}
    for rows in batches_of(path, mapping):
        yield from rows.rejects
        for outcome in products_of_batch(rows.batch, rows.lines, mapping.mapping, suspect=rows.suspect):
            if isinstance(outcome, Reject):
                yield outcome
                continue
            item_id = outcome.item.item_id
            if (before := first_line.setdefault(item_id, outcome.line)) != outcome.line:
                yield Reject(outcome.line, "item_id", f"is {item_id!r}, as in line {before}", item_id, item_id)
                continue
            yield outcome if pictures is None else _with_picture(outcome, pictures)


def _with_picture(product: Product, folder: Path) -> Product | Reject:
    path, item_id = _picture_file(product, folder), product.item.item_id
    if path is None:
        if product.picture is None:
            return product
        why = f"is {product.picture!r}, which {folder} does not have"
        return Reject(product.line, "picture", why, product.picture, item_id)
    try:
        picture = thumbnail(path.read_bytes())
    except (OSError, ValueError) as error:
        why = f"is {path.name!r}, which is no picture: {error}"
        return Reject(product.line, "picture", why, path.name, item_id)
    return replace(product, item=msgspec.structs.replace(product.item, thumbnail=picture))


def _picture_file(product: Product, folder: Path) -> Path | None:
    """The product's file inside the folder, None where there is none; names never lead out of it."""
    names = [product.picture] if product.picture else [product.item.item_id + suffix for suffix in SUFFIXES]
    root = folder.resolve()
    for name in names:
        path = (root / name).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    return None
