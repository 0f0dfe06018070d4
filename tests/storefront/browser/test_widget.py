"""The widget in a real browser: what it shows, says, keeps and reports."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.storefront.browser.conftest import CHROMIUM, NO_CHROMIUM, OpenPage
from tests.storefront.browser.gateway import Gateway, Page
from tests.storefront.browser.looks import SHIFTS_SCRIPT, axe, until

if CHROMIUM is None:
    pytest.skip(NO_CHROMIUM, allow_module_level=True)

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext
    from playwright.sync_api import Page as Tab

NONCE = "r4nd0m"
STRICT = (
    f"default-src 'none'; script-src 'nonce-{NONCE}'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
CARDS = "mmrec-recommendations li:not([aria-hidden])"


def page(body: str, head: str = "", language: str = "en", direction: str = "ltr", **headers: str) -> Page:
    """A page with the widget's script, and whatever a test puts in."""
    return Page(
        f'<!doctype html><html lang="{language}" dir="{direction}"><head><meta charset="utf-8"><title>Shop</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="/v1/items/item-000/image">'
        f'<script src="/widget/mmrec-recommendations.js" nonce="{NONCE}" defer></script>{head}</head>'
        f"<body><main><h1>Shop</h1>{body}</main></body></html>",
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


def tag(**more: str) -> str:
    given = {"gateway": "/", "surface": "home", "user": "ada", "count": "12", **more}
    attributes = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in given.items())
    return f"<mmrec-recommendations {attributes}></mmrec-recommendations>"


def titles(tab: "Tab") -> list[str]:
    return tab.locator(f"{CARDS} [part=title]").all_inner_texts()


def shown(tab: "Tab", item_id: str) -> Any:
    """The card of an item, by the address it leads to."""
    return tab.locator(f"{CARDS} a[href$='/{item_id}']")


def await_first(tab: "Tab", title: str) -> None:
    tab.wait_for_function(
        "title => document.querySelector('mmrec-recommendations').shadowRoot.querySelector('[part=title]')"
        "?.textContent === title",
        arg=title,
    )


def test_one_tag_shows_a_labelled_list_under_a_strict_policy(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/"] = gateway.pages["/a"] = page(tag(why=""), Content_Security_Policy=STRICT)
    tab = open_page("/a")
    region = tab.get_by_role("region", name="Popular right now")
    cards = region.get_by_role("list", name="Popular right now").get_by_role("listitem")
    cards.nth(11).wait_for()
    assert cards.count() == 12
    item = gateway.current("ada")["items"][0]
    link = cards.first.get_by_role("link")
    assert link.inner_text().split("\n") == [item["brand"], item["title"], f"€{item['price']:.2f}"]
    assert link.evaluate("link => link.href") == gateway.url + item["url"]
    assert link.locator("img").get_attribute("loading") == "lazy"
    tab.wait_for_function(
        "() => document.querySelector('mmrec-recommendations').shadowRoot.querySelector('img').naturalWidth > 0"
    )
    cards.first.get_by_role("button", name=f"Why this? {item['title']}").click()
    assert "Many shoppers" in cards.first.inner_text()


def test_a_click_is_reported_and_changes_the_list_without_a_reload(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag())
    tab = open_page("/a")
    shown(tab, gateway.current("ada")["items"][3]["item_id"]).wait_for()
    before, item = gateway.current("ada"), gateway.current("ada")["items"][3]
    tab.evaluate("() => addEventListener('mmrec:click', event => event.preventDefault())")
    tab.evaluate("() => (window.lists = [], addEventListener('mmrec:list', ({ detail }) => lists.push(detail)))")
    shown(tab, item["item_id"]).click()
    tab.get_by_role("region", name="Picked for you").wait_for()
    (click,) = gateway.of("click")
    assert (click["item_id"], click["list_id"], click["position"], click["surface"], click["user"]) == (
        item["item_id"],
        before["list_id"],
        3,
        "home",
        "ada",
    )
    now = gateway.current("ada")
    assert titles(tab) == [one["title"] for one in now["items"]] != [one["title"] for one in before["items"]]
    (event,) = until(tab, lambda: tab.evaluate("lists"))
    assert event["list"]["list_id"] == now["list_id"]
    assert event["painted"] > event["list"]["times"]["sent"] > click["ts"]
    assert tab.url == gateway.url + "/a"  # The page's own handler has the last word on where a click leads.


def test_a_click_leads_to_the_product(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag(url="/b?item={id}"))
    gateway.pages["/b"] = page("")
    tab = open_page("/a")
    item_id = gateway.current("ada")["items"][1]["item_id"]
    tab.locator(f"{CARDS} a").nth(1).click()
    tab.wait_for_url(f"**/b?item={item_id}")
    assert until(tab, lambda: gateway.of("click"))[0]["item_id"] == item_id


def test_impressions_are_of_cards_half_in_sight_for_a_second(gateway: Gateway, open_page: OpenPage) -> None:
    filler = '<div id="filler"></div>'
    style = "<style>#filler { height: 700px } mmrec-recommendations { width: 800px; --mmrec-card-width: 12rem }</style>"
    gateway.pages["/a"] = page(filler + tag(count="12"), head=style)
    tab = open_page("/a", viewport={"width": 1000, "height": 800})
    tab.locator(f"{CARDS} a").first.wait_for()
    tab.wait_for_timeout(1_500)  # Nothing may happen: there is nothing to wait for.
    assert gateway.of("impression") == []
    tab.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    until(tab, lambda: gateway.of("impression"))
    made = gateway.current("ada")
    seen = [(event["position"], event["item_id"]) for event in gateway.of("impression")]
    # 800 px hold three cards of 192 px with gaps of 16 px whole, and more than half of a fourth.
    assert sorted(seen) == [(position, made["items"][position]["item_id"]) for position in range(4)]
    assert {event["list_id"] for event in gateway.of("impression")} == {made["list_id"]}
    tab.get_by_role("button", name="Forward").click()
    until(tab, lambda: len(gateway.of("impression")) > 4)
    assert len({event["position"] for event in gateway.of("impression")}) == len(gateway.of("impression"))


def test_the_last_list_stays_while_the_gateway_is_away_and_the_page_catches_up(
    gateway: Gateway, open_page: OpenPage
) -> None:
    gateway.pages["/a"] = page(tag())
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    before = titles(tab)
    gateway.stop()
    tab.locator("mmrec-recommendations [part~=stale]").wait_for()
    assert titles(tab) == before
    tab.evaluate("() => document.querySelector('mmrec-recommendations').track({type: 'view', item_id: 'item-010'})")
    gateway.start()
    (view,) = until(tab, lambda: gateway.of("view"), within_s=20)
    assert (view["item_id"], view["user"]) == ("item-010", "ada")
    tab.wait_for_function("title => document.querySelector('mmrec-recommendations').list.personalised", timeout=20_000)
    assert titles(tab) == [item["title"] for item in gateway.current("ada")["items"]] != before
    assert tab.locator("mmrec-recommendations [part~=stale]").count() == 0


def test_a_page_that_finds_no_gateway_keeps_the_place_and_says_so(gateway: Gateway, open_page: OpenPage) -> None:
    away = gateway.url.replace(str(gateway.port), "9")  # The discard port: nothing listens there.
    gateway.pages["/a"] = page(tag(gateway=away))
    tab = open_page("/a")
    tab.get_by_text("Recommendations are not available right now.").wait_for()
    height = tab.locator("mmrec-recommendations").bounding_box()
    assert height is not None
    assert height["height"] > 250
    tab.locator("mmrec-recommendations").evaluate("(widget, url) => widget.setAttribute('gateway', url)", gateway.url)
    tab.locator(f"{CARDS} a").first.wait_for()
    assert not tab.get_by_text("Recommendations are not available right now.").is_visible()
    after = tab.locator("mmrec-recommendations").bounding_box()
    assert after is not None
    assert abs(after["height"] - height["height"]) < 1


def test_events_wait_out_refusals_under_pressure_and_count_once(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.answer_events = [429, 503]
    gateway.pages["/a"] = page(tag())
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    tab.evaluate("() => document.querySelector('mmrec-recommendations').track({type: 'view', item_id: 'item-010'})")
    until(tab, lambda: gateway.of("view"), within_s=20)
    assert len([path for path in gateway.requests if path.startswith("/v1/events")]) == 3
    assert len(gateway.of("view")) == 1


def test_one_bad_event_does_not_take_the_others_along(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.answer_events = [503]
    gateway.pages["/a"] = page(tag())
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    tab.evaluate(
        "() => { for (const type of ['view', 'nonsense', 'add_to_cart'])"
        " document.querySelector('mmrec-recommendations').track({ type, item_id: 'item-010' }) }"
    )
    until(tab, lambda: gateway.of("view") and gateway.of("add_to_cart"))
    assert gateway.of("nonsense") == []


def test_what_is_unconfirmed_when_the_page_goes_still_arrives(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.answer_events = [503]
    gateway.pages["/a"], gateway.pages["/b"] = page(tag()), page("")
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    tab.evaluate("() => document.querySelector('mmrec-recommendations').track({type: 'view', item_id: 'item-010'})")
    until(tab, lambda: not gateway.answer_events)
    tab.goto(gateway.url + "/b")
    assert until(tab, lambda: gateway.of("view"))[0]["item_id"] == "item-010"


def test_the_keyboard_reaches_everything(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag(why="", url="/b?item={id}"))
    gateway.pages["/b"] = page("")
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    items = gateway.current("ada")["items"]

    def focused() -> Any:
        return tab.evaluate(
            "() => { const at = document.activeElement.shadowRoot.activeElement;"
            " return at.ariaLabel || at.querySelector('[part=title]').textContent }"
        )

    tab.keyboard.press("Tab")
    assert focused() == "Forward"
    tab.keyboard.press("Tab")
    assert focused() == items[0]["title"]
    tab.keyboard.press("Tab")
    assert focused() == f"Why this? {items[0]['title']}"
    tab.keyboard.press("Enter")
    reason = tab.locator("[part=reason]:visible")
    assert reason.inner_text() == "Many shoppers look at this right now."
    tab.keyboard.press("Escape")
    assert reason.count() == 0
    for key, at in [("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 11), ("Home", 0), ("ArrowLeft", 0)]:
        tab.keyboard.press(key)
        assert focused().removeprefix("Why this? ") == items[at]["title"], key
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/b?item={items[1]['item_id']}")


@pytest.mark.parametrize("atomic", [True, False], ids=["moveBefore", "without moveBefore"])
def test_a_reranked_row_keeps_the_focus(gateway: Gateway, open_page: OpenPage, atomic: bool) -> None:
    older = "" if atomic else f'<script nonce="{NONCE}">delete Element.prototype.moveBefore</script>'
    gateway.pages["/a"] = page(tag(), head=older)
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    item = gateway.current("ada")["items"][4]
    shown(tab, item["item_id"]).focus()
    blurs = (
        "() => { window.blurs = 0;"
        " document.querySelector('mmrec-recommendations').addEventListener('focusout', () => blurs++) }"
    )
    tab.evaluate(blurs)
    gateway.push("ada", first=item["item_id"])
    await_first(tab, item["title"])
    at = "() => document.activeElement.shadowRoot.activeElement.querySelector('[part=title]').textContent"
    assert tab.evaluate(at) == item["title"]
    if atomic:
        assert tab.evaluate("blurs") == 0  # A screen reader is not made to read it again.
    gateway.sell_out(item["item_id"])
    shown(tab, item["item_id"]).wait_for(state="detached")
    assert tab.evaluate(at) == titles(tab)[0]  # It is gone: its neighbour has the focus, not the page's beginning.


def test_a_sold_out_product_goes_from_every_widget_of_the_page(gateway: Gateway, open_page: OpenPage) -> None:
    related = tag(item="item-003", surface="product", kind="similar")
    gateway.pages["/a"] = page(tag() + related)
    tab = open_page("/a")
    widgets = tab.locator("mmrec-recommendations")
    widgets.nth(1).get_by_role("region", name="Similar products").wait_for()
    both = widgets.nth(1).locator("li:not([aria-hidden]) a").first.get_attribute("href") or ""
    item_id = both.rsplit("/", 1)[1]
    gateway.push("ada", first=item_id)
    widgets.nth(0).locator(f"a[href$='/{item_id}']").wait_for()
    gateway.sell_out(item_id)
    shown(tab, item_id).first.wait_for(state="detached")
    until(tab, lambda: shown(tab, item_id).count() == 0)


SHIFTS = f"<script nonce='{NONCE}'>{SHIFTS_SCRIPT}</script>"


@pytest.mark.parametrize("layout", ["row", "grid"])
def test_nothing_on_the_page_moves(gateway: Gateway, open_page: OpenPage, layout: str) -> None:
    """Layout shift is 0: while it loads late, is re-ranked unasked, loses a product, and after an outage."""
    # As docs/widget.md says: a row's height is known before the script is there; a grid's script is loaded at once.
    style = (
        "<style>mmrec-recommendations:not(:defined) { display: block;"
        " min-height: calc(4rem + 8px + 5.3em + var(--mmrec-card-width, 11.5rem)) }</style>"
    )
    below = "<p>What stands below must stay where it is.</p>"
    gateway.pages["/a"] = page(tag(layout=layout, count="5", why="") + below, head=style + SHIFTS)
    if layout == "grid":
        made = gateway.pages["/a"]
        gateway.pages["/a"] = Page(made.html.replace(" defer>", ">"))
    tab = open_page("/a", viewport={"width": 1100, "height": 900})
    tab.locator(f"{CARDS} a").first.wait_for()
    items = gateway.current("ada", k=5)["items"]
    for item in (items[4], items[2], items[1]):
        gateway.push("ada", first=item["item_id"])
        await_first(tab, item["title"])
        tab.wait_for_timeout(450)  # Until the cards have glided.
    shown(tab, items[2]["item_id"]).focus()
    gateway.push("ada", first=items[3]["item_id"])
    await_first(tab, items[3]["title"])
    gateway.sell_out(items[3]["item_id"])
    shown(tab, items[3]["item_id"]).wait_for(state="detached")
    gateway.stop()
    tab.locator("mmrec-recommendations [part~=stale]").wait_for()
    gateway.start()
    tab.locator("mmrec-recommendations [part~=stale]").wait_for(state="detached", timeout=20_000)
    assert tab.evaluate("shifts") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("language", "direction"), [("en", "ltr"), ("ar", "rtl")])
def test_axe_finds_nothing(gateway: Gateway, open_page: OpenPage, scheme: str, language: str, direction: str) -> None:
    style = "<style>:root { color-scheme: light dark; background: Canvas; color: CanvasText }</style>"
    widgets = tag(why="") + tag(layout="grid", why="", surface="cart", heading="Also good")
    gateway.pages["/a"] = page(widgets, style, language, direction)
    tab = open_page("/a", color_scheme=scheme)
    tab.locator(f"{CARDS} a").nth(20).wait_for()
    assert axe(tab) == []
    tab.locator("[part=why]").first.click()
    gateway.stop()
    tab.locator("mmrec-recommendations [part~=stale]").first.wait_for()
    assert axe(tab) == []


def test_tabs_share_one_stream_and_one_takes_over(
    gateway: Gateway, open_page: OpenPage, new_context: Callable[..., "BrowserContext"]
) -> None:
    gateway.pages["/a"] = page(tag())
    context = new_context()
    tabs = [open_page("/a", context)]
    until(tabs[0], lambda: len(gateway.streams) == 1)
    tabs += [open_page("/a", context) for _ in range(2)]
    for tab in tabs:
        tab.locator(f"{CARDS} a").first.wait_for()
    item = gateway.current("ada")["items"][5]
    gateway.push("ada", first=item["item_id"])
    for tab in tabs:
        await_first(tab, item["title"])
    assert len(gateway.streams) == 1
    tabs[0].close()
    until(tabs[1], lambda: len(gateway.streams) == 1 and len([p for p in gateway.requests if "/v1/stream" in p]) == 2)
    other = gateway.current("ada")["items"][7]
    gateway.push("ada", first=other["item_id"])
    for tab in tabs[1:]:
        await_first(tab, other["title"])


def test_visitors_do_not_share_and_nobody_sees_the_list_of_the_last_one(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag())
    tab = open_page("/a")
    gateway.push("ada", first="item-010")
    shown(tab, "item-010").wait_for()
    tab.locator("mmrec-recommendations").evaluate("widget => widget.setAttribute('user', 'ben')")
    shown(tab, "item-010").wait_for(state="detached")
    tab.locator(f"{CARDS} a").first.wait_for()
    gateway.push("ada", first="item-010")
    gateway.push("ben", first="item-020")
    shown(tab, "item-020").wait_for()
    assert shown(tab, "item-010").count() == 0


def test_without_locks_each_tab_has_its_own_stream(
    gateway: Gateway, open_page: OpenPage, new_context: Callable[..., "BrowserContext"]
) -> None:
    old = f'<script nonce="{NONCE}">Object.defineProperty(navigator, "locks", {{ value: undefined }})</script>'
    gateway.pages["/a"] = page(tag(), head=old)
    context = new_context()
    tabs = [open_page("/a", context) for _ in range(2)]
    until(tabs[0], lambda: len(gateway.streams) == 2)


def jwt(user: str, expires: int, **more: bool) -> str:
    """A token as a shop would sign one; the widget reads it, this gateway knows it by heart."""
    from base64 import urlsafe_b64encode

    def part(value: Any) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part({'sub': user, 'exp': expires, **more})}.c2lnbmF0dXJl"


def test_a_token_provider_renews_what_the_gateway_refuses(gateway: Gateway, open_page: OpenPage) -> None:
    late = 4_102_444_800  # 2100: only the gateway can refuse these.
    first, second = jwt("ada", late), jwt("ada", late + 1)
    gateway.tokens = {first: "ada"}
    # Set before the element is defined: the script is deferred.
    provide = (
        f'<script nonce="{NONCE}">window.asked = 0; const given = {json.dumps([first, second])};'
        "document.addEventListener('readystatechange', () => { if (document.readyState === 'interactive')"
        " document.querySelector('mmrec-recommendations').tokenProvider = async () => given[asked++] })</script>"
    )
    gateway.pages["/a"] = page(tag().replace('user="ada"', ""), head=provide, Content_Security_Policy=STRICT)
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    until(tab, lambda: len(gateway.streams) == 1)
    assert tab.evaluate("asked") == 1
    gateway.stop()
    gateway.tokens = {second: "ada"}  # The first one has run out meanwhile.
    gateway.start()
    until(tab, lambda: len(gateway.streams) == 1, within_s=20)
    assert tab.evaluate("asked") == 2
    gateway.push("ada", first="item-010")
    shown(tab, "item-010").wait_for()
    assert not any(first in path or second in path for path in gateway.requests)


def test_when_somebody_else_signs_in_nothing_of_the_one_becomes_the_others(
    gateway: Gateway, open_page: OpenPage
) -> None:
    late = 4_102_444_800
    ada, ben = jwt("ada", late), jwt("ben", late)
    gateway.tokens = {ada: "ada", ben: "ben"}
    gateway.pages["/a"] = page(tag().replace('user="ada"', ""))
    tab = open_page("/a")
    tab.evaluate(
        "token => { window.token = token;"
        " document.querySelector('mmrec-recommendations').tokenProvider = async () => window.token }",
        ada,
    )
    gateway.push("ada", first="item-010")
    shown(tab, "item-010").wait_for()
    gateway.stop()
    tab.locator("mmrec-recommendations [part~=stale]").wait_for()
    tab.evaluate("() => document.querySelector('mmrec-recommendations').track({type: 'view', item_id: 'item-011'})")
    tab.evaluate("token => { window.token = token }", ben)  # The page is told nothing but the new token.
    gateway.tokens = {ben: "ben"}
    gateway.start()
    until(tab, lambda: gateway.streams == ["ben"], within_s=20)
    gateway.push("ben", first="item-020")
    shown(tab, "item-020").wait_for()
    assert shown(tab, "item-010").count() == 0
    assert gateway.of("view") == []


def test_consent_that_is_taken_back_holds_on_the_open_page(gateway: Gateway, open_page: OpenPage) -> None:
    late = 4_102_444_800
    given, withdrawn = jwt("ada", late), jwt("ada", late, consent=False)
    gateway.tokens = {given: "ada", withdrawn: ""}  # Without consent nobody is known.
    gateway.pages["/a"] = page(tag(token=given).replace('user="ada"', ""))
    tab = open_page("/a")
    gateway.push("ada", first="item-010")
    shown(tab, "item-010").wait_for()
    tab.evaluate("token => document.querySelector('mmrec-recommendations').setAttribute('token', token)", withdrawn)
    until(tab, lambda: gateway.streams == [""])
    gateway.push("", first="item-020")
    shown(tab, "item-020").wait_for()
    assert shown(tab, "item-010").count() == 0
    tab.evaluate("() => document.querySelector('mmrec-recommendations').track({type: 'view', item_id: 'item-011'})")
    (view,) = until(tab, lambda: gateway.of("view"))
    assert view["user"] == ""
    tab.evaluate("token => document.querySelector('mmrec-recommendations').setAttribute('token', token)", given)
    until(tab, lambda: gateway.streams == ["ada"])


def test_a_foreign_token_gets_no_list(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.tokens = {jwt("ada", 4_102_444_800): "ada"}
    listen = (
        f"<script nonce='{NONCE}'>window.errors = [];"
        "addEventListener('mmrec:error', ({ detail }) => errors.push(detail))</script>"
    )
    gateway.pages["/a"] = page(tag(token=jwt("eve", 4_102_444_800)), head=listen)
    tab = open_page("/a")
    (error, *_) = until(tab, lambda: tab.evaluate("errors"))
    assert error["status"] == 401
    assert error["retryIn"] >= 500
    assert tab.locator(f"{CARDS} a").count() == 0
    assert gateway.streams == []


def test_not_personalised_is_one_attribute(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.tokens = {}
    gateway.pages["/a"] = page(tag(personalised="false", token=jwt("ada", 4_102_444_800)))
    tab = open_page("/a")
    tab.get_by_role("region", name="Popular right now").wait_for()
    tab.evaluate("() => addEventListener('mmrec:click', event => event.preventDefault())")
    tab.locator(f"{CARDS} a").first.click()
    tab.wait_for_timeout(1_500)  # Nothing may happen: there is nothing to wait for.
    asked = [path for path in gateway.requests if path.startswith("/v1/") and "/image" not in path]
    assert asked == ["/v1/recommendations?surface=home&k=12&personalised=0"]


def test_right_to_left(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag(), language="ar", direction="rtl")
    tab = open_page("/a")
    tab.get_by_role("region", name="الأكثر رواجًا الآن").wait_for()
    boxes = [card.bounding_box() for card in tab.locator(CARDS).all()[:2]]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["x"] > boxes[1]["x"]
    tab.locator(f"{CARDS} a").first.focus()
    tab.keyboard.press("ArrowLeft")
    focused = "() => document.activeElement.shadowRoot.activeElement.querySelector('[part=title]').textContent"
    assert tab.evaluate(focused) == titles(tab)[1]
    assert tab.get_by_role("button", name="السابق").is_disabled()
    tab.get_by_role("button", name="التالي").click()
    tab.wait_for_function(
        "() => document.querySelector('mmrec-recommendations').shadowRoot.querySelector('ul').scrollLeft < -100"
    )
    until(tab, lambda: tab.get_by_role("button", name="السابق").is_enabled())


def test_texts_and_language_of_ones_own(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag(lang="de") + tag(lang="pl", heading_level="3"))
    tab = open_page("/a")
    tab.get_by_role("region", name="Gerade beliebt").wait_for()
    item = gateway.current("ada")["items"][0]
    price = f"{item['price']:.2f} €".replace(".", ",")
    assert tab.locator("[part=price]").first.inner_text().replace("\xa0", " ") == price
    second = tab.locator("mmrec-recommendations").nth(1)
    second.evaluate("widget => widget.texts = { popular: 'Teraz popularne' }")
    second.get_by_role("heading", name="Teraz popularne", level=3).wait_for()


@pytest.mark.parametrize(("language", "direction"), [("en", "ltr"), ("ar", "rtl")])
@pytest.mark.parametrize("layout", ["row", "grid"])
def test_twice_as_large_still_fits(
    gateway: Gateway, open_page: OpenPage, layout: str, language: str, direction: str
) -> None:
    gateway.pages["/a"] = page(tag(layout=layout, why=""), language=language, direction=direction)
    # What 200 % does to a window of 1280 × 800; and the same for text alone.
    tab = open_page("/a", viewport={"width": 640, "height": 400}, device_scale_factor=2)
    tab.locator(f"{CARDS} a").first.wait_for()
    for size in ("100%", "200%"):
        tab.evaluate("size => document.documentElement.style.fontSize = size", size)
        assert tab.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        box = tab.locator(CARDS).first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 640
        price = tab.locator(f"{CARDS} [part=price]").first.bounding_box()
        assert price is not None
        assert price["y"] + price["height"] <= box["y"] + box["height"] + 1


@pytest.mark.parametrize(("motion", "moves"), [("no-preference", True), ("reduce", False)])
def test_cards_glide_only_where_motion_is_welcome(
    gateway: Gateway, open_page: OpenPage, motion: str, moves: bool
) -> None:
    count = (
        f'<script nonce="{NONCE}">window.animations = 0; const animate = Element.prototype.animate;'
        "Element.prototype.animate = function (...args) { animations++; return animate.apply(this, args) }</script>"
    )
    gateway.pages["/a"] = page(tag(), head=count)
    tab = open_page("/a", reduced_motion=motion)
    tab.locator(f"{CARDS} a").first.wait_for()
    item = gateway.current("ada")["items"][4]
    gateway.push("ada", first=item["item_id"])
    await_first(tab, item["title"])
    assert (tab.evaluate("animations") > 0) is moves


def test_ones_own_card_and_theme(gateway: Gateway, open_page: OpenPage) -> None:
    style = (
        "<style>mmrec-recommendations { --mmrec-card-width: 20rem; --mmrec-radius: 0 }"
        " mmrec-recommendations::part(name) { color: rgb(1, 2, 3) }</style>"
    )
    template = '<template><a data-mmrec="card"><strong part="name" data-mmrec="title"></strong></a></template>'
    gateway.pages["/a"] = page(tag().replace("></mmrec", f">{template}</mmrec"), head=style)
    tab = open_page("/a")
    name = tab.locator(f"{CARDS} [part=name]").first
    name.wait_for()
    item = gateway.current("ada")["items"][0]
    assert name.inner_text() == item["title"]
    assert name.evaluate("name => getComputedStyle(name).color") == "rgb(1, 2, 3)"
    box = tab.locator(CARDS).first.bounding_box()
    assert box is not None
    assert box["width"] == 320
    assert shown(tab, item["item_id"]).count() == 1
    assert tab.locator("[part=price]").count() == 0


def test_a_catalogue_cannot_put_script_into_the_page(gateway: Gateway, open_page: OpenPage) -> None:
    attack = "javascript:window.hit=1"
    gateway.alter = lambda card: (
        card
        | {
            "url": attack,
            "image": attack,
            "title": "<img src=x onerror=window.hit=1>",
            "currency": "no currency",
        }
    )
    gateway.pages["/a"] = page(tag(), Content_Security_Policy=STRICT)
    tab = open_page("/a")
    link = tab.locator(f"{CARDS} a").first
    link.wait_for()
    assert link.get_attribute("href") is None
    assert titles(tab)[0] == "<img src=x onerror=window.hit=1>"
    link.click()
    assert tab.evaluate("window.hit") is None


def test_it_says_once_that_something_changed(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag())
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    spoken = (
        "() => { window.spoken = []; const status = document.querySelector('mmrec-recommendations').shadowRoot"
        ".querySelector('[role=status]'); new MutationObserver(() => status.textContent && spoken.push("
        "status.textContent)).observe(status, { childList: true, characterData: true, subtree: true }) }"
    )
    tab.evaluate(spoken)
    for position in (3, 6, 9):
        item = gateway.current("ada")["items"][position]
        gateway.push("ada", first=item["item_id"])
        await_first(tab, item["title"])
    assert tab.evaluate("spoken") == ["Recommendations updated"]


def test_a_click_hits_what_was_seen_though_a_list_comes_between(gateway: Gateway, open_page: OpenPage) -> None:
    gateway.pages["/a"] = page(tag())
    tab = open_page("/a")
    tab.locator(f"{CARDS} a").first.wait_for()
    tab.evaluate("() => addEventListener('mmrec:click', event => event.preventDefault())")
    made = gateway.current("ada")
    box = tab.locator(f"{CARDS} a").first.bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + 60, box["y"] + 60)
    tab.mouse.down()
    gateway.push("ada", first=made["items"][5]["item_id"])
    tab.wait_for_timeout(300)  # The list is there, and held.
    assert titles(tab)[0] == made["items"][0]["title"]
    tab.mouse.up()
    (click,) = until(tab, lambda: gateway.of("click"))
    assert (click["item_id"], click["list_id"], click["position"]) == (
        made["items"][0]["item_id"],
        made["list_id"],
        0,
    )
