"""`mmrec schemas`: the JSON Schemas of all messages, into files or compared with them."""

from pathlib import Path
from typing import Annotated

import typer

from mmrec_stream.errors import UserError


def schemas(
    out: Annotated[Path, typer.Option(help="Folder of the schema files.")] = Path("docs/schemas"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail when a file is missing or stale.")
    ] = False,
) -> None:
    """Write the JSON Schemas (draft 2020-12) of all messages, one file each, for clients in other languages.

    Example: `mmrec schemas --out docs/schemas`; in continuous integration `mmrec schemas --check`.
    """
    from mmrec_stream.contracts.schemas import schema_files

    files = schema_files()
    if check:
        stale = [
            name for name, data in files.items() if not (out / name).is_file() or (out / name).read_bytes() != data
        ]
        if stale:
            raise UserError(f"stale in {out}: {', '.join(stale)}; write them with `mmrec schemas --out {out}`")
        typer.echo(f"{len(files)} schemas in {out} are up to date")
        return
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
        typer.echo(out / name)
