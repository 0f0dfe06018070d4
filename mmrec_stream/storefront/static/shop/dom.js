// Small helpers for pages that are built, never written as HTML.

/** An element: `h("a.card", { href }, "text", child)`; functions become listeners, `null` children are left out. */
export function h(selector, properties = {}, ...children) {
  const [name, ...classes] = selector.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value != null && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return made;
}

export const money = (price, currency) =>
  price == null ? "" : new Intl.NumberFormat("en", currency ? { style: "currency", currency } : { minimumFractionDigits: 2 }).format(price);

export const label = (category) => {
  const name = category?.split(".").at(-1) || "";
  return name && name[0].toUpperCase() + name.slice(1);
};

/** Show a control whose place was kept, or give its place up. */
export function offer(control, there) {
  control.classList.remove("pending");
  control.hidden = !there;
}

let timer;

/** A short message that goes by itself. */
export function toast(text, ...more) {
  const place = document.getElementById("toast");
  place.replaceChildren(text, ...more);
  place.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => place.classList.remove("shown"), 5_000);
}
