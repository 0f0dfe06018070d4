/** `<Recommendations>` for React 17 and newer. */
import type { ForwardRefExoticComponent, ReactNode, RefAttributes } from "react";
import type {
  ErrorDetail,
  ItemDetail,
  ListDetail,
  MmrecRecommendationsElement,
  RecommendationsAttributes,
  TextName,
} from "./mmrec-recommendations.js";

export interface RecommendationsProps extends Omit<RecommendationsAttributes, "why" | "personalised" | "heading-level"> {
  why?: boolean;
  personalised?: boolean;
  headingLevel?: number;
  /** Give the same function at every render: another one begins a new session. */
  tokenProvider?: () => string | Promise<string>;
  texts?: Partial<Record<TextName, string>>;
  /** A `<template>` for cards of your own, or what stands in `slot="empty"`. */
  children?: ReactNode;
  className?: string;
  id?: string;
  onList?: (event: CustomEvent<ListDetail>) => void;
  onImpression?: (event: CustomEvent<ItemDetail>) => void;
  /** `event.preventDefault()` leaves the navigation to your router. */
  onItemClick?: (event: CustomEvent<ItemDetail>) => void;
  onProblem?: (event: CustomEvent<ErrorDetail>) => void;
}

export declare const Recommendations: ForwardRefExoticComponent<
  RecommendationsProps & RefAttributes<MmrecRecommendationsElement>
>;
