"""Takes the pictures of the demo shop in docs/images: `python -m tests.storefront.browser.screenshots [GATEWAY]`.

Without the address of a gateway in development mode, they are of the tests' own, whose times are made up.
"""

import sys
from io import BytesIO
from pathlib import Path
from time import time

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from mmrec_stream.simulator.pictures import SHOP_SIDE
from tests.storefront.browser.conftest import CHROMIUM
from tests.storefront.browser.gateway import Gateway

IMAGES = Path(__file__).parents[3] / "docs" / "images"
PAGES = {
    "home": "",
    "category": "category/clothing.dresses",
    "product": "product/{4}",
    "search": "search/leather",
    "cart": "cart",
    "checkout": "checkout",
    "about": "about",
}
HAPPENED = "Audit: 134,901 events read from the log, 134,901 folded into profiles, 0 lost, none counted twice."
LOOKS = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}


def main() -> None:
    """One picture a page and look, as WebP small enough for a repository."""
    IMAGES.mkdir(exist_ok=True)
    gateway = None if sys.argv[1:] else Gateway(side=SHOP_SIDE).start()
    if gateway:
        gateway.happenings = [{"number": 1, "ts": int(time() * 1000), "text": HAPPENED}]
    url = gateway.url if gateway else sys.argv[1]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for look in LOOKS:
            _shoot(browser, url, look)
        browser.close()
    if gateway:
        gateway.close()


def _shoot(browser: Browser, url: str, look: str) -> None:
    width, height, scheme = LOOKS[look]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{url}/shop/")
    page.get_by_label("Shopping as").select_option(index=1)
    found = page.request.get(f"{url}/v1/catalogue?category=home.lamps&limit=8").json()["items"]
    items = [item["item_id"] for item in found]

    def go(path: str) -> None:
        page.evaluate("path => { location.hash = '#/' + path }", path)
        page.wait_for_function(
            "() => !document.querySelector('main .blank') && [...document.querySelectorAll("
            "'main mmrec-recommendations')].every(({ list }) => list)"
        )
        page.evaluate("() => { document.getElementById('toast').hidden = true; document.activeElement.blur() }")
        page.wait_for_timeout(800)  # Pictures that load lazily.
        page.mouse.move(0, 0)

    def keep(name: str, full: bool = True) -> None:
        image = Image.open(BytesIO(page.screenshot(full_page=full))).convert("RGB")
        image = image.crop((0, 0, image.width, min(image.height, image.width * 5 // (2 if width < 500 else 4))))
        image.save(IMAGES / f"shop-{name}-{look}.webp", quality=82, method=6)

    for item in items[:3]:
        go(f"product/{item}")
    page.get_by_role("button", name="Add to cart").click()
    for name, path in PAGES.items():
        go(path.format(*items))
        keep(name)
    page.get_by_role("button", name="Pipeline").click()
    go(f"product/{items[5]}")
    page.locator("#panel .steps").wait_for()
    page.locator("#panel .events li").first.wait_for()
    keep("panel", full=False)
    page.get_by_role("button", name="Publish a product…").click()
    keep("publish", full=False)
    context.close()


if __name__ == "__main__":
    main()
