"""`mmrec rules`: check, publish and look at the rules that lists obey."""

import difflib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.errors import NoBrokerError, UserError
from mmrec_stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from mmrec_stream.catalogue.columns import ProductColumns
    from mmrec_stream.contracts.catalogue import CatalogueItem
    from mmrec_stream.contracts.rules import RuleSet
    from mmrec_stream.policies.book import RuleBook
    from mmrec_stream.policies.policy import Policy
    from mmrec_stream.ranking.scorer import Scorer

rules = typer.Typer(
    help="Rules that lists obey: filters, boosts, pins, caps, diversity. docs/rules.md has their words.",
    no_args_is_help=True,
)

IMPRESSIONS_READ = 1_000_000
"""Records of a partition among which `try` looks for what he was shown: seconds of reading."""

RulesFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Rule set, TOML or JSON.")]


@rules.command()
def check(file: RulesFile, bootstrap: Bootstrap = None) -> None:
    """Check a rule set: each expression, and what each filter takes out of the catalogue as it is.

    Mistakes are shown with line and column. Ends with status 1 when there is one, or when a surface is left without
    any product. Without a broker the catalogue is left out.

    Example: `mmrec rules check shop.toml`
    """
    from mmrec_stream.kafka.admin import Cluster

    found = read_file(file)
    _policy_of(found)
    settings = load_settings(bootstrap=bootstrap)
    try:
        Cluster(settings).brokers()  # which says within seconds that there is none; reading waits for elections
        columns, _ = _catalogue(settings)
    except NoBrokerError as error:
        typer.echo(f"{file}: the rules are right; what they take out is not known: {error}")
        return
    left = _report(found, columns)
    if len(columns) > 1 and not all(left.values()):
        empty = ", ".join(surface for surface, count in left.items() if not count)
        raise UserError(f"{file}: no product is left on {empty}: lists would fall back to what is popular")
    typer.echo(f"{file}: the rules are right")


@rules.command()
def show(bootstrap: Bootstrap = None) -> None:
    """Show the rules that are in force, as JSON.

    Example: `mmrec rules show`
    """
    found = published(load_settings(bootstrap=bootstrap))
    typer.echo(_text(found) if found is not None else "no rules are in force")


@rules.command()
def diff(file: RulesFile, bootstrap: Bootstrap = None) -> None:
    """Show what publishing a file would change. Ends with status 1 when something would.

    Example: `mmrec rules diff shop.toml`
    """
    now = published(load_settings(bootstrap=bootstrap))
    found = read_file(file)
    if now is not None:
        found = _numbered(found, now.version)
    lines = difflib.unified_diff(
        [] if now is None else _text(now).splitlines(),
        _text(found).splitlines(),
        "in force" if now is None else f"in force: {now.name}",
        str(file),
        lineterm="",
    )
    if shown := list(lines):
        typer.echo("\n".join(shown))
        raise typer.Exit(1)
    typer.echo("nothing would change")


@rules.command()
def publish(
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="Rule set, TOML or JSON.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take all rules back instead.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Put a rule set in force: every worker's next list obeys it, without a restart.

    Checked first; the version is one more than that of the rules in force. Rules that would leave a surface without any
    product are refused.

    Example: `mmrec rules publish shop.toml`; `mmrec rules publish --remove`
    """
    from mmrec_stream.contracts.rules import encode_rules
    from mmrec_stream.kafka.clients import BatchProducer
    from mmrec_stream.topics import Topics

    settings = load_settings(bootstrap=bootstrap)
    if remove == (file is not None):
        raise UserError("give either a file or --remove")
    book = _book(settings)
    now = None if book.in_force is None else book.in_force.rules
    found = None
    if file is not None:
        found = _numbered(read_file(file), 0 if now is None else now.version + 1)
        columns, _ = _catalogue(settings)
        if len(columns) > 1 and not all(_report(found, columns).values()):
            raise UserError(f"{file}: a surface would be left without any product")
    with BatchProducer(settings) as producer:
        if found is not None:
            producer.send(Topics.of(settings).rules, encode_rules(found), key=found.key)
        # What the topic had before, broken ones too; after it, so that there is no moment without rules.
        for key in book.keys:
            if found is None or key != found.key:
                producer.send(Topics.of(settings).rules, None, key=key)
    typer.echo("rules are taken back" if found is None else f"{found.name} is in force")


@rules.command(name="try")
def try_(
    user: Annotated[str, typer.Argument(help="User id.")],
    file: Annotated[
        Path | None, typer.Option("--file", exists=True, dir_okay=False, help="Rules to try; those in force without.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Show a user's list without rules and with them, side by side, by the release that serves. Nothing is published.

    Example: `mmrec rules try alice --file shop.toml`
    """
    import numpy as np

    from mmrec_stream.catalogue.attributes import Catalogue
    from mmrec_stream.cli.profile import find_profile
    from mmrec_stream.kafka.reader import spans
    from mmrec_stream.profiles.shown import Shown
    from mmrec_stream.profiles.tastes import Tastes
    from mmrec_stream.ranking.popularity import Popularity
    from mmrec_stream.ranking.recommend import Recommender
    from mmrec_stream.ranking.repeats import Repeats
    from mmrec_stream.topics import changelog_topic

    settings = load_settings(bootstrap=bootstrap)
    found = read_file(file) if file is not None else published(settings)
    if found is None:
        raise UserError("no rules are in force: name some with --file")
    policy = _policy_of(found)
    record = find_profile(settings, user, len(spans(settings, changelog_topic(settings))))
    if record is None:
        raise UserError(f"nothing is known of user {user!r}: no event of theirs was folded")
    columns, items = _catalogue(settings)
    policy.refresh(columns)
    catalogue = Catalogue()
    catalogue.update(items)
    shown = Shown(1)
    if policy.reads_shown:
        shown.note(_impressions(settings, user))
    recommender = Recommender(
        catalogue,
        Popularity(),
        list_size=settings.list_size,
        repeats=Repeats.of_days(settings.seen_days, settings.repurchase_days),
        tastes=Tastes.of(settings.preset),
        shown=shown,
    )
    scorer = _scorer(settings, items)
    recommender.serve(scorer)
    now_ms = int(time.time() * 1000)
    (before,) = recommender.recommend([user], record.copy(), now_ms)
    table = scorer.table

    table.permit(np.arange(len(table)), policy.allowed("home", table.keys))
    recommender.obey(policy)
    (after,) = recommender.recommend([user], record.copy(), now_ms)
    if not before.items:
        raise UserError(f"the release knows nothing that {user!r} has done: there is no list of their own to compare")
    typer.echo(f"{'without rules':<32} by {after.policy}")
    for place in range(max(len(before.items), len(after.items))):
        left = before.items[place].item_id if place < len(before.items) else ""
        right, why = "", ""
        if place < len(after.items):
            item = after.items[place]
            right = item.item_id
            why = f"  ({item.reason.of})" if item.reason is not None else ""
        typer.echo(f"{place + 1:>3} {left:<28} {right}{why}")


def _impressions(settings: Settings, user: str) -> "list[tuple[str, int]]":
    """What a user was shown, of the newest `IMPRESSIONS_READ` records of his partition of each topic that has such."""
    from mmrec_stream.contracts.acceptance import accept
    from mmrec_stream.contracts.behaviour import Impression
    from mmrec_stream.contracts.identity import id_key, partition_of
    from mmrec_stream.kafka.reader import read_batches, spans, tails
    from mmrec_stream.topics import Topics

    topics, key = Topics.of(settings), user.encode()
    found = []
    for topic in (topics.feedback, *topics.foreign):
        there = spans(settings, topic)
        partition = partition_of(key, len(there))
        starts = tails({partition: there[partition]}, IMPRESSIONS_READ)
        found += [
            (user, id_key(event.item_id))
            for messages in read_batches(settings, topic, [partition], starts)
            for message in messages
            if message.key() == key
            and isinstance(event := accept(message.value(), settings.max_event_bytes), Impression)
        ]
    return found


def read_file(path: Path) -> "RuleSet":
    """The rule set of a file.

    Raises:
        UserError: it cannot be read; names the field.
    """
    import msgspec

    from mmrec_stream.contracts.acceptance import UNREADABLE
    from mmrec_stream.contracts.rules import RuleSet, decode_rules

    try:
        data = path.read_bytes()
        if path.suffix == ".toml":
            found: RuleSet = msgspec.toml.decode(data, type=RuleSet)
        else:
            found = decode_rules(data)
    except (*UNREADABLE, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    return found


def published(settings: Settings) -> "RuleSet | None":
    """The rules in force.

    Raises:
        UserError: no broker answers, or there is no such topic.
    """
    policy = _book(settings).in_force
    return None if policy is None else policy.rules


def _book(settings: Settings) -> "RuleBook":
    """The rule sets on the topic, as workers read them."""
    from mmrec_stream.kafka.reader import read_batches
    from mmrec_stream.policies.book import RuleBook
    from mmrec_stream.topics import Topics

    book = RuleBook()
    for messages in read_batches(settings, Topics.of(settings).rules):
        for message in messages:
            book.take(message.key(), message.value())
    return book


def _policy_of(found: "RuleSet") -> "Policy":
    from mmrec_stream.policies.policy import Policy, RulesError

    try:
        return Policy(found)
    except RulesError as error:
        raise UserError(str(error)) from None


def _report(found: "RuleSet", columns: "ProductColumns") -> dict[str, int]:
    """Say what filters take out; how many products each surface has left."""
    from mmrec_stream.contracts.identity import id_keys
    from mmrec_stream.policies.policy import SURFACES

    policy, count = _policy_of(found), len(columns) - 1
    for rule, out, examples in policy.emptied(columns):
        shown = f": {', '.join(examples)}{' …' if out > len(examples) else ''}" if out else ""
        typer.echo(f"{rule} takes out {out} of {count} products{shown}")
    keys = id_keys(columns.arrays["id"][1 : count + 1].tolist())
    left = {surface: int(policy.allowed(surface, keys).sum()) for surface in SURFACES}
    for rule, known, low, middle, high in policy.objectives.found(columns):
        values = f"from {low:g} to {high:g}, half of them up to {middle:g}" if known else "so that it changes nothing"
        typer.echo(f"{rule} is known of {known} of {count} products: {values}")
    typer.echo("left: " + ", ".join(f"{surface} {number}" for surface, number in left.items()) + f" of {count}")
    return left


def _numbered(found: "RuleSet", version: int) -> "RuleSet":
    import msgspec

    return msgspec.structs.replace(found, version=max(version, 1))


def _text(found: "RuleSet") -> str:
    import msgspec

    from mmrec_stream.contracts.rules import encode_rules

    return msgspec.json.format(encode_rules(found), indent=2).decode()


def _catalogue(settings: Settings) -> "tuple[ProductColumns, list[CatalogueItem]]":
    from mmrec_stream.catalogue.changes import newest_items
    from mmrec_stream.catalogue.columns import ProductColumns
    from mmrec_stream.kafka.reader import keyed, read_batches
    from mmrec_stream.topics import Topics

    newest = newest_items(keyed(messages) for messages in read_batches(settings, Topics.of(settings).catalogue))
    columns = ProductColumns()
    columns.update(list(newest.values()))
    return columns, list(newest.values())


def _scorer(settings: Settings, items: "list[CatalogueItem]") -> "Scorer":
    from mmrec_stream.operations.rollouts import read_state
    from mmrec_stream.ranking.scorer import Scorer
    from mmrec_stream.releases.access import opened

    live = read_state(settings).live
    if live is None:
        raise UserError("no release is live: `mmrec train` makes one")
    with opened(live.announcement, settings) as (path, expected):
        scorer = Scorer.load(path, provider="cpu", expected=expected)
    for start in range(0, len(items), 256):
        scorer.add_items(items[start : start + 256])
    return scorer
