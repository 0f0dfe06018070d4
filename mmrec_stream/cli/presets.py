"""`mmrec presets`: what differs from one field to another."""

from typing import Annotated

import typer

from mmrec_stream.cli.text import console


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one's file: a name, or the path of your own.")
    ] = None,
) -> None:
    """List the presets for shop, video, music, news and travel, or show one's file.

    A preset says how much each type of event tells of a taste, in what time tastes fade by half, how long what was
    bought (or finished, read, booked) stays out of lists, what the field calls its events in files for `mmrec replay`,
    and which of its pages the widget's surfaces stand for. `MMREC_PRESET` chooses one, the same for workers and
    trainers; a setting that is set wins over the preset's default for it.

    For a field of your own, copy the nearest: `mmrec presets music > radio.toml`, edit it, and set
    `MMREC_PRESET=radio.toml`; `mmrec presets radio.toml` checks it. docs/presets.md says why each is as it is.

    Examples: `mmrec presets`; `mmrec presets news`; `MMREC_PRESET=news mmrec worker`
    """
    from mmrec_stream.presets import load_preset, preset_names, preset_text

    if name is not None:
        load_preset(name)
        typer.echo(preset_text(name), nl=False)
        return
    import msgspec
    from rich.table import Table

    from mmrec_stream.settings import load_settings

    chosen = load_settings().preset
    table = Table(box=None, pad_edge=False)
    weights = ("view", "click", "add_to_cart", "purchase", "follow")
    for column in ("preset", "half-life", "bought stays out", *weights):
        table.add_column(column, justify="left" if column == "preset" else "right")
    for one in dict.fromkeys([*preset_names(), chosen]):
        preset = load_preset(one)
        table.add_row(
            f"{one} *" if one == chosen else one,
            f"{preset.half_life_days:g} d",
            f"{preset.defaults.repurchase_days:g} d",
            *(f"{msgspec.structs.asdict(preset.weights)[kind]:g}" for kind in weights),
        )
    out = console()
    out.print(table)
    out.print(f"\n* MMREC_PRESET={chosen}. `mmrec presets NAME` shows one, with its reasons.", markup=False)
