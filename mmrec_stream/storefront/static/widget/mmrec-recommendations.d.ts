/** Types of the custom element `<mmrec-recommendations>`. Importing the package defines the element. */

/** Why an item is in the list, in words for the visitor. */
export interface Reason {
  text: string;
  kind: string;
  source_item_id?: string;
}

/** A product as the gateway sends it. */
export interface RecommendedItem {
  item_id: string;
  /** Its place in the list; 0 is first. */
  position: number;
  score: number;
  title?: string;
  brand?: string;
  category?: string;
  price?: number;
  /** ISO 4217, such as "EUR". */
  currency?: string;
  /** Relative to the gateway. */
  image?: string;
  /** Relative to the page. */
  url?: string;
  in_stock?: boolean;
  why?: Reason;
}

export interface RecommendationList {
  list_id: string;
  surface: string;
  release: string;
  strategy: string;
  personalised: boolean;
  /** Milliseconds since 1970, like all times here. */
  generated: number;
  items: RecommendedItem[];
  alpha?: number;
  /** When the event behind the list passed each step, where the gateway tells. */
  times?: Record<string, number>;
}

/** An event of the behaviour contract, without the user, whom the gateway knows. */
export interface BehaviourEvent {
  type: "view" | "click" | "add_to_cart" | "remove_from_cart" | "purchase" | "cancel" | "return" | "rating" | "follow" | "impression";
  item_id?: string;
  [field: string]: unknown;
}

/** The texts that can be put in place of the built-in ones (en, de, fr, es, ar). */
export type TextName =
  | "home" | "product" | "cart" | "popular" | "similar" | "complementary" | "also_viewed"
  | "why" | "previous" | "next" | "updated" | "away" | "empty";

export interface ListDetail {
  list: RecommendationList;
  /** When the list was on screen; null in a tab that nobody sees, and for a list that was not pushed just before. */
  painted: number | null;
}

export interface ItemDetail {
  item: RecommendedItem;
  list_id: string;
  position: number;
}

export interface ErrorDetail {
  message: string;
  /** HTTP status; 0 where there was no answer. */
  status: number;
  /** Milliseconds until the next try. */
  retryIn: number;
}

/** All bubble and leave shadow roots. `mmrec:click` can be prevented: the link then leads nowhere. */
export interface RecommendationsEventMap {
  "mmrec:list": CustomEvent<ListDetail>;
  "mmrec:impression": CustomEvent<ItemDetail>;
  "mmrec:click": CustomEvent<ItemDetail>;
  "mmrec:error": CustomEvent<ErrorDetail>;
}

/** The attributes of the tag. */
export interface RecommendationsAttributes {
  /** Where the gateway is; the page's own folder where it is missing. */
  gateway?: string;
  /** "home", "product", "cart" (what completes the visitor's cart), or a name of your own. */
  surface?: string;
  /** The product that the list is about: related products instead of personal ones. */
  item?: string;
  /** On the cart: the ids of what is in it, by commas; what the visitor's events say where it is missing. */
  items?: string;
  /** Which related products; "similar", and "complementary" on the cart, where it is missing. */
  kind?: "similar" | "complementary" | "also_viewed";
  layout?: "row" | "grid";
  /** 1 to 100; 12 where it is missing. */
  count?: number | string;
  token?: string;
  /** In development mode: who this is. */
  user?: string;
  session?: string;
  /** "false": the list that is the same for everybody; nothing is reported. */
  personalised?: "true" | "false";
  /** Present: each card can say why it is there. */
  why?: string;
  heading?: string;
  "heading-level"?: number | string;
  /** Where a card leads, with {id} for the item's id; the item's own `url` where it is missing. */
  url?: string;
  lang?: string;
  dir?: string;
}

export interface MmrecRecommendationsElement extends HTMLElement {
  readonly list: RecommendationList | null;
  /** Asked for a token when there is none, when it is about to end, and when the gateway refuses it. */
  tokenProvider: (() => string | Promise<string>) | null;
  texts: Partial<Record<TextName, string>>;
  /** Report what the widget cannot see; kept until the gateway has it. Works without being in the page. */
  track(event: BehaviourEvent): Promise<void>;
  addEventListener<K extends keyof RecommendationsEventMap>(
    type: K,
    listener: (this: MmrecRecommendationsElement, event: RecommendationsEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "mmrec-recommendations": MmrecRecommendationsElement;
  }
  interface GlobalEventHandlersEventMap extends RecommendationsEventMap {}
}
