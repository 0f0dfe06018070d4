"""`mmrec pictures`: which products' pictures cannot be used, and why."""

from collections import Counter
from typing import Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings


def pictures(
    shown: Annotated[int, typer.Option(min=0, help="Products that are named, of each kind of fault.")] = 20,
    bootstrap: Bootstrap = None,
) -> None:
    """Read the picture of every product of the catalogue, as workers and trainers do, and say which cannot be used.

    Pictures lie in the record (`thumbnail`), or where `image_url` says: below MMREC_IMAGE_FOLDER, or on one of
    MMREC_IMAGE_HOSTS. Changes nothing. Ends with status 1 when one is broken, refused, or cannot be reached.

    Example: `MMREC_IMAGE_HOSTS=cdn.example mmrec pictures`
    """
    from mmrec_stream.catalogue.changes import newest_items
    from mmrec_stream.cli.text import printable
    from mmrec_stream.kafka.reader import keyed, read_batches
    from mmrec_stream.pictures.reading import picture_outcomes
    from mmrec_stream.pictures.sources import sources_of
    from mmrec_stream.topics import Topics

    settings = load_settings(bootstrap=bootstrap)
    sources = sources_of(settings)
    items = newest_items(keyed(batch) for batch in read_batches(settings, Topics.of(settings).catalogue))
    counts: Counter[str] = Counter()
    for item, outcome in picture_outcomes(sources, items.values()):
        counts[outcome.kind] += 1
        if outcome.kind not in ("read", "none") and counts[outcome.kind] <= shown:
            typer.echo(f"{outcome.kind:<12} {printable(item.item_id)}: {printable(outcome.reason)}")
    wrong = {kind: count for kind, count in counts.items() if kind not in ("read", "none")}
    told = [f"{counts['read']:,} pictures of {len(items):,} products can be used"]
    told += [f"{count:,} {kind}" for kind, count in wrong.items()]
    typer.echo(", ".join(told))
    if wrong:
        raise UserError(f"{sum(wrong.values()):,} products do without their picture")
