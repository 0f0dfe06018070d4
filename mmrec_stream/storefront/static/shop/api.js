// What the shop asks of the gateway, and who is asking.

/** The gateway serves this folder as `shop/`. */
export const gateway = new URL("../", document.baseURI);

const stored = (name, make) => {
  if (!localStorage.getItem(name)) localStorage.setItem(name, make());
  return localStorage.getItem(name);
};

/** The visitor: `user` once signed in, `session` before that. */
export const visitor = {
  session: stored("session", () => `visitor-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`),
  user: localStorage.getItem("user"),
  /** The attributes and query parameters that say who this is. */
  get identity() {
    return this.user ? { user: this.user } : { session: this.session };
  },
};

/** `GET` (or `method`) a path of the gateway as JSON; null where it has none. */
export async function ask(path, parameters = {}, { method = "GET", body } = {}) {
  const url = new URL(path, gateway);
  for (const [name, value] of Object.entries({ ...parameters, ...visitor.identity })) url.searchParams.set(name, value);
  const headers = body ? { "Content-Type": "application/json" } : {};
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body), credentials: "omit" });
  if (response.status === 404) return null;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error?.message || `The gateway answered ${response.status}.`);
  return answer;
}

/** A row or grid of recommendations for this visitor. */
export function recommendations(attributes) {
  const made = document.createElement("mmrec-recommendations");
  const all = { gateway: gateway.href, url: "#/product/{id}", lang: "en", ...visitor.identity, ...attributes };
  for (const [name, value] of Object.entries(all)) made.setAttribute(name, value);
  return made;
}

/** Report what the visitor did; the widget keeps it until the gateway has it. */
export const track = (type, item_id, more = {}) => recommendations({}).track({ type, item_id, ...more });

/** Sign in as somebody, or out: what the session did comes along where the gateway can join the two. */
export async function signIn(user, join) {
  if (user && !visitor.user && join) {
    await ask("v1/sessions/join", { user, session: visitor.session }, { method: "POST", body: { user, session: visitor.session } });
  }
  visitor.user = user || null;
  if (user) localStorage.setItem("user", user);
  else localStorage.removeItem("user");
}
