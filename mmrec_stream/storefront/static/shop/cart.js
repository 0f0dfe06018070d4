// The cart: kept in the browser for each shopper, its changes reported as events.
import { track, visitor } from "./api.js";

const key = () => `cart:${visitor.user || visitor.session}`;

/** Lines of `{item, quantity}`. */
export const lines = () => JSON.parse(localStorage.getItem(key()) || "[]");

function keep(changed) {
  localStorage.setItem(key(), JSON.stringify(changed));
  showCount();
}

export function showCount() {
  document.getElementById("count").textContent = lines().reduce((sum, { quantity }) => sum + quantity, 0);
}

export const total = () => lines().reduce((sum, { item, quantity }) => sum + (item.price || 0) * quantity, 0);

export function add({ item_id, title, price, currency, image, brand }) {
  const all = lines();
  const there = all.find(({ item }) => item.item_id === item_id);
  if (there) there.quantity += 1;
  else all.push({ item: { item_id, title, price, currency, image, brand }, quantity: 1 });
  keep(all);
  track("add_to_cart", item_id, { surface: "product" });
}

export function remove(item_id) {
  keep(lines().filter(({ item }) => item.item_id !== item_id));
  track("remove_from_cart", item_id, { surface: "cart" });
}

/** Buy everything: one event a line, as the contract wants it. */
export async function buy() {
  const order_id = `order-${Date.now().toString(36)}`;
  const bought = lines();
  await Promise.all(
    bought.map(({ item, quantity }) => track("purchase", item.item_id, { quantity, order_id, surface: "cart" })),
  );
  keep([]);
  return { order_id, bought };
}
