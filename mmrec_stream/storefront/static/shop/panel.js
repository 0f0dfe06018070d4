// The panel: what the pipeline knows of this visitor, and where the milliseconds of the newest list went.
import { ask } from "./api.js";
import { h, offer, toast } from "./dom.js";
import { publishDialog } from "./publish.js";

const EVERY_MS = 3_000;
const KEPT = 40;

const STEPS = [
  ["appended", "into the log"],
  ["fetched", "fetched"],
  ["folded", "folded"],
  ["scored", "scored"],
  ["published", "published"],
  ["received", "at the gateway"],
  ["sent", "sent"],
  ["painted", "on screen"],
];

const place = document.getElementById("panel");
const toggle = document.getElementById("panel-toggle");
const latencies = [];
let shop;
let times = null;
let asked = 0;
let told = null;

/** From the event to the repainted page, step by step: `[name, text, ms]`. A step that nobody timed joins the next. */
export function steps(times) {
  const rows = [];
  let before = times.event;
  for (const [name, text] of STEPS) {
    if (times[name] == null) continue;
    rows.push([name, text, Math.max(times[name] - before, 0)]);
    before = Math.max(times[name], before);
  }
  return rows;
}

const bar = (part, text, value) => {
  const fill = h("span.fill");
  fill.style.inlineSize = `${Math.round(Math.min(Math.max(part, 0), 1) * 100)}%`;
  return h("li.bar", {}, h("span.name", {}, text), h("span.track", { "aria-hidden": "true" }, fill), h("span.value", {}, value));
};

const percent = (share) => `${Math.round(share * 100)} %`;
const ms = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;

function clock() {
  if (!times) return h("section", {}, h("h3", {}, "Event to screen"), h("p.hint", {}, "Click on something: the way of your event will be timed here."));
  const rows = steps(times);
  const whole = rows.reduce((sum, [, , value]) => sum + value, 0);
  const stack = h("div.stack", { "aria-hidden": "true" }, rows.map(([name, , value]) => {
    const piece = h(`span.${name}`);
    piece.style.flexGrow = String(Math.max(value, whole / 100));
    return piece;
  }));
  const sorted = [...latencies].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  return h(
    "section",
    {},
    h("h3", {}, "Event to screen"),
    h("p.big", {}, ms(whole), h("small", {}, `median of ${sorted.length}: ${ms(median)}`)),
    stack,
    h("ol.steps", {}, rows.map(([name, text, value]) => h("li", {}, h(`i.${name}`, { "aria-hidden": "true" }), text, h("b", {}, ms(value))))),
  );
}

function mix({ alpha, strategy }) {
  if (alpha == null) return null;
  const user = h("span.user", {}, percent(alpha));
  const item = h("span.item", {}, percent(1 - alpha));
  user.style.flexGrow = String(alpha);
  item.style.flexGrow = String(1 - alpha);
  return h(
    "section",
    {},
    h("h3", {}, "The mix"),
    h("p.formula", {}, `p = α·p_user + (1 − α)·p_item, α = ${alpha.toFixed(2)}`, strategy ? h("small", {}, strategy) : null),
    h("div.mix", {}, alpha > 0 ? user : null, alpha < 1 ? item : null),
    h("p.legend", {}, h("span", {}, "your history"), h("span", {}, "the items")),
  );
}

const tastes = ({ tastes }) =>
  tastes?.length
    ? h("section", {}, h("h3", {}, "Your tastes"), h("ul.bars", {}, tastes.map(({ kind, name, weight }) => bar(weight, `${name.split(".").at(-1)}`, kind))))
    : null;

const modalities = ({ modalities, modalities_of }) =>
  modalities?.length
    ? h("section", {}, h("h3", {}, modalities_of === "list" ? "What spoke for this list" : "What the release goes by"), h("ul.bars", {}, modalities.map(({ name, share }) => bar(share, name, percent(share)))))
    : null;

function ago(ts) {
  const seconds = Math.max(Math.round((Date.now() - ts) / 1_000), 0);
  return seconds < 60 ? `${seconds} s` : seconds < 3_600 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

const events = ({ events }) =>
  events?.length
    ? h(
        "section",
        {},
        h("h3", {}, "Your last events"),
        h("ol.events", {}, events.slice(0, 8).map(({ type, item_id, title, ts }) => h("li", {}, h("code", {}, type.replaceAll("_", " ")), h("a", { href: `#/product/${encodeURIComponent(item_id)}` }, title || item_id), h("small", {}, ago(ts))))),
      )
    : null;

function facts({ release, list_release, workers, lag, training_s }) {
  const older = list_release && list_release !== release && list_release !== "none" ? list_release : null;
  const rows = [
    ["Release", release],
    ["Your list is of", older],
    ["Training", training_s == null ? null : `since ${training_s} s`],
    ["Workers", workers],
    ["Waiting events", lag?.events],
  ].filter(([, value]) => value != null);
  return rows.length ? h("section", {}, h("h3", {}, "Running"), h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]))) : null;
}

const happened = ({ happenings }) =>
  happenings?.length
    ? h("section", {}, h("h3", {}, "What happened"), h("ol.happened", {}, happenings.slice(-5).reverse().map(({ text, ts }) => h("li", {}, text, h("small", {}, ago(ts))))))
    : null;

/** What has happened since the page was opened is said once, on every page of the shop. */
function say({ happenings }) {
  const newest = happenings?.at(-1);
  if (newest && told != null && newest.number > told) toast(newest.text);
  told = newest?.number || 0;
}

function controls() {
  const run = ({ title, path }) =>
    h("button", { type: "button", click: async ({ currentTarget: button }) => {
      button.disabled = true;
      try {
        toast((await ask(path.replace(/^\//, ""), {}, { method: "POST", body: {} }))?.text || "Done.");
        refresh();
      } catch (error) {
        toast(error.message);
      }
      button.disabled = false;
    } }, title);
  const publish = shop.can.includes("publish") ? h("button", { type: "button", click: () => publishDialog(shop) }, "Publish a product…") : null;
  const buttons = [publish, ...(shop.actions || []).map(run)].filter(Boolean);
  return buttons.length ? h("section.controls", {}, buttons) : null;
}

const timing = h("div");
const knowledge = h("div");

async function refresh() {
  if (place.hidden && !shop.actions?.length) return;
  const mine = ++asked;
  try {
    const data = (await ask("v1/panel")) || {};
    if (mine !== asked) return; // A newer question has been asked meanwhile.
    knowledge.replaceChildren(...[facts, happened, mix, tastes, modalities, events].map((part) => part(data)).filter(Boolean));
    place.classList.remove("stale");
    say(data);
  } catch {
    place.classList.add("stale");
  }
}

function show(open) {
  place.hidden = !open;
  document.body.classList.toggle("with-panel", open);
  toggle.setAttribute("aria-expanded", String(open));
  localStorage.setItem("panel", open ? "open" : "");
  refresh();
}

/** Lists that this visitor's own click has caused are timed; others (a restart, a new product) have no beginning. */
function timed({ detail: { list, painted } }) {
  if (list.times && list.personalised && painted && painted - list.times.event < 60_000 && list.times.event !== times?.event) {
    times = { ...list.times, painted };
    latencies.push(painted - times.event);
    latencies.splice(0, latencies.length - KEPT);
    timing.replaceChildren(clock());
  }
  refresh();
}

/** Another visitor: nothing of the last one may stay. */
export function forget() {
  times = null;
  latencies.length = 0;
  timing.replaceChildren(clock());
  knowledge.replaceChildren();
  refresh();
}

export function start(given) {
  shop = given;
  offer(toggle, shop.can.includes("panel"));
  if (toggle.hidden) return;
  const close = h("button.quiet", { type: "button", "aria-label": "Close the panel", click: () => (show(false), toggle.focus()) }, "×");
  place.replaceChildren(...[h("header", {}, h("h2", {}, "Pipeline, live"), close), controls(), timing, knowledge].filter(Boolean));
  timing.replaceChildren(clock());
  toggle.addEventListener("click", () => show(place.hidden));
  document.addEventListener("mmrec:list", timed);
  setInterval(refresh, EVERY_MS);
  // `mmrec demo` opens the shop with `?panel`: where there is room for it, it is the first thing to see.
  const stored = localStorage.getItem("panel");
  show(stored === null ? new URLSearchParams(location.search).has("panel") && innerWidth > 1_100 : stored === "open");
}
