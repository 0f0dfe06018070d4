// The pages: each function builds one and returns its title, its content, and what is to be done once it is shown.
import { ask, gateway, recommendations, track } from "./api.js";
import * as cart from "./cart.js";
import { h, label, money, toast } from "./dom.js";

const PAGE = 24;

const picture = (item, size) =>
  h("span.picture", {}, item.image && URL.canParse(item.image, gateway) ? h("img", { src: new URL(item.image, gateway), alt: "", width: size, height: size, loading: "lazy" }) : null);

const card = (item) =>
  h(
    `a.card${item.in_stock === false ? ".gone" : ""}`,
    { href: `#/product/${encodeURIComponent(item.item_id)}` },
    picture(item, 240),
    h("span.brand", {}, item.brand || ""),
    h("span.title", {}, item.title || item.item_id),
    h("span.price", {}, item.in_stock === false ? "Sold out" : money(item.price, item.currency)),
  );

const blanks = (count) => Array.from({ length: count }, () => h("span.card.blank", { "aria-hidden": "true" }, h("span.picture"), h("span.brand"), h("span.title"), h("span.price")));

/** A grid that fills from the catalogue, with a button for more. */
function shelf(parameters) {
  const grid = h("div.grid", {}, blanks(8));
  const found = h("p.found", { role: "status" }, "…");
  const more = h("button", { type: "button", class: "more", hidden: true, click: () => load() }, "Show more");
  let offset = 0;
  async function load() {
    const answer = await ask("v1/catalogue", { ...parameters, offset, limit: PAGE });
    const items = answer?.items || [];
    if (!offset) grid.replaceChildren();
    grid.append(...items.map(card));
    offset += items.length;
    found.textContent = `${answer?.total || 0} products`;
    more.hidden = !items.length || offset >= answer.total;
  }
  load().catch((error) => (grid.replaceChildren(), (found.textContent = error.message)));
  return { grid, found, more };
}

export function home({ categories }) {
  const tiles = categories.map((category) =>
    h("a.tile", { href: `#/category/${encodeURIComponent(category.id)}` }, picture(category, 160), h("span", {}, category.title), h("small", {}, `${category.count}`)),
  );
  const hero = h(
    "section.hero",
    {},
    h("div", {}, h("h1", {}, "A shop that follows you."), h("p", {}, "Open a product, put one in the cart: what is shown here changes while you look, a few milliseconds after every click.")),
    h("div.collage", { "aria-hidden": "true" }, categories.slice(0, 5).map((category) => picture(category, 160))),
  );
  return {
    title: "Home",
    content: [
      hero,
      recommendations({ surface: "home", count: 12, why: "" }),
      tiles.length ? h("section", {}, h("h2", {}, "Browse"), h("div.tiles", {}, tiles)) : null,
      recommendations({ surface: "home", count: 12, layout: "grid", personalised: "false", heading: "What everybody looks at" }),
    ],
  };
}

export function category({ categories }, { id }) {
  const title = categories.find((one) => one.id === id)?.title || label(id);
  const { grid, found, more } = shelf({ category: id });
  return {
    title,
    content: [h("header.head", {}, h("h1", {}, title), found), grid, more, recommendations({ surface: "home", count: 12, why: "" })],
  };
}

export function search(_shop, { q }) {
  const { grid, found, more } = shelf({ q });
  return {
    title: `Search: ${q}`,
    content: [h("header.head", {}, h("h1", {}, `“${q}”`), found), grid, more, recommendations({ surface: "home", count: 12, why: "" })],
  };
}

export async function product({ can }, { id }) {
  const item = await ask(`v1/items/${encodeURIComponent(id)}`);
  if (!item) return missing();
  const buy = h("button.primary", { type: "button", click: () => (cart.add(item), toast("In your cart. ", h("a", { href: "#/cart" }, "Show it"))) }, "Add to cart");
  const stock = h("p.stock");
  const flip = h("button.demo", { type: "button", click: () => setStock(sellable() ? 0 : 25) });
  const sellable = () => item.in_stock !== false;
  function show() {
    buy.disabled = !sellable();
    stock.textContent = sellable() ? (item.stock ? `In stock: ${item.stock}` : "In stock") : "Sold out";
    stock.classList.toggle("gone", !sellable());
    flip.textContent = sellable() ? "Demo: sell it out" : "Demo: stock it again";
  }
  async function setStock(amount) {
    try {
      await ask(`v1/items/${encodeURIComponent(id)}`, {}, { method: "PATCH", body: { stock: amount } });
      Object.assign(item, { stock: amount, in_stock: amount > 0 });
      toast(amount ? "Back in stock: it may be recommended again." : "Sold out: it leaves every list now.");
      show();
    } catch (error) {
      toast(error.message);
    }
  }
  show();
  const facts = h(
    "div.facts",
    {},
    item.category ? h("a.crumb", { href: `#/category/${encodeURIComponent(item.category)}` }, label(item.category)) : null,
    h("h1", {}, item.title || item.item_id),
    item.brand ? h("p.brand", {}, item.brand) : null,
    h("p.price", {}, money(item.price, item.currency)),
    h("p", {}, item.description || ""),
    item.tags?.length ? h("ul.tags", { "aria-label": "Tags" }, item.tags.map((tag) => h("li", {}, tag))) : null,
    stock,
    h("div.buttons", {}, buy, can.includes("stock") ? flip : null),
  );
  return {
    title: item.title || item.item_id,
    // Once the page is there: the rows on it change before the visitor's eyes.
    after: () => track("view", id, { surface: "product" }),
    content: [
      h("article.product", {}, picture(item, 480), facts),
      recommendations({ surface: "product", item: id, kind: "complementary", count: 6, why: "" }),
      recommendations({ surface: "home", count: 12, why: "" }),
      recommendations({ surface: "product", item: id, kind: "similar", count: 12, why: "" }),
    ],
  };
}

export function basket(shop) {
  const place = h("div");
  const ids = () => cart.lines().map(({ item }) => item.item_id).join();
  const beside = ids() ? recommendations({ surface: "cart", items: ids(), count: 6, why: "" }) : null;
  function show() {
    const lines = cart.lines();
    if (beside) beside.hidden = !lines.length;
    if (lines.length) beside?.setAttribute("items", ids());
    const row = ({ item, quantity }) =>
      h(
        "li",
        {},
        picture(item, 96),
        h("span.what", {}, h("a", { href: `#/product/${encodeURIComponent(item.item_id)}` }, item.title), h("small", {}, item.brand || "")),
        h("span.quantity", {}, `${quantity} ×`),
        h("span.price", {}, money(item.price, item.currency)),
        h("button.quiet", { type: "button", "aria-label": `Remove ${item.title}`, click: () => (cart.remove(item.item_id), show()) }, "Remove"),
      );
    place.replaceChildren(
      ...(lines.length
        ? [
            h("ul.lines", {}, lines.map(row)),
            h("p.total", {}, h("span", {}, "Total"), h("b", {}, money(cart.total(), lines[0].item.currency))),
            h("a.primary", { href: "#/checkout" }, "Check out"),
          ]
        : [h("p.empty", {}, "Nothing in here yet.")]),
    );
  }
  show();
  return {
    title: "Cart",
    content: [
      h("h1", {}, "Your cart"),
      place,
      beside,
      recommendations({ surface: "home", count: 12, why: "" }),
    ],
  };
}

export function checkout() {
  const lines = cart.lines();
  if (!lines.length) return basket();
  const field = (name, text, autocomplete, value) =>
    h("label", {}, h("span", {}, text), h("input", { name, autocomplete, value, required: true }));
  const send = async (event) => {
    event.preventDefault();
    const { order_id } = await cart.buy();
    location.hash = `#/thanks/${order_id}`;
  };
  const form = h(
    "form.checkout",
    { submit: send },
    h("p.hint", {}, "A demo: what stands here is not sent anywhere. Buying is reported as purchase events."),
    field("name", "Name", "name", "Ada Example"),
    field("street", "Street", "street-address", "1 Analytical Row"),
    field("city", "City", "address-level2", "London"),
    h("button.primary", { type: "submit" }, `Buy for ${money(cart.total(), lines[0].item.currency)}`),
  );
  const summary = h("ul.lines.small", {}, lines.map(({ item, quantity }) => h("li", {}, picture(item, 64), h("span.what", {}, item.title), h("span", {}, `${quantity} ×`), h("span.price", {}, money(item.price, item.currency)))));
  return { title: "Checkout", content: [h("h1", {}, "Checkout"), h("div.two", {}, form, h("section", {}, h("h2", {}, "Your order"), summary))] };
}

export function thanks(_shop, { id }) {
  return {
    title: "Thank you",
    content: [
      h("section.hero.thanks", {}, h("div", {}, h("h1", {}, "Thank you!"), h("p", {}, `${id} is on its imaginary way. What you bought is no longer recommended to you; what goes with it is.`))),
      recommendations({ surface: "home", count: 12, why: "", heading: "Now that you have that" }),
    ],
  };
}

export async function about() {
  const why = await ask("v1/why");
  const share = (weight) => (weight == null ? "" : ` (${Math.round(weight * 100)} %)`);
  const rows = (given) => (given || []).map(({ name, text, weight }) => [h("dt", {}, label(name.replaceAll("_", " ")) + share(weight)), h("dd", {}, text)]);
  return {
    title: "How recommendations are made",
    content: [
      h("h1", {}, "How recommendations are made"),
      h("div.prose", {}, h("p", {}, why?.text || ""), h("dl", {}, rows(why?.parameters)), why?.options ? [h("h2", {}, "What you can choose"), h("dl", {}, rows(why.options))] : null),
      recommendations({ surface: "home", count: 12, layout: "grid", personalised: "false", heading: "What everybody sees without a profile" }),
    ],
  };
}

export const missing = () => ({ title: "Not found", content: [h("h1", {}, "There is nothing here."), h("p", {}, h("a", { href: "#/" }, "Back to the shop"))] });
