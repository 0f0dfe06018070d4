"""The demo shop in a real browser: every page, the live rows, the pipeline panel and the controls."""

import json
import re
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.storefront.browser.conftest import CHROMIUM, NO_CHROMIUM, OpenPage
from tests.storefront.browser.gateway import Gateway
from tests.storefront.browser.looks import SHIFTS_SCRIPT, axe, until

if CHROMIUM is None:
    pytest.skip(NO_CHROMIUM, allow_module_level=True)

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

PAGES = ("", "category/shoes.boots", "product/item-005", "search/leather", "cart", "checkout", "about")
ROW = "mmrec-recommendations[surface=home]:not([personalised=false])"


def go(tab: "Tab", path: str) -> None:
    """Another page of the shop, without a reload, and until what it shows is there."""
    tab.evaluate("path => { location.hash = '#/' + path }", path)
    tab.wait_for_function(
        "path => location.hash === '#/' + path && !document.querySelector('main .blank')"
        " && [...document.querySelectorAll('main mmrec-recommendations:not([hidden])')].every(({ list }) => list)",
        arg=path,
    )


def open_shop(open_page: OpenPage, path: str = "", **options: Any) -> "Tab":
    tab = open_page("/shop/", **options)
    tab.locator(f"{ROW} li a").first.wait_for()
    if path:
        go(tab, path)
    return tab


def sign_in(tab: "Tab", user: str) -> None:
    tab.get_by_label("Shopping as").select_option(user)
    tab.get_by_text(f"You are {user} now.").wait_for()


def put_into_cart(tab: "Tab", item_id: str) -> None:
    go(tab, f"product/{item_id}")
    tab.get_by_role("button", name="Add to cart").click()


def test_relatives_rise_at_home_without_a_reload(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    tab.evaluate("() => { window.sameDocument = true }")
    liked = gateway.current("ada")["items"][0]
    category = liked["category"]
    before = [item["category"] for item in gateway.current("ada")["items"]].count(category)
    tab.locator(f"{ROW} li a").first.click()
    tab.get_by_role("heading", name=liked["title"], level=1).wait_for()
    until(tab, lambda: gateway.of("click") and gateway.of("view"))
    tab.get_by_role("link", name="Kiosk").click()
    row = tab.get_by_role("region", name="Picked for you")
    row.wait_for()
    now = gateway.current("ada")["items"]
    assert [item["category"] for item in now].count(category) > before
    tab.wait_for_function(
        "([row, titles]) => JSON.stringify([...document.querySelector(row).shadowRoot.querySelectorAll("
        "'li:not([aria-hidden]) [part=title]')].map(title => title.textContent)) === JSON.stringify(titles)",
        arg=[ROW, [item["title"] for item in now]],
    )
    assert tab.evaluate("window.sameDocument")


def test_every_recommended_card_says_why(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    go(tab, "product/item-005")
    personal = tab.get_by_role("region", name="Picked for you")
    cards, buttons = personal.get_by_role("listitem"), personal.get_by_role("button", name="Why this?")
    until(tab, lambda: tab.locator(ROW).evaluate("row => row.list?.personalised"))
    until(tab, lambda: 0 < cards.count() == buttons.count())
    buttons.first.click()
    assert gateway.catalogue["item-005"].title in cards.first.inner_text()


def test_from_search_through_the_cart_to_an_order(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ben")
    tab.get_by_role("searchbox").fill("leather boots")
    tab.get_by_role("searchbox").press("Enter")
    tab.get_by_role("heading", name="“leather boots”").wait_for()
    found = tab.locator("main .grid .card:not(.blank)")
    found.first.wait_for()
    assert all("boots" in text.lower() for text in found.all_inner_texts())
    found.first.click()
    tab.get_by_role("button", name="Add to cart").click()
    tab.get_by_role("button", name="Add to cart").click()
    item_id = tab.url.rsplit("/", 1)[1]
    tab.get_by_role("link", name="Cart 2").click()
    tab.get_by_role("heading", name="Your cart").wait_for()
    price = gateway.catalogue[item_id].price
    assert price is not None
    assert tab.locator(".total b").inner_text() == f"€{2 * price:.2f}"
    tab.get_by_role("link", name="Check out").click()
    tab.get_by_role("button", name=re.compile("^Buy for")).click()
    tab.get_by_role("heading", name="Thank you!").wait_for()
    (bought,) = until(tab, lambda: gateway.of("purchase"))
    assert (bought["item_id"], bought["quantity"], bought["user"]) == (item_id, 2, "ben")
    assert bought["order_id"]
    assert len(gateway.of("add_to_cart")) == 2
    assert tab.locator("#count").inner_text() == "0"


def test_what_leaves_the_cart_is_reported(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    put_into_cart(tab, "item-007")
    go(tab, "cart")
    tab.get_by_role("button", name=f"Remove {gateway.catalogue['item-007'].title}").click()
    tab.get_by_text("Nothing in here yet.").wait_for()
    (gone,) = until(tab, lambda: gateway.of("remove_from_cart"))
    assert gone["item_id"] == "item-007"


def test_beside_the_cart_is_what_completes_it_while_it_changes(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    shop = gateway.shop

    def completing(item_id: str) -> set[str]:
        return {shop[row].title for row in shop.complements[gateway.rows[item_id]].tolist()}

    put_into_cart(tab, "item-007")
    put_into_cart(tab, "item-031")
    go(tab, "cart")
    row = tab.get_by_role("region", name="Goes well with")
    titles = row.locator("[part=title]")
    in_cart = {gateway.catalogue[item_id].title for item_id in ("item-007", "item-031")}
    until(tab, lambda: set(titles.all_inner_texts()) >= (completing("item-007") | completing("item-031")) - in_cart)
    assert not in_cart & set(titles.all_inner_texts())
    # What completed the one alone goes with it, without a reload.
    gone = completing("item-007") - completing("item-031")
    tab.get_by_role("button", name=f"Remove {gateway.catalogue['item-007'].title}").click()
    until(tab, lambda: not gone & set(titles.all_inner_texts()))


def test_a_category_shows_its_products_page_by_page(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page, "category/clothing")
    expected = sum(item.category.startswith("clothing.") for item in gateway.catalogue.values() if item.category)
    assert expected > 24
    tab.get_by_text(f"{expected} products").wait_for()
    cards = tab.locator("main .grid .card")
    assert cards.count() == 24
    tab.get_by_role("button", name="Show more").click()
    until(tab, lambda: cards.count() == min(expected, 48))


def test_the_panel_shows_the_pipeline_of_this_visitor(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    tab.get_by_role("button", name="Pipeline").click()
    panel = tab.get_by_role("complementary", name="Pipeline")
    panel.get_by_text("Click on something").wait_for()
    go(tab, "product/item-005")
    panel.get_by_text("on screen").wait_for()
    steps = panel.locator(".steps li").all_inner_texts()
    assert [step.split("\n")[0] for step in steps] == [
        "into the log",
        "fetched",
        "folded",
        "scored",
        "published",
        "at the gateway",
        "sent",
        "on screen",
    ]
    whole = float(panel.locator(".big").inner_text().split(" ms")[0])
    parts = sum(float(step.split("\n")[-1].removesuffix(" ms")) for step in steps)
    assert whole > 0
    assert abs(whole - parts) < 4  # Each is rounded.
    item = gateway.catalogue["item-005"]
    panel.locator(".events li", has_text=item.title).first.wait_for()
    assert panel.locator(".events li").first.locator("code").inner_text() == "view"
    assert (
        panel.locator(".bar", has_text=(item.category or "").split(".")[1])
        .locator(".fill")
        .first.evaluate("fill => fill.style.inlineSize")
        == "100%"
    )
    panel.get_by_role("heading", name="What spoke for this list").wait_for()
    alpha = gateway.current("ada")["alpha"]
    assert f"α = {alpha:.2f}" in panel.inner_text()
    assert gateway.current("ada")["release"] in panel.inner_text()
    panel.get_by_role("button", name="Train now").click()
    tab.get_by_text("A new release is being trained.").wait_for()
    panel.get_by_role("button", name="Close the panel").click()
    assert panel.count() == 0


def test_only_lists_that_were_pushed_to_the_page_are_timed(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    tab.get_by_role("button", name="Pipeline").click()
    panel = tab.get_by_role("complementary", name="Pipeline")
    go(tab, "product/item-005")
    panel.get_by_text("on screen").wait_for()
    tab.reload()
    tab.locator("mmrec-recommendations[surface=product] li a").first.wait_for()
    panel.get_by_text("Click on something").wait_for()
    assert panel.get_by_text("on screen").count() == 0


def test_what_happens_behind_the_shop_is_told(gateway: Gateway, open_page: OpenPage) -> None:
    now = int(time.time() * 1000)
    gateway.happenings = [{"number": 1, "ts": now, "text": "This was before the page was opened."}]
    tab = open_shop(open_page)
    tab.get_by_role("button", name="Pipeline").click()
    panel = tab.get_by_role("complementary", name="Pipeline")
    panel.get_by_text("This was before the page was opened.").wait_for()
    assert "This was" not in tab.locator("#toast").inner_text()
    gateway.happenings = [{"number": 2, "ts": now, "text": "Release r2 serves."}]
    tab.locator("#toast", has_text="Release r2 serves.").wait_for()
    panel.get_by_role("button", name="Kill the worker").click()
    panel.get_by_text("Worker 4802 has taken over").wait_for()
    panel.get_by_role("button", name="Close the panel").click()
    gateway.happenings = [{"number": 9, "ts": now, "text": "Audit: nothing is lost."}]
    tab.locator("#toast", has_text="Audit: nothing is lost.").wait_for()  # Also while the panel is closed.


@pytest.mark.parametrize(("width", "opens"), [(1300, True), (800, False)])
def test_the_demo_opens_the_panel_where_there_is_room(
    gateway: Gateway, open_page: OpenPage, width: int, opens: bool
) -> None:
    tab = open_page("/shop/?panel", viewport={"width": width, "height": 800})
    tab.locator(f"{ROW} li a").first.wait_for()
    assert tab.locator("#panel").is_visible() is opens


def test_another_shopper_sees_nothing_of_the_last_one(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    tab.get_by_role("button", name="Pipeline").click()
    put_into_cart(tab, "item-005")
    panel = tab.get_by_role("complementary", name="Pipeline")
    panel.locator(".events li").first.wait_for()
    go(tab, "")
    sign_in(tab, "ben")
    until(tab, lambda: panel.locator(".events li").count() == 0)
    assert tab.locator("#count").inner_text() == "0"
    assert gateway.catalogue["item-005"].title not in panel.inner_text()
    until(tab, lambda: tab.locator(ROW).evaluate("row => row.list?.personalised") is False)


def test_what_a_visitor_did_comes_along_at_sign_in(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page, "product/item-005")
    until(tab, lambda: gateway.of("view"))
    assert gateway.of("view")[0]["user"].startswith("visitor-")
    sign_in(tab, "cleo")
    go(tab, "")
    tab.get_by_role("region", name="Picked for you").wait_for()
    assert gateway.current("cleo")["personalised"] is True


def test_a_product_of_ones_own_with_a_picture(gateway: Gateway, open_page: OpenPage, tmp_path: Path) -> None:
    picture = tmp_path / "mine.png"
    Image.new("RGB", (900, 600), (10, 200, 30)).save(picture)
    tab = open_shop(open_page)
    tab.get_by_role("button", name="Pipeline").click()
    tab.get_by_role("button", name="Publish a product…").click()
    dialog = tab.get_by_role("dialog", name="Publish a product")
    dialog.get_by_label("Title").fill("My own lamp")
    dialog.get_by_label("Category").select_option("home.lamps")
    dialog.get_by_label("Price").fill("12.5")
    dialog.get_by_label("Picture", exact=True).set_input_files(picture)
    dialog.locator("canvas.filled").wait_for()
    dialog.get_by_role("button", name="Publish").click()
    tab.get_by_role("link", name="Look at it").click()
    tab.get_by_role("heading", name="My own lamp").wait_for()
    (own,) = [item for item in gateway.catalogue.values() if item.title == "My own lamp"]
    assert (own.category, own.price, own.stock) == ("home.lamps", 12.5, 25)
    assert own.thumbnail is not None
    image = Image.open(BytesIO(own.thumbnail))
    assert image.size == (480, 480)
    middle = image.convert("RGB").getpixel((240, 240))
    assert isinstance(middle, tuple)
    assert max(abs(a - b) for a, b in zip(middle, (10, 200, 30), strict=True)) < 12


def test_a_file_that_is_no_picture_is_said_to_be_none(gateway: Gateway, open_page: OpenPage, tmp_path: Path) -> None:
    text = tmp_path / "mine.png"
    text.write_text("not a picture")
    tab = open_shop(open_page)
    tab.get_by_role("button", name="Pipeline").click()
    tab.get_by_role("button", name="Publish a product…").click()
    tab.get_by_label("Picture", exact=True).set_input_files(text)
    tab.get_by_text("That file is no picture this browser can read.").wait_for()


def test_a_sold_out_product_vanishes_and_can_come_back(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    item = gateway.current("ada")["items"][2]
    go(tab, f"product/{item['item_id']}")
    other = open_shop(open_page)  # Somebody else, elsewhere.
    sold = other.locator(f"{ROW} a[href$='{item['item_id']}']")
    sold.wait_for()
    tab.get_by_role("button", name="Demo: sell it out").click()
    tab.get_by_text("Sold out", exact=True).wait_for()
    assert tab.get_by_role("button", name="Add to cart").is_disabled()
    sold.wait_for(state="detached")
    tab.get_by_role("button", name="Demo: stock it again").click()
    until(tab, lambda: gateway.catalogue[item["item_id"]].offered)


def test_the_gateway_restarts_and_the_page_catches_up(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")
    until(tab, lambda: "ada" in gateway.streams)
    gateway.stop()
    tab.locator(f"{ROW} [part~=stale]").wait_for()
    assert tab.locator(f"{ROW} li:not([aria-hidden])").count() == 12
    gateway.start()
    until(tab, lambda: "ada" in gateway.streams, within_s=30)
    first = gateway.current("ada")["items"][6]
    gateway.push("ada", first=first["item_id"])
    tab.wait_for_function(
        "([row, title]) => document.querySelector(row).shadowRoot.querySelector('[part=title]').textContent === title",
        arg=[ROW, first["title"]],
    )


def test_a_shop_whose_gateway_is_away_says_so_and_tries_again(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    gateway.stop()
    tab.evaluate("() => { location.hash = '#/product/item-005' }")
    tab.get_by_role("heading", name="The shop does not answer.").wait_for()
    gateway.start()
    tab.get_by_role("button", name="Try again").click()
    tab.get_by_role("heading", name=gateway.catalogue["item-005"].title).wait_for()


def test_only_what_the_gateway_can_do_is_offered(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.can = []
    gateway.kinds = {"similar"}
    tab = open_shop(open_page)
    for name in ("Pipeline", "Publish a product…", "Train now"):
        assert tab.get_by_role("button", name=name).count() == 0
    assert tab.get_by_role("searchbox").count() == 0
    assert tab.locator("#categories a").count() == 0
    go(tab, "product/item-005")
    assert tab.get_by_role("button", name=re.compile("^Demo")).count() == 0
    assert tab.get_by_role("region", name="Similar products").count() == 1
    until(tab, lambda: tab.get_by_role("region", name="Goes well with").count() == 0)


def test_the_keyboard_gets_from_home_to_an_order(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page)
    sign_in(tab, "ada")

    def press_until(condition: Callable[[str], bool]) -> None:
        name = (
            "() => { let at = document.activeElement; while (at?.shadowRoot?.activeElement) at ="
            " at.shadowRoot.activeElement; return at?.ariaLabel || at?.innerText || '' }"
        )
        for _ in range(120):
            tab.keyboard.press("Tab")
            if condition(tab.evaluate(name)):
                return
        raise AssertionError("the keyboard did not get there")

    title = gateway.current("ada")["items"][0]["title"]
    tab.evaluate("() => { document.activeElement.blur(); document.body.focus() }")
    tab.keyboard.press("Tab")
    press_until(lambda name: title in name)
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name=title, level=1).wait_for()
    press_until(lambda name: name == "Add to cart")
    tab.keyboard.press("Enter")
    go(tab, "cart")
    press_until(lambda name: name == "Check out")
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="Checkout").wait_for()
    press_until(lambda name: name.startswith("Buy for"))
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="Thank you!").wait_for()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
def test_axe_finds_nothing_on_any_page(gateway: Gateway, open_page: OpenPage, scheme: str, width: int) -> None:
    tab = open_shop(open_page, viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
    put_into_cart(tab, "item-007")
    tab.get_by_role("button", name="Pipeline").click()
    tab.locator("#panel .events li").first.wait_for()
    found = {}
    for path in PAGES:
        go(tab, path)
        found[path] = axe(tab)
    tab.get_by_role("button", name="Publish a product…").click()
    found["publish"] = axe(tab)
    assert {path: problems for path, problems in found.items() if problems} == {}


@pytest.mark.parametrize(("width", "height"), [(640, 400), (390, 800), (320, 640)], ids=["200 %", "phone", "400 %"])
def test_nothing_sticks_out(gateway: Gateway, open_page: OpenPage, width: int, height: int) -> None:
    tab = open_shop(open_page, viewport={"width": width, "height": height})
    put_into_cart(tab, "item-007")
    for path in PAGES:
        go(tab, path)
        assert tab.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0, path


def test_nothing_moves_while_home_loads(gateway: Gateway, open_page: OpenPage, new_context: Any) -> None:
    context = new_context(viewport={"width": 1200, "height": 900})
    context.add_init_script(SHIFTS_SCRIPT)
    tab = open_shop(open_page, context=context)
    tab.wait_for_function("() => [...document.querySelectorAll('mmrec-recommendations')].every(({ list }) => list)")
    assert json.dumps(tab.evaluate("shifts")) == "[]"


def test_the_theme_can_be_chosen_and_stays(gateway: Gateway, open_page: OpenPage) -> None:
    tab = open_shop(open_page, color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    tab.get_by_role("button", name="Theme: automatic").click()
    tab.get_by_role("button", name="Theme: light").click()
    tab.get_by_role("button", name="Theme: dark").wait_for()
    dark = tab.evaluate(ground)
    assert dark != light
    tab.reload()
    assert tab.evaluate(ground) == dark
