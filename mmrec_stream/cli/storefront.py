"""`mmrec storefront`."""

import logging
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from mmrec_stream.cli.options import Bootstrap

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def storefront(
    host: Annotated[str | None, typer.Option(help="Where to listen. Default: MMREC_STOREFRONT_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. Default: MMREC_STOREFRONT_PORT.")] = None,
    dev: Annotated[
        bool, typer.Option("--dev", help="Ask for no tokens and believe everybody, on this machine alone.")
    ] = False,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Print a new key for MMREC_STOREFRONT_KEYS, and end.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Serve the shop's pages: take events in, hand lists out, push each new list the moment it is made.

    Pages call it from the browser, with a token of some minutes that your server signs. Run as many as you like behind
    any balancer: each follows the topics for itself. `/docs` describes every address, `/metrics` has the figures,
    `/healthz` and `/readyz` are for the balancer. Stop it with Ctrl-C or SIGTERM.

    To look around, without tokens: `mmrec storefront --dev`, then
    `curl 'http://127.0.0.1:8070/v1/recommendations?user=alice'`.

    For a shop: `export MMREC_STOREFRONT_KEYS="$(mmrec storefront --new-key)"`, give the same key to the server that
    signs tokens, set `MMREC_STOREFRONT_ORIGINS=https://shop.example`, and `mmrec storefront --host 0.0.0.0`. To change
    the key, add a second one to the set, sign with it, and take the first one out once its tokens have expired.
    """
    import asyncio

    from mmrec_stream.settings import load_settings
    from mmrec_stream.storefront.serving import serve
    from mmrec_stream.storefront.tokens import new_key_set

    if new_key:
        typer.echo(new_key_set(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")))
        return
    settings = load_settings(bootstrap=bootstrap, storefront_host=host, storefront_port=port)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)
    asyncio.run(serve(settings, dev=dev))
