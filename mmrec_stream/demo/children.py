"""`mmrec` commands as children of the demo: out of reach of the terminal's Ctrl-C, with a log each, ended with us."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

from mmrec_stream.processes import die_with_parent
from mmrec_stream.settings import Settings

SECRETS = {"storefront_keys", "sasl_password", "release_signing_key"}
"""Settings that a child has from the environment alone, if at all."""

STOP_TIMEOUT_S = 20.0
"""A worker stops within 2 s, a training at once."""


def environment(settings: Settings, **more: object) -> dict[str, str]:
    """The variables of a child: ours, with what `settings` has of its own and `more`."""
    given = settings.model_dump(mode="json", exclude_unset=True, exclude=SECRETS) | more
    said = {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in given.items()}
    return os.environ | {f"MMREC_{name.upper()}": value for name, value in said.items()}


async def start(settings: Settings, log: Path, *arguments: str, **more: object) -> Process:
    """Start `mmrec ARGUMENTS`; what it prints is added to `log`."""
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mmrec_stream",
            *arguments,
            env=environment(settings, **more),
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


async def stop(process: Process) -> None:
    """End a child politely; kill one that does not end in `STOP_TIMEOUT_S`."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def last_lines(log: Path, count: int = 5) -> str:
    """The end of a child's log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
