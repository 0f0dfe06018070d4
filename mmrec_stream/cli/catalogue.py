"""`mmrec catalogue`: a shop's own product file into the catalogue topic."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings


def catalogue(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet, one row a product; .gz, .bz2 and .zst are unpacked.")],
    mapping: Annotated[Path, typer.Option(help="TOML file that says what the columns mean.")],
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with pictures: named by a column, or ITEM_ID.jpg, .png, .webp."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the whole file and publish nothing.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go. Default: FILE.rejects.csv.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish a file of products to the catalogue topic; the newest row of a product counts, on every worker at once.

    Rows that cannot be products are counted, the first of each kind is shown, and all are written to a rejects file
    with line number, field and reason. Pictures are scaled down to 512 pixels.

    Examples: `mmrec catalogue products.csv --mapping products.toml --dry-run`, then the same with `--pictures photos`
    and without `--dry-run`. docs/quickstart-own-shop.md goes the whole way.
    """
    from mmrec_stream.kafka.clients import BatchProducer
    from mmrec_stream.replay.mapping import load_catalogue_mapping
    from mmrec_stream.replay.products import read_products
    from mmrec_stream.replay.publishing import TopicPublisher, require_topics
    from mmrec_stream.replay.rejects import Rejects
    from mmrec_stream.replay.rows import Reject
    from mmrec_stream.topics import Topics

    products = read_products(file, load_catalogue_mapping(mapping), pictures)
    good = with_picture = 0
    with ExitStack() as stack:
        refused = stack.enter_context(Rejects(rejects or file.with_name(f"{file.name}.rejects.csv")))
        publisher = None
        if not dry_run:
            settings = load_settings(bootstrap=bootstrap)
            topics = Topics.of(settings)
            require_topics(settings, topics)
            publisher = TopicPublisher(stack.enter_context(BatchProducer(settings)), topics)
        for outcome in products:
            if isinstance(outcome, Reject):
                refused.add(outcome)
                continue
            good += 1
            with_picture += outcome.item.thumbnail is not None
            if publisher is not None:
                publisher.item(outcome.item)
        if publisher is not None:
            publisher.finish()
    where = "would be published (--dry-run)" if publisher is None else f"published to {topics.catalogue}"
    typer.echo(f"{good:>12,}  products {where}, {with_picture:,} with a picture")
    typer.echo(f"{refused.count:>12,}  rejected{f', see {refused.path}' if refused.count else ''}")
    for field, first in refused.first.items():
        more = f", and {refused.by_field[field] - 1:,} more" if refused.by_field[field] > 1 else ""
        typer.echo(f"{'':14}line {first.line}: {f'{field} ' if field else ''}{first.reason}{more}")
    if not good:
        raise UserError(f"no row of {file} is a product")
