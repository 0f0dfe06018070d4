"""Pages in a real Chromium, Debian's; nothing is downloaded. Where there is none, these tests are skipped.

- `gateway`: a `Gateway` of the test's own, started. `gateway.pages` takes the test's pages.
- `open_page`: opens a path of it in a fresh context and returns the page. Errors of the page fail the test.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.storefront.browser.gateway import Gateway

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

OpenPage = Callable[..., "Page"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_CHROMIUM = "needs Chromium: apt-get install chromium"


@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, which CI is, Chromium refuses its sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def gateway(browser: "Browser") -> Iterator[Gateway]:
    gateway = Gateway().start()
    yield gateway
    gateway.close()


@pytest.fixture
def new_context(browser: "Browser") -> Iterator[Callable[..., "BrowserContext"]]:
    """A browser with nothing stored; its pages share what tabs share."""
    contexts = []

    def make(**options: Any) -> "BrowserContext":
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options}))
        contexts[-1].set_default_timeout(10_000)
        return contexts[-1]

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def open_page(gateway: Gateway, new_context: Callable[..., "BrowserContext"]) -> Iterator[OpenPage]:
    """`open_page(path, context=…, **context options)`; a script error or a policy violation fails the test."""
    wrong: list[str] = []

    def listen(message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    def make(path: str, context: "BrowserContext | None" = None, **options: Any) -> "Page":
        page = (context or new_context(**options)).new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(gateway.url + path)
        return page

    yield make
    # Chromium itself logs requests that fail while a gateway is away; nothing else may be an error.
    assert [text for text in wrong if "net::ERR" not in text] == []
