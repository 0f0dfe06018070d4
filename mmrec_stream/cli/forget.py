"""`mmrec forget`: erases what is known of a user."""

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import AsJson, Bootstrap
from mmrec_stream.cli.text import console, printable
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from mmrec_stream.operations.erasure import Erasure, Remains


def forget(
    user: Annotated[str, typer.Argument(help="User id.")],
    timeout: Annotated[float, typer.Option(min=0, help="How long to wait for a worker, s.")] = 60.0,
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Erase a user's profile and newest list, and say by when the bytes are gone.

    Publishes a request and waits until a worker has answered it with tombstones in the profiles' changelog and in the
    recommendations; a worker must run. What the user did until now is left out of training from then on. The bytes go
    with each topic's compaction and retention. A user who comes back begins anew.

    Example: `mmrec forget alice`
    """
    from mmrec_stream.contracts.fields import MAX_ID_LENGTH
    from mmrec_stream.kafka.admin import Cluster
    from mmrec_stream.operations.erasure import forget as erase
    from mmrec_stream.operations.erasure import outliving, remains
    from mmrec_stream.topics import Topics, changelog_topic

    if not 1 <= len(user) <= MAX_ID_LENGTH:
        raise UserError(f"a user id has 1 to {MAX_ID_LENGTH} characters, this one has {len(user)}")
    settings = load_settings(bootstrap=bootstrap)
    topics = Topics.of(settings)
    erasure = erase(settings, user, timeout)
    names = (changelog_topic(settings), topics.recommendations, *topics.behaviour, topics.dead_letters)
    states = Cluster(settings).describe(names)
    left = remains({name: states[name] for name in names if name in states})
    longer = outliving(left, erasure.request.topic, topics.behaviour)
    if as_json:
        sys.stdout.write(_json(user, erasure, left, longer) + "\n")
    else:
        _print(user, erasure, left, longer)


def _print(user: str, erasure: "Erasure", left: "list[Remains]", longer: list[str]) -> None:
    from rich.markup import escape

    out, now = console(), datetime.now(UTC)
    out.print(f"[bold]{escape(printable(user))}[/] is forgotten", highlight=False)
    for what, place in (("profile", erasure.profile), ("newest list", erasure.lists)):
        out.print(f"{what}: {'there was none' if place is None else f'erased ({place})'}", highlight=False)
    out.print("The bytes are gone from")
    for each in left:
        out.print(f"  {each.topic} {_by(each, now)}", highlight=False)
    if longer:
        out.print(
            f"{', '.join(longer)}: keeps events longer than {erasure.request.topic} keeps the request. Training leaves "
            "them out as long as the request is there: forget the user once more before it goes",
            highlight=False,
        )


def _by(remains: "Remains", now: datetime) -> str:
    if remains.longest_ms is None:
        return f"at no certain time: {remains.setting} sets no end"
    return f"by {now + timedelta(milliseconds=remains.longest_ms):%Y-%m-%d %H:%M} UTC ({remains.setting})"


def _json(user: str, erasure: "Erasure", left: "list[Remains]", longer: list[str]) -> str:
    import msgspec

    document = {"user": user, "erasure": erasure, "remains": left, "longer_than_request": longer}
    return msgspec.json.encode(document).decode()
