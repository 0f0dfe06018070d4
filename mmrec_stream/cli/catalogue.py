"""`mmrec catalogue`: a shop's own product file into the catalogue topic."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.cli.text import printable
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from mmrec_stream.replay.publishing import TopicPublisher
    from mmrec_stream.replay.rejects import Rejects
    from mmrec_stream.replay.withdrawing import Missing

MOST_WITHDRAWN = 0.1
"""Share of the catalogue that a file may take out unless its owner says more. Assortments change by a few percent from
one export to the next; an export that broke off, or has one department only, lacks far more."""

NAMED = 20
"""Missing products that are named: what can be taken in at a look."""


def catalogue(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet, one row a product; .gz, .bz2 and .zst are unpacked.")],
    mapping: Annotated[Path, typer.Option(help="TOML file that says what the columns mean.")],
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with pictures: named by a column, or ITEM_ID.jpg, .png, .webp."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the whole file and publish nothing.")] = False,
    withdraw_missing: Annotated[
        bool,
        typer.Option("--withdraw-missing", help="Take out what the topic has and FILE, the whole catalogue, has not."),
    ] = False,
    most_withdrawn: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0, max=1, help="If more would be taken out, nothing is; 1: all may go."),
    ] = MOST_WITHDRAWN,
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go. Default: FILE.rejects.csv.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish a file of products to the catalogue topic; the newest row of a product counts, on every worker at once.

    Rows that cannot be products are counted, the first of each kind is shown, and all are written to a rejects file
    with line number, field and reason. Pictures are scaled down to 512 pixels. Products that the topic has and the file
    does not are named, and stay, unless you say `--withdraw-missing`.

    Examples: `mmrec catalogue products.csv --mapping products.toml --dry-run`, then the same with `--pictures photos`
    and without `--dry-run`. docs/quickstart-own-shop.md goes the whole way.
    """
    from mmrec_stream.kafka.clients import BatchProducer
    from mmrec_stream.replay.mapping import load_catalogue_mapping
    from mmrec_stream.replay.products import read_products
    from mmrec_stream.replay.publishing import TopicPublisher, require_topics
    from mmrec_stream.replay.rejects import Rejects
    from mmrec_stream.replay.rows import Reject
    from mmrec_stream.replay.withdrawing import Missing, published_ids
    from mmrec_stream.topics import Topics

    products = read_products(file, load_catalogue_mapping(mapping), pictures)
    good = with_picture = nameless = 0
    in_file: set[str] = set()
    with ExitStack() as stack:
        refused = stack.enter_context(Rejects(rejects or file.with_name(f"{file.name}.rejects.csv")))
        publisher = published = None
        if withdraw_missing or not dry_run:
            settings = load_settings(bootstrap=bootstrap)
            topics = Topics.of(settings)
            require_topics(settings, topics)
            published = published_ids(settings, topics.catalogue)
            if not dry_run:
                publisher = TopicPublisher(stack.enter_context(BatchProducer(settings)), topics)
        for outcome in products:
            if isinstance(outcome, Reject):
                refused.add(outcome)
                in_file.add(outcome.item_id)
                nameless += not outcome.item_id
                continue
            good += 1
            in_file.add(outcome.item.item_id)
            with_picture += outcome.item.thumbnail is not None
            if publisher is not None:
                publisher.item(outcome.item)
        if publisher is not None:
            publisher.finish()
        where = "would be published (--dry-run)" if publisher is None else f"published to {topics.catalogue}"
        typer.echo(f"{good:>12,}  products {where}, {with_picture:,} with a picture")
        _tell_rejects(refused)
        if not good:
            raise UserError(f"no row of {file} is a product")
        if published is not None:
            missing = Missing.of(published, in_file, nameless)
            _withdraw(missing, publisher, most_withdrawn if withdraw_missing else None)


def _tell_rejects(refused: "Rejects") -> None:
    typer.echo(f"{refused.count:>12,}  rejected{f', see {refused.path}' if refused.count else ''}")
    for field, first in refused.first.items():
        more = f", and {refused.by_field[field] - 1:,} more" if refused.by_field[field] > 1 else ""
        typer.echo(f"{'':14}line {first.line}: {f'{field} ' if field else ''}{first.reason}{more}")


def _withdraw(missing: "Missing", publisher: "TopicPublisher | None", most: float | None) -> None:
    """Take out what is missing, at most the share `most`; only say what it is without one, or without a publisher."""
    count = len(missing.item_ids)
    done = "stay, which the file does not have; --withdraw-missing takes them out"
    if most is not None:
        missing.check(most)
        done = "would be withdrawn (--dry-run)" if publisher is None else "withdrawn, which the file does not have"
        if publisher is not None:
            for item_id in missing.item_ids:
                publisher.withdraw(item_id)
            publisher.finish()
    if count or most is not None:
        typer.echo(f"{count:>12,}  {done}")
    if count:
        more = f", and {count - NAMED:,} more" if count > NAMED else ""
        typer.echo(f"{'':14}{printable(', '.join(missing.item_ids[:NAMED]))}{more}")
