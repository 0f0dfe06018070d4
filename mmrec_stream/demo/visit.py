"""A look at the demo's shop as a visitor has it: in Chromium where it and Playwright are there, else as bytes."""

import json
import shutil
from importlib.util import find_spec
from itertools import islice
from urllib.request import urlopen

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

LOOKED_AT = 50
"""Lists whose users are tried: one whose list is the gateway's newest is among the first few."""

CLICKED = """async () => {
  const row = document.querySelector("mmrec-recommendations:not([personalised=false])");
  const next = new Promise((done) => document.addEventListener("mmrec:list", ({ detail }) =>
    detail.list.personalised && detail.list.times && done(detail)));
  const at = Date.now();
  row.shadowRoot.querySelector("li a").click();
  const { list, painted } = await next;
  return [list.items.length, Math.round((painted || Date.now()) - at)];
}"""
"""Click on the first card, and wait for the list of one's own: how many products it has, ms until it was painted."""


def visit(settings: Settings) -> str:
    """See that the shop is there, that it shows a shopper the list that a worker has made, and that a click changes it.

    Raises:
        UserError: it does not.
    """
    port = settings.storefront_port
    said = _shopper(settings, port)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None or find_spec("playwright") is None:
        return f"{said} (no Chromium with Playwright: the page itself was not tried)"
    return f"{said}; {_clicked(port, chromium)}"


def _shopper(settings: Settings, port: int) -> str:
    if _get(port, "/shop/") is None:
        raise UserError("the shop does not answer")
    lists = islice(read(settings, Topics.of(settings).recommendations), LOOKED_AT)
    users = sorted({(message.key() or b"").decode() for message in lists})
    for user in users:
        shown = _get(port, f"/v1/recommendations?user={user}")
        if shown is not None and (answer := json.loads(shown)).get("personalised") and answer["items"]:
            return f"the shop shows {user} {len(answer['items'])} products of list {answer['list_id'][:8]}…"
    raise UserError(f"the shop shows none of {len(users)} shoppers a list of their own")


def _clicked(port: int, chromium: str) -> str:
    from playwright.sync_api import Error, sync_playwright

    try:
        with sync_playwright() as playwright:
            # As root, which containers are, Chromium refuses its sandbox; the page is our own.
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/shop/")
            page.locator("mmrec-recommendations li a").first.wait_for()
            count, ms = page.evaluate(CLICKED)
            browser.close()
    except Error as error:
        raise UserError(f"the shop's page does not work in Chromium: {error.message}") from None
    return f"in Chromium a stranger's first click had {count} products of their own on the screen after {ms} ms"


def _get(port: int, path: str) -> bytes | None:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except OSError:
        return None
