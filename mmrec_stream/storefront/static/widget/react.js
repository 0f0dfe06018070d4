/** `<Recommendations>` for React 17 and newer: the custom element with props, callbacks and a ref. */
import { createElement, forwardRef, useEffect, useImperativeHandle, useRef } from "react";
import "./mmrec-recommendations.js";

const CALLBACKS = { onList: "list", onImpression: "impression", onItemClick: "click", onProblem: "error" };

export const Recommendations = forwardRef(function Recommendations(props, ref) {
  const { tokenProvider, texts, children, onList, onImpression, onItemClick, onProblem, why, headingLevel, personalised, ...attributes } = props;
  const element = useRef(null);
  const latest = useRef(null);
  latest.current = { onList, onImpression, onItemClick, onProblem };
  useImperativeHandle(ref, () => element.current, []);
  useEffect(() => {
    element.current.tokenProvider = tokenProvider ?? null;
  }, [tokenProvider]);
  useEffect(() => {
    element.current.texts = texts ?? {};
  }, [texts]);
  useEffect(() => {
    const listening = Object.entries(CALLBACKS).map(([prop, name]) => [`mmrec:${name}`, (event) => latest.current[prop]?.(event)]);
    const target = element.current;
    for (const [name, listener] of listening) target.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of listening) target.removeEventListener(name, listener);
    };
  }, []);
  return createElement(
    "mmrec-recommendations",
    {
      ...attributes,
      ref: element,
      why: why ? "" : undefined,
      "heading-level": headingLevel,
      personalised: personalised === undefined ? undefined : String(personalised),
    },
    children,
  );
});
