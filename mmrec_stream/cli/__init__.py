"""The command line: `mmrec COMMAND`. Each command is a module here; `streams` and `model_export` plug theirs in.

Plugged-in commands come through the entry-point group `mmrec.commands`, as this package must not import them.
"""

import sys
from importlib.metadata import entry_points

import typer

from mmrec_stream.errors import UserError

app = typer.Typer(
    name="mmrec",
    help="A streaming, multimodal, hybrid recommender on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _commands() -> None:
    """Keeps `mmrec COMMAND` the form, however many commands there are."""


def main() -> None:
    """Run the command line; a user's mistake ends it with one readable line and status 1."""
    for plugin in sorted(entry_points(group="mmrec.commands"), key=lambda plugin: plugin.name):
        app.command(plugin.name)(plugin.load())
    try:
        app()
    except UserError as error:
        typer.secho(f"mmrec: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


from mmrec_stream.cli import release  # noqa: E402
from mmrec_stream.cli.audit import audit  # noqa: E402
from mmrec_stream.cli.broker import broker  # noqa: E402
from mmrec_stream.cli.catalogue import catalogue  # noqa: E402
from mmrec_stream.cli.demo import demo  # noqa: E402
from mmrec_stream.cli.doctor import doctor  # noqa: E402
from mmrec_stream.cli.evaluate import evaluate  # noqa: E402
from mmrec_stream.cli.forget import forget  # noqa: E402
from mmrec_stream.cli.pictures import pictures  # noqa: E402
from mmrec_stream.cli.presets import presets  # noqa: E402
from mmrec_stream.cli.profile import profile  # noqa: E402
from mmrec_stream.cli.redrive import redrive  # noqa: E402
from mmrec_stream.cli.repartition import repartition  # noqa: E402
from mmrec_stream.cli.replay import replay  # noqa: E402
from mmrec_stream.cli.rules import rules  # noqa: E402
from mmrec_stream.cli.schemas import schemas  # noqa: E402
from mmrec_stream.cli.send import send  # noqa: E402
from mmrec_stream.cli.simulate import simulate  # noqa: E402
from mmrec_stream.cli.storefront import storefront  # noqa: E402
from mmrec_stream.cli.tail import tail  # noqa: E402
from mmrec_stream.cli.topics import topics  # noqa: E402

app.add_typer(release.app, name="release")
app.command()(audit)
app.command()(broker)
app.command()(catalogue)
app.command()(demo)
app.command()(doctor)
app.command()(evaluate)
app.command()(forget)
app.command()(pictures)
app.command()(presets)
app.command()(profile)
app.command()(redrive)
app.command()(repartition)
app.command()(replay)
app.command()(schemas)
app.command()(send)
app.command()(simulate)
app.command()(storefront)
app.command()(tail)
app.command()(topics)
app.add_typer(rules, name="rules")
