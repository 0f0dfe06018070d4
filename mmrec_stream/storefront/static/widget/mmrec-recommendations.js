/*! <mmrec-recommendations>: see README.md. Apache-2.0. */
(() => {
  "use strict";
  const TAG = "mmrec-recommendations";
  if (!globalThis.customElements || customElements.get(TAG)) return;

  const TEXTS = {
    en:
      "Picked for you|You may also like|Before you go|Popular right now|Similar products|Goes well with|" +
      "Others also looked at|Why this?|Back|Forward|Recommendations updated|" +
      "Recommendations are not available right now.|Nothing to recommend yet.",
    de:
      "Für Sie ausgewählt|Das könnte Ihnen gefallen|Bevor Sie gehen|Gerade beliebt|Ähnliche Produkte|" +
      "Passt gut dazu|Andere sahen sich auch an|Warum das?|Zurück|Weiter|Empfehlungen aktualisiert|" +
      "Empfehlungen sind gerade nicht verfügbar.|Noch nichts zu empfehlen.",
    fr:
      "Choisis pour vous|Vous aimerez aussi|Avant de partir|Populaires en ce moment|Produits similaires|" +
      "Se marie bien avec|D’autres ont aussi regardé|Pourquoi ?|Précédent|Suivant|Recommandations mises à jour|" +
      "Les recommandations sont indisponibles pour le moment.|Rien à recommander pour l’instant.",
    es:
      "Elegidos para ti|También te puede gustar|Antes de irte|Popular ahora|Productos similares|" +
      "Combina bien con|Otros también vieron|¿Por qué?|Atrás|Adelante|Recomendaciones actualizadas|" +
      "Las recomendaciones no están disponibles ahora.|Aún no hay nada que recomendar.",
    ar:
      "مختارات لك|قد يعجبك أيضًا|قبل أن تغادر|الأكثر رواجًا الآن|منتجات مشابهة|يتناسب مع|شاهده آخرون أيضًا|" +
      "لماذا هذا؟|السابق|التالي|تم تحديث التوصيات|التوصيات غير متاحة حاليًا.|لا توجد توصيات بعد.",
  };
  const TEXT_NAMES = "home|product|cart|popular|similar|complementary|also_viewed|why|previous|next|updated|away|empty".split("|");

  const SILENCE_MS = 40_000; // The gateway sends something every 15 s.
  const RETRY_MS = [1_000, 30_000]; // First and longest; half is drawn.
  const SEEN_MS = 1_000; // Half in sight for a second: viewable.
  const GATHER_MS = 2_000;
  const ANNOUNCE_MS = 20_000; // No talk at every click.
  const MOVE_MS = 350;
  const LINGER_MS = 3_000; // A page built anew asks again.
  const BATCH = 50; // 15 kB; keepalive allows 64 kB.
  const QUEUE = 500;

  const delay = (ms, signal) =>
    new Promise((resolve) => {
      const done = () => (clearTimeout(timer), removeEventListener("online", done), resolve());
      const timer = setTimeout(done, ms);
      addEventListener("online", done);
      signal?.addEventListener("abort", done);
    });

  const retryDelay = (failures, error) =>
    Math.max((error?.retryAfter || 0) * 1_000, Math.min(RETRY_MS[0] * 2 ** failures, RETRY_MS[1]) * (0.5 + Math.random() / 2));

  const uuid = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");

  const attempt = (act, otherwise) => {
    try {
      return act();
    } catch {
      return otherwise;
    }
  };

  /** What a token says, unverified: whose list this is, and how long it holds. */
  const claims = (token) => attempt(() => JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))), {});

  /** A catalogue must not put `javascript:` into a shop's page. */
  const safeUrl = (url, base) => {
    const { protocol, href } = attempt(() => new URL(url, base), {});
    return /^https?:$/.test(protocol) ? href : null;
  };

  const element = (name, part, properties, ...children) => {
    const made = Object.assign(document.createElement(name), { className: part }, properties);
    if (part) made.setAttribute("part", part);
    made.append(...children);
    return made;
  };

  /** Where one widget gets its lists, and as whom. */
  class Source {
    constructor(widget) {
      this.base = new URL(widget.getAttribute("gateway") || ".", document.baseURI);
      this.anonymous = widget.getAttribute("personalised") === "false";
      if (this.anonymous) return;
      this.user = widget.getAttribute("user");
      this.session = widget.getAttribute("session");
      this.held = widget.getAttribute("token");
      this.provider = widget.tokenProvider;
    }

    async token(renew = false) {
      const old = this.held && claims(this.held).exp < Date.now() / 1_000 + 30;
      if (this.provider && (renew || old || !this.held)) {
        this.renewal ??= Promise.resolve(this.provider()).finally(() => (this.renewal = null));
        const token = await this.renewal;
        // Nothing of the one may go out or be shown as the other's.
        if (this.me && this.me !== this.name(token)) throw Object.assign(Error("another visitor"), { status: 403 });
        this.held = token;
      }
      return this.held;
    }

    name(token) {
      const { sub, sid, consent } = claims(token);
      return JSON.stringify([this.base.href, this.user || sub, this.session || sid, this.anonymous, consent]);
    }

    /** Tabs and widgets of the same visitor share; no others do. */
    async who() {
      return (this.me = this.name(await this.token()));
    }

    url(path, parameters) {
      const url = new URL(this.base.pathname.replace(/\/?$/, "/") + path, this.base);
      const all = { ...parameters, user: this.user, session: this.session, personalised: this.anonymous ? 0 : null };
      for (const [name, value] of Object.entries(all)) if (value != null) url.searchParams.set(name, value);
      return url;
    }

    async call(path, parameters, { headers, ...init }, renewed = false) {
      const token = await this.token(renewed);
      const response = await fetch(this.url(path, parameters), {
        credentials: "omit",
        ...init,
        headers: { ...headers, ...(token && { Authorization: `Bearer ${token}` }) },
      });
      if (response.ok) return response;
      response.body?.cancel();
      if (response.status === 401 && this.provider && !renewed) return this.call(path, parameters, { headers, ...init }, true);
      const { status } = response;
      throw Object.assign(Error(`the gateway answered ${status}`), { status, retryAfter: +response.headers.get("Retry-After") });
    }
  }

  /** Events, kept until the gateway has them; a repeat counts once. */
  class Outbox {
    static all = new Map();
    waiting = [];
    failures = 0;
    size = BATCH;

    static of(who, source) {
      const outbox = Outbox.all.get(who) || new Outbox();
      Outbox.all.set(who, outbox);
      return Object.assign(outbox, { source });
    }

    add(event, urgent) {
      this.waiting.push({ id: uuid(), ts: Date.now(), ...event });
      this.waiting.splice(0, this.waiting.length - QUEUE);
      if (urgent || this.waiting.length >= BATCH) this.flush();
      else this.timer ??= setTimeout(() => this.flush(), GATHER_MS);
    }

    async flush() {
      clearTimeout(this.timer);
      this.timer = null;
      if (this.busy) return;
      this.busy = true;
      while (this.waiting.length) {
        const batch = this.waiting.slice(0, this.size);
        try {
          const body = JSON.stringify({ events: batch });
          const headers = { "Content-Type": "application/json" };
          // `leave` repeats what is under way.
          await this.source.call("v1/events", {}, { method: "POST", keepalive: document.hidden, body, headers });
          this.failures = 0;
        } catch (error) {
          const refused = [400, 403, 413].includes(error.status);
          if (refused && this.size === 1) console.warn(TAG, error.message, batch[0]);
          else {
            // One bad event must not take the others along.
            if (refused) this.size = 1;
            else await delay(retryDelay(this.failures++, error));
            continue;
          }
        }
        this.waiting = this.waiting.filter((event) => !batch.includes(event));
      }
      this.size = BATCH;
      this.busy = false;
    }

    /** What is unconfirmed goes once more, in requests that outlive the page. */
    leave() {
      for (let start = 0; start < this.waiting.length; start += BATCH) {
        const url = this.source.url("v1/events", { token: this.source.held });
        navigator.sendBeacon(url, JSON.stringify({ events: this.waiting.slice(start, start + BATCH) }));
      }
    }
  }

  /** The lists of one visitor and surface. */
  class Feed {
    static all = new Map();
    widgets = new Set();
    failures = 0;

    constructor(key, source, request) {
      Object.assign(this, { key, source }, request);
      Feed.all.set(key, this);
    }

    add(widget) {
      this.widgets.add(widget);
      if (this.list) widget.show(this.list, true);
      this.open();
    }

    remove(widget) {
      this.widgets.delete(widget);
      setTimeout(() => {
        if (this.widgets.size || Feed.all.get(this.key) !== this) return;
        this.close();
        Feed.all.delete(this.key);
      }, LINGER_MS);
    }

    open() {
      if (this.stop) return;
      this.stop = new AbortController();
      this.load(this.stop.signal);
    }

    close() {
      this.stop?.abort();
      this.channel?.close();
      this.stop = this.channel = null;
    }

    async insist(signal, step) {
      while (!signal.aborted) {
        try {
          return await step();
        } catch (error) {
          if (signal.aborted) return;
          const wait = retryDelay(this.failures++, error);
          for (const widget of this.widgets) widget.fail(error, wait);
          await delay(wait, signal);
        }
      }
    }

    async load(signal) {
      if (this.live && self.BroadcastChannel) this.tune();
      await this.insist(signal, async () => {
        const nothing = (error) => {
          if (error.status !== 404) throw error;
          return { list_id: "", items: [] };
        };
        const read = (response) => response.json();
        this.take(await this.source.call(this.path, this.parameters, { signal }).then(read, nothing), true);
      });
      if (this.live && !signal.aborted) this.share(signal);
    }

    tune() {
      this.channel = new BroadcastChannel(TAG + this.key);
      this.channel.onmessage = ({ data }) => {
        this.heard = Date.now();
        if (data.hello && this.list) this.tell({ list: this.list, old: true });
        if (data.list) this.take(data.list, data.old);
        if (data.item) changed(this.source.base, data.item);
      };
      this.tell({ hello: true });
    }

    /** One tab holds the lock and the stream; without locks every tab has its own. */
    share(signal) {
      const alone = () => this.insist(signal, () => this.listen(signal));
      if (!navigator.locks || !this.channel) return alone();
      const ask = async (options) => {
        const mine = new AbortController();
        const held = AbortSignal.any([signal, mine.signal]);
        try {
          await navigator.locks.request(TAG + this.key, options, async () => {
            this.leads = true;
            await this.insist(held, () => this.listen(held));
            this.leads = false;
          });
        } catch ({ name }) {
          mine.abort();
          if (signal.aborted) return;
          // AbortError: taken away, as this tab was asleep. Else there are no locks here.
          if (name === "AbortError") ask({ signal });
          else alone();
        }
      };
      ask({ signal });
      this.heard = Date.now();
      const watch = setInterval(() => {
        if (this.leads || document.hidden || Date.now() - this.heard < SILENCE_MS) return;
        this.heard = Date.now();
        ask({ steal: true });
      }, SILENCE_MS / 4);
      signal.addEventListener("abort", () => clearInterval(watch));
    }

    tell(message) {
      this.channel?.postMessage(message);
    }

    async listen(signal) {
      const quiet = new AbortController();
      const wait = () => setTimeout(() => quiet.abort(), SILENCE_MS);
      let timer = wait();
      try {
        const headers = { Accept: "text/event-stream", "Last-Event-ID": this.list.list_id };
        const ends = AbortSignal.any([signal, quiet.signal]);
        const response = await this.source.call("v1/stream", this.parameters, { headers, signal: ends });
        const reader = response.body.getReader();
        const decoder = new TextDecoder();
        for (let rest = ""; ; ) {
          const { value, done } = await reader.read();
          if (done) throw Error("the stream ended");
          clearTimeout(timer);
          timer = wait();
          this.failures = 0;
          this.tell({ beat: true });
          const blocks = (rest + decoder.decode(value, { stream: true })).split(/\r?\n\r?\n/);
          rest = blocks.pop();
          blocks.forEach((block) => this.handle(block));
          for (const widget of this.widgets) widget.recover();
        }
      } finally {
        clearTimeout(timer);
      }
    }

    handle(block) {
      const field = (name) => Array.from(block.matchAll(RegExp(`^${name}: ?(.*)$`, "gm")), ([, value]) => value).join("\n");
      if (!field("data")) return;
      const kind = { recommendations: "list", item: "item" }[field("event")];
      const data = JSON.parse(field("data"));
      this.tell({ [kind]: data });
      if (kind === "list") this.take(data);
      if (kind === "item") changed(this.source.base, data);
    }

    /** What was `asked` for, the stream may have overtaken. */
    take(list, asked) {
      const old = this.list && (this.list.list_id === list.list_id || (asked && list.generated < this.list.generated));
      if (!old) this.list = list;
      for (const widget of this.widgets) old ? widget.recover() : widget.show(list, asked);
    }
  }

  const widgets = new Set();

  const changed = (base, item) => {
    for (const widget of widgets) widget.itemChanged(base.href, item);
  };

  // Streams and locks are let go, so that the browser can keep the page for "back".
  addEventListener("pagehide", () => {
    Outbox.all.forEach((outbox) => outbox.leave());
    Feed.all.forEach((feed) => feed.close());
  });
  addEventListener("pageshow", ({ persisted }) => persisted && Feed.all.forEach((feed) => feed.open()));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) Outbox.all.forEach((outbox) => outbox.flush());
    else widgets.forEach((widget) => widget.restartImpressions());
  });

  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`
    :host { display: block; color: var(--mmrec-color, inherit); font: var(--mmrec-font, inherit);
      --muted: var(--mmrec-muted, color-mix(in srgb, currentColor 72%, transparent));
      --line: var(--mmrec-border, color-mix(in srgb, currentColor 14%, transparent));
      --tint: var(--mmrec-skeleton, color-mix(in srgb, currentColor 8%, transparent));
      --ring: var(--mmrec-accent, currentColor); --radius: var(--mmrec-radius, .75rem); }
    :host([hidden]) { display: none; }
    * { box-sizing: border-box; }
    .region { position: relative; }
    header { display: flex; align-items: center; gap: .5rem; min-height: 2.75rem; }
    .heading { flex: 1; font-size: var(--mmrec-heading-size, 1.25rem); font-weight: 650;
      white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
    button { font: inherit; color: inherit; background: var(--mmrec-surface, Canvas); border: 1px solid var(--line);
      border-radius: 99rem; cursor: pointer; }
    .button { width: 2.25rem; height: 2.25rem; padding: 0; flex: none; }
    .button::before { content: ""; display: block; width: .5rem; height: .5rem; margin: auto;
      border: solid currentColor; border-width: 2px 2px 0 0; transform: rotate(45deg) translate(-1px, 1px); }
    .previous::before, .next:dir(rtl)::before { transform: rotate(-135deg) translate(-1px, 1px); }
    .previous:dir(rtl)::before { transform: rotate(45deg) translate(-1px, 1px); }
    .button:disabled { opacity: .35; cursor: default; }
    ul { list-style: none; margin: 0; padding: 4px; margin-inline: -4px; display: grid; gap: var(--mmrec-gap, 1rem); overflow-anchor: none; }
    .row ul { grid-auto-flow: column; grid-auto-columns: var(--mmrec-card-width, 11.5rem); overflow-x: auto;
      overscroll-behavior-inline: contain; scrollbar-width: none; }
    .grid ul { grid-template-columns: repeat(auto-fill, minmax(min(var(--mmrec-card-width, 11.5rem), 44%), 1fr)); }
    .grid .button { display: none; }
    li { position: relative; min-width: 0; }
    .card { display: grid; grid-template-rows: auto 1.3em 2.6em 1.4em; gap: .25rem; height: 100%; padding-block-end: .5rem;
      color: inherit; text-decoration: none; border-radius: var(--radius); line-height: 1.3; background: var(--mmrec-card, transparent); }
    .card:hover .title { text-decoration: underline; text-underline-offset: .15em; }
    :focus-visible { outline: 2px solid var(--ring); outline-offset: 2px; }
    .media { display: block; aspect-ratio: var(--mmrec-aspect, 1); border-radius: var(--radius); overflow: hidden; background: var(--tint); }
    .media img { display: block; width: 100%; height: 100%; object-fit: cover; }
    .brand { font-size: .8125em; line-height: 1.6; color: var(--muted); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
    .title { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; overflow-wrap: anywhere; font-weight: 500; }
    .price { font-weight: 650; font-variant-numeric: tabular-nums; }
    .why { position: absolute; inset-block-start: .5rem; inset-inline-end: .5rem; width: 1.75rem; height: 1.75rem;
      padding: 0; font-size: .875rem; font-weight: 650; line-height: 1; }
    .reason { position: absolute; inset: 0 0 auto; aspect-ratio: var(--mmrec-aspect, 1); margin: 0; padding: .75rem; padding-block-start: 2.75rem;
      overflow: auto; border-radius: var(--radius); background: var(--mmrec-surface, Canvas); border: 1px solid var(--line);
      font-size: .8125rem; line-height: 1.4; overflow-wrap: anywhere; }
    .why[aria-expanded=true] { z-index: 1; }
    .skeleton span { border-radius: .375rem; background: var(--tint); margin-block: .15em; }
    .skeleton .card, .skeleton .media { margin: 0; background: none; }
    .skeleton .media { border-radius: var(--radius); background: var(--tint); }
    .skeleton .brand, .skeleton .price { width: 40%; }
    .filler, .away .skeleton { visibility: hidden; }
    .region > p { position: absolute; inset: 2.75rem 0 0; display: grid; place-content: center; margin: 0; color: var(--muted); text-align: center; }
    [hidden] { display: none !important; }
    .status { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
    @media (prefers-reduced-motion: no-preference) {
      .skeleton span { animation: wait 1.4s infinite alternate; }
      @keyframes wait { to { opacity: .45; } }
    }
  `);

  class Recommendations extends HTMLElement {
    static observedAttributes = [
      "gateway", "surface", "item", "items", "kind", "count", "user", "session", "token", "personalised", "why",
      "layout", "lang", "dir", "heading", "heading-level", "url",
    ];

    #root = this.attachShadow({ mode: "open" });
    #heading = element("div", "heading", { id: "heading", role: "heading" });
    #previous = element("button", "button previous", { type: "button" });
    #next = element("button", "button next", { type: "button" });
    #cards = element("ul", "list", { role: "list" }); // Without its bullets Safari no longer calls it one.
    #text = element("span", "message");
    #message = element("p", "", { hidden: true }, element("slot", "", { name: "empty" }, this.#text));
    #status = element("div", "status", { role: "status" });
    #header = element("header", "header", {}, this.#heading, this.#previous, this.#next);
    #section = element("section", "region", {}, this.#header, this.#cards, this.#message, this.#status);
    #base = "";
    #feed = null;
    #key = null; // which feed the list in sight is from
    #outbox = null;
    #failures = 0;
    #list = null;
    #shown = new Map(); // item id -> its <li>
    #visible = new Map(); // <li> -> timer of its impression
    #seen = new Set();
    #observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.#intersects(entry)), { threshold: 0.5 });
    #provider = null;
    #texts = {};
    #updating = false;
    #pressed = false;
    #held = null; // a list that waits for the pointer to be up
    #announced = 0;
    #removed = new Set(); // sold out since the list was made

    constructor() {
      super();
      this.#root.adoptedStyleSheets = [sheet];
      this.#root.append(this.#section);
      for (const labelled of [this.#section, this.#cards]) labelled.setAttribute("aria-labelledby", "heading");
      const on = (target, name, act) => target.addEventListener(name, act);
      on(this.#cards, "click", (event) => this.#clicked(event));
      on(this.#cards, "auxclick", (event) => event.button === 1 && this.#clicked(event));
      on(this.#cards, "keydown", (event) => this.#keyed(event));
      on(this.#cards, "scroll", () => this.#turns());
      on(this.#cards, "pointerdown", () => (this.#pressed = true));
      on(this.#previous, "click", () => this.#turn(-1));
      on(this.#next, "click", () => this.#turn(1));
      new ResizeObserver(() => this.#turns()).observe(this.#cards);
    }

    get list() {
      return this.#list;
    }

    get tokenProvider() {
      return this.#provider;
    }
    set tokenProvider(provider) {
      this.#provider = provider;
      this.#update();
    }

    get texts() {
      return this.#texts;
    }
    set texts(texts) {
      this.#texts = texts || {};
      this.#update();
    }

    /** Report what the widget cannot see: `view`, `add_to_cart`, `purchase`, … */
    async track(event) {
      const source = new Source(this);
      if (source.anonymous) return;
      Outbox.of(await source.who(), source).add({ surface: this.#surface, ...event }, true);
    }

    connectedCallback() {
      widgets.add(this);
      // Set before the element was defined, it hides the accessor.
      for (const name of ["tokenProvider", "texts"]) {
        if (Object.hasOwn(this, name)) {
          const value = this[name];
          delete this[name];
          this[name] = value;
        }
      }
      addEventListener("pointerup", this.#release);
      addEventListener("pointercancel", this.#release);
      this.#update();
    }

    disconnectedCallback() {
      widgets.delete(this);
      this.#leave();
      this.#observer.disconnect();
      this.#visible.forEach(clearTimeout);
      this.#visible.clear();
      removeEventListener("pointerup", this.#release);
      removeEventListener("pointercancel", this.#release);
    }

    attributeChangedCallback(name, before, after) {
      if (before !== after) this.#update();
    }

    get #surface() {
      return this.getAttribute("surface") || "home";
    }

    get #count() {
      return Math.min(Math.max(Math.trunc(+this.getAttribute("count")) || 12, 1), 100);
    }

    get #kind() {
      return this.getAttribute("kind") || (this.#surface === "cart" ? "complementary" : "similar");
    }

    get #language() {
      return this.getAttribute("lang") || this.closest("[lang]")?.lang || document.documentElement.lang || navigator.language;
    }

    #say(name) {
      const all = TEXTS[this.#language.slice(0, 2).toLowerCase()] || TEXTS.en;
      return this.#texts[name] ?? all.split("|")[TEXT_NAMES.indexOf(name)];
    }

    #update() {
      if (this.#updating || !this.isConnected) return;
      this.#updating = true;
      queueMicrotask(async () => {
        this.#updating = false;
        if (!this.isConnected) return;
        if (this.#list) this.#arrange();
        else this.#skeletons();
        this.#label();
        try {
          await this.#connect();
        } catch (error) {
          const wait = retryDelay(this.#failures++, error); // The token provider failed.
          this.fail(error, wait);
          setTimeout(() => this.#update(), wait);
        }
      });
    }

    async #connect() {
      const source = new Source(this);
      this.#base = source.base.href;
      const item = this.getAttribute("item");
      const why = this.hasAttribute("why") ? 1 : null;
      const k = this.#count;
      const request = item
        ? { path: `v1/items/${encodeURIComponent(item)}/related`, parameters: { kind: this.#kind, k, why }, live: false }
        : { path: "v1/recommendations", parameters: { surface: this.#surface, items: this.getAttribute("items"), k, why }, live: !source.anonymous };
      const who = await source.who();
      const key = JSON.stringify([who, request]);
      this.#failures = 0;
      if (!this.isConnected || this.#updating) return;
      this.#outbox = source.anonymous ? null : Outbox.of(who, source);
      if (this.#feed?.key === key) {
        this.#feed.source = source; // The same visitor with a newer token.
        return;
      }
      this.#leave();
      if (this.#key !== key && this.#list) {
        // Somebody else's list must not stay in sight.
        this.#list = null;
        this.#skeletons();
        this.#label();
      }
      this.#key = key;
      this.#feed = Feed.all.get(key) || new Feed(key, source, request);
      this.#feed.add(this);
    }

    #leave() {
      this.#feed?.remove(this);
      this.#feed = null;
    }

    #label() {
      const row = this.getAttribute("layout") !== "grid";
      this.#section.classList.toggle("row", row);
      this.#section.classList.toggle("grid", !row);
      const own = this.getAttribute("lang");
      if (own && !this.hasAttribute("dir")) this.#section.dir = /^(ar|fa|he|ur)\b/i.test(own) ? "rtl" : "ltr";
      else this.#section.removeAttribute("dir");
      this.#section.lang = this.#language;
      const name = this.getAttribute("item") ? this.#kind : this.#surface;
      const personal = !this.#list || this.#list.personalised || this.getAttribute("item");
      this.#heading.textContent =
        this.getAttribute("heading") || this.#say(this.#list?.strategy) || (personal && this.getAttribute("personalised") !== "false" ? this.#say(name) || this.#say("home") : this.#say("popular"));
      this.#heading.ariaLevel = this.getAttribute("heading-level") || "2";
      this.#previous.ariaLabel = this.#say("previous");
      this.#next.ariaLabel = this.#say("next");
    }

    #blanks(count, name) {
      const bars = () => ["media", "brand", "title", "price"].map((bar) => element("span", bar));
      const blank = () => element("li", `item ${name}`, { ariaHidden: "true" }, element("span", "card", {}, ...bars()));
      return Array.from({ length: Math.max(count, 0) }, blank);
    }

    #skeletons() {
      this.#shown.forEach((card) => this.#unobserve(card));
      this.#shown.clear();
      this.#cards.replaceChildren(...this.#blanks(this.#count, "skeleton"));
      this.#section.ariaBusy = "true";
      this.#section.classList.remove("away");
      this.#message.hidden = true;
      this.#turns();
    }

    #items() {
      return this.#list.items.filter((item) => item.in_stock !== false && !this.#removed.has(item.item_id));
    }

    show(list, before) {
      if (this.#pressed) {
        this.#held = list;
        return;
      }
      const first = !this.#list;
      this.#list = list;
      this.#removed.clear();
      this.#arrange();
      this.#label();
      this.#section.ariaBusy = "false";
      this.recover();
      if (!first) this.#announce();
      const tell = () =>
        this.#emit("list", { list, painted: document.hidden || before ? null : performance.timeOrigin + performance.now() });
      if (document.hidden) tell();
      else requestAnimationFrame(() => setTimeout(tell));
    }

    fail(error, retryIn) {
      this.#section.setAttribute("part", "region stale");
      if (!this.#list) this.#tell("away");
      this.#emit("error", { message: error.message, status: error.status || 0, retryIn: Math.round(retryIn) });
      if (error.status === 403) this.#update(); // It may be somebody else by now.
    }

    recover() {
      this.#section.setAttribute("part", "region");
      this.#message.hidden = true;
      this.#section.classList.remove("away");
      if (this.#list && !this.#items().length) this.#tell("empty");
    }

    itemChanged(base, { item_id, in_stock }) {
      if (base !== this.#base || in_stock || !this.#list || !this.#shown.has(item_id)) return;
      this.#removed.add(item_id);
      this.#arrange();
      this.recover();
    }

    #tell(text) {
      this.#text.textContent = this.#say(text);
      this.#message.hidden = false;
      this.#section.classList.add("away");
      this.#section.ariaBusy = "false";
    }

    #announce() {
      if (document.hidden || Date.now() - this.#announced < ANNOUNCE_MS) return;
      this.#announced = Date.now();
      this.#status.textContent = this.#say("updated");
      setTimeout(() => (this.#status.textContent = ""), 5_000);
    }

    /** Cards that stay keep focus and open reason. */
    #arrange() {
      const items = this.#items();
      const focused = this.#root.activeElement?.closest("li");
      const place = [...this.#cards.children].indexOf(focused);
      const moves = !document.hidden && this.#shown.size && matchMedia("(prefers-reduced-motion: no-preference)").matches;
      const before = new Map(moves ? [...this.#shown.values()].map((card) => [card, card.getBoundingClientRect()]) : []);
      const cards = items.map((item) => {
        const card = this.#shown.get(item.item_id) || this.#card();
        this.#fill(card, item);
        return card;
      });
      for (const [id, card] of this.#shown) {
        if (cards.includes(card)) continue;
        this.#unobserve(card);
        this.#shown.delete(id);
      }
      items.forEach((item, index) => this.#shown.set(item.item_id, cards[index]));
      const missing = this.#section.classList.contains("grid") || !cards.length ? this.#count - cards.length : 0;
      this.#order([...cards, ...this.#blanks(missing, "filler")]);
      if (cards.includes(focused)) this.#reveal(focused);
      else if (focused) cards[Math.min(place, cards.length - 1)]?.querySelector("a")?.focus({ preventScroll: true });
      cards.forEach((card) => this.#observer.observe(card));
      this.restartImpressions();
      const after = moves ? cards.map((card) => [card, card.getBoundingClientRect()]) : [];
      this.#turns();
      for (const [card, to] of after) this.#glide(card, before.get(card), to);
    }

    #order(wanted) {
      const list = this.#cards;
      const focused = this.#root.activeElement;
      if (wanted.every((card, index) => card === list.children[index]) && wanted.length === list.children.length) return;
      for (const card of [...list.children]) if (!wanted.includes(card)) card.remove();
      // Each is put in anew: pushing is a layout shift. `moveBefore` keeps the focus.
      for (const card of wanted) {
        if (list.moveBefore && card.parentNode === list) list.moveBefore(card, null);
        else list.append(card);
      }
      if (focused && focused !== this.#root.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    }

    /** Into sight within the row, without moving the page. */
    #reveal(card) {
      const [box, frame] = [card.getBoundingClientRect(), this.#cards.getBoundingClientRect()];
      const over = Math.max(box.right - frame.right, 0) || Math.min(box.left - frame.left, 0);
      if (over) this.#cards.scrollBy({ left: over });
    }

    #glide(card, from, to) {
      const way = from && `${from.left - to.left}px ${from.top - to.top}px`;
      card.animate(from ? { translate: [way, "0 0"] } : { opacity: [0, 1] }, { duration: MOVE_MS, easing: "ease-out" });
    }

    #card() {
      const template = this.querySelector(":scope > template");
      const filled = (name, part, properties, ...children) => {
        const made = element(name, part, properties, ...children);
        made.dataset.mmrec = part;
        return made;
      };
      const built = () => {
        const image = filled("img", "image", { alt: "", loading: "lazy", decoding: "async", width: 240, height: 240 });
        const texts = ["brand", "title", "price"].map((name) => filled("span", name));
        return filled("a", "card", {}, element("span", "media", {}, image), ...texts);
      };
      const why = element("button", "why", { type: "button", textContent: "?", ariaExpanded: "false" });
      const content = template ? document.importNode(template.content, true) : built();
      return element("li", "item", {}, content, why, element("p", "reason", { hidden: true }));
    }

    #fill(card, item) {
      const values = { ...item, price: this.#price(item), reason: item.why?.text };
      for (const place of card.querySelectorAll("[data-mmrec]")) {
        const name = place.dataset.mmrec;
        if (name === "image") this.#picture(place, item);
        else if (name === "card") {
          const href = this.#href(item);
          if (href) place.href = href;
          else place.removeAttribute("href");
        } else place.textContent = values[name] ?? "";
      }
      const why = card.querySelector(".why");
      why.ariaLabel = `${this.#say("why")} ${item.title || item.item_id}`;
      why.hidden = !item.why?.text;
      if (why.hidden) this.#toggle(card, false);
      card.querySelector(".reason").textContent = item.why?.text;
    }

    #picture(image, item) {
      const url = item.image && safeUrl(item.image, this.#base);
      image.onerror = () => (image.hidden = true);
      if (image.src === url) return;
      image.hidden = !url;
      image.src = url || "";
    }

    #href(item) {
      const pattern = this.getAttribute("url");
      return safeUrl(pattern ? pattern.replace("{id}", encodeURIComponent(item.item_id)) : item.url || "", document.baseURI);
    }

    #price({ price, currency }) {
      if (price == null) return "";
      const style = currency ? { style: "currency", currency } : { minimumFractionDigits: 2, maximumFractionDigits: 2 };
      return attempt(() => new Intl.NumberFormat(this.#language, style).format(price), `${price} ${currency}`);
    }

    #toggle(card, opens = card.querySelector(".reason").hidden) {
      const why = card.querySelector(".why");
      why.ariaExpanded = String(opens);
      why.textContent = opens ? "×" : "?";
      card.querySelector(".reason").hidden = !opens;
    }

    #itemOf(card) {
      return this.#list?.items.find((item) => this.#shown.get(item.item_id) === card);
    }

    #clicked(event) {
      const card = event.target.closest("li");
      const item = card && this.#itemOf(card);
      if (!item) return;
      if (event.target.closest(".why")) return this.#toggle(card);
      if (!event.target.closest("a")) return;
      if (!this.#report("click", item, true)) event.preventDefault();
    }

    /** To the gateway and to the page; false where the page prevented it. */
    #report(type, item, urgent) {
      const { list_id, surface = this.#surface } = this.#list;
      const { item_id, position } = item;
      this.#outbox?.add({ type, item_id, list_id, position, surface }, urgent);
      return this.#emit(type, { item, list_id, position });
    }

    #keyed(event) {
      const card = event.target.closest("li");
      if (!card) return;
      if (event.key === "Escape") return this.#toggle(card, false);
      const cards = [...this.#cards.querySelectorAll("li:not([aria-hidden])")];
      const step = this.#rtl() ? -1 : 1;
      const here = cards.indexOf(card);
      const target = cards[{ ArrowRight: here + step, ArrowLeft: here - step, Home: 0, End: cards.length - 1 }[event.key]];
      if (!target || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      target.querySelector("a")?.focus();
      this.#reveal(target);
    }

    #rtl() {
      return getComputedStyle(this.#cards).direction === "rtl";
    }

    #turn(sign) {
      const smooth = matchMedia("(prefers-reduced-motion: no-preference)").matches;
      const left = this.#cards.clientWidth * 0.85 * sign * (this.#rtl() ? -1 : 1);
      this.#cards.scrollBy({ left, behavior: smooth ? "smooth" : "auto" });
    }

    #turns() {
      const at = Math.abs(this.#cards.scrollLeft);
      const room = this.#cards.scrollWidth - this.#cards.clientWidth;
      this.#previous.disabled = at < 2;
      this.#next.disabled = at > room - 2;
    }

    #release = () => {
      if (!this.#pressed) return;
      // The click that follows belongs to the list that was seen.
      setTimeout(() => {
        this.#pressed = false;
        const held = this.#held;
        this.#held = null;
        if (held) this.show(held);
      });
    };

    #intersects({ target, intersectionRatio }) {
      const inSight = intersectionRatio >= 0.5;
      if (!inSight) {
        clearTimeout(this.#visible.get(target));
        this.#visible.delete(target);
      } else if (!this.#visible.has(target)) this.#await(target);
    }

    #await(card) {
      clearTimeout(this.#visible.get(card));
      this.#visible.set(card, setTimeout(() => this.#impression(card), SEEN_MS));
    }

    #impression(card) {
      const item = this.#itemOf(card);
      if (!item || document.visibilityState !== "visible") return;
      const key = `${this.#list.list_id}/${item.position}`;
      if (this.#seen.has(key)) return;
      this.#seen.add(key);
      this.#report("impression", item);
    }

    restartImpressions() {
      for (const card of this.#visible.keys()) this.#await(card);
    }

    #unobserve(card) {
      this.#observer.unobserve(card);
      clearTimeout(this.#visible.get(card));
      this.#visible.delete(card);
    }

    #emit(name, detail) {
      return this.dispatchEvent(new CustomEvent(`mmrec:${name}`, { bubbles: true, composed: true, cancelable: true, detail }));
    }
  }

  customElements.define(TAG, Recommendations);
})();
