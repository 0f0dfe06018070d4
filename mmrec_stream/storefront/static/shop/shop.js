// The demo shop: routes by the address after "#", and the parts around the page (search, shopper, cart, theme).
import { ask, signIn, visitor } from "./api.js";
import { showCount } from "./cart.js";
import { h, offer, toast } from "./dom.js";
import * as pages from "./pages.js";
import * as panel from "./panel.js";

const main = document.getElementById("main");
const THEMES = { "": "automatic", light: "light", dark: "dark" };

const shop = { can: [], shoppers: [], actions: [], categories: [] };
let shown = 0;

const ROUTES = [
  [/^$/, pages.home],
  [/^category\/(?<id>[^/]+)$/, pages.category],
  [/^product\/(?<id>[^/]+)$/, pages.product],
  [/^search\/(?<q>.+)$/, pages.search],
  [/^cart$/, pages.basket],
  [/^checkout$/, pages.checkout],
  [/^thanks\/(?<id>[^/]+)$/, pages.thanks],
  [/^about$/, pages.about],
];

async function route({ moved = true } = {}) {
  const mine = ++shown;
  const path = location.hash.replace(/^#\/?/, "");
  const [match, page] = ROUTES.map(([pattern, page]) => [path.match(pattern), page]).find(([match]) => match) || [null, pages.missing];
  const parameters = Object.fromEntries(Object.entries(match?.groups || {}).map(([name, value]) => [name, decodeURIComponent(value)]));
  let made;
  try {
    made = await page(shop, parameters);
  } catch (error) {
    made = { title: "Not reachable", content: [h("h1", {}, "The shop does not answer."), h("p", {}, error.message), h("button", { type: "button", click: () => route() }, "Try again")] };
  }
  if (mine !== shown) return; // The visitor has gone on meanwhile.
  main.replaceChildren(...made.content.filter(Boolean));
  made.after?.();
  document.title = `${made.title} · ${shop.name || "Kiosk"}`;
  for (const link of document.querySelectorAll("#categories a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!moved) return;
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
}

function offerShoppers() {
  const label = document.getElementById("shopper");
  const select = label.querySelector("select");
  const known = shop.shoppers.some(({ user }) => user === visitor.user);
  if (visitor.user && !known) shop.shoppers.push({ user: visitor.user, text: "" });
  select.replaceChildren(
    h("option", { value: "" }, "Visitor"),
    ...shop.shoppers.map(({ user, text }) => h("option", { value: user }, text ? `${user}: ${text}` : user)),
  );
  select.value = visitor.user || "";
  select.addEventListener("change", async () => {
    try {
      await signIn(select.value, shop.can.includes("join"));
    } catch (error) {
      toast(error.message);
      select.value = visitor.user || "";
      return;
    }
    showCount();
    panel.forget();
    toast(visitor.user ? `You are ${visitor.user} now.` : "You are a visitor now.");
    route({ moved: false });
  });
  offer(label, shop.shoppers.length > 0);
}

function offerCatalogue() {
  const nav = document.getElementById("categories");
  nav.replaceChildren(...shop.categories.map(({ id, title }) => h("a", { href: `#/category/${encodeURIComponent(id)}` }, title)));
  const form = document.getElementById("search");
  offer(form, shop.can.includes("catalogue"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const words = form.elements.q.value.trim();
    if (words) location.hash = `#/search/${encodeURIComponent(words)}`;
  });
}

function offerThemes() {
  const button = document.getElementById("theme");
  const show = () => {
    const chosen = document.documentElement.dataset.theme || "";
    button.textContent = `Theme: ${THEMES[chosen]}`;
  };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme || "") + 1) % names.length];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    localStorage.setItem("theme", next);
    show();
  });
  show();
}

// The gateway has nothing of that kind: the row is not needed.
document.addEventListener("mmrec:list", ({ target, detail }) => target.toggleAttribute("hidden", !detail.list.items.length));

async function start() {
  offerThemes();
  showCount();
  try {
    Object.assign(shop, await ask("v1/shop"));
    if (shop.can.includes("catalogue")) shop.categories = (await ask("v1/categories"))?.categories || [];
  } catch (error) {
    toast(error.message);
  }
  if (shop.name) document.getElementById("shop-name").textContent = shop.name;
  offerShoppers();
  offerCatalogue();
  panel.start(shop);
  addEventListener("hashchange", () => location.hash.startsWith("#/") && route());
  await route({ moved: false });
}

start();
