// What is on screen is in the address: #/job/ID?from=…&to=…. A link shows the same again.
import { useEffect, useState } from "./lib.js";

/** `{ path: ["job", "ID"], query: { from: "…" } }` of the address. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  return {
    path: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

/** An address; empty values are left out. */
export function to(path, query = {}) {
  const kept = Object.entries(query).filter(([, v]) => v !== undefined && v !== null && v !== "");
  // Letters that a fragment may have stay readable: fast=5:50:5, A,B, *USDT, 2023-01..2023-06.
  const text = new URLSearchParams(kept.map(([k, v]) => [k, String(v)]))
    .toString()
    .replace(/%3A/g, ":")
    .replace(/%2C/g, ",")
    .replace(/%2A/g, "*")
    .replace(/%2F/g, "/");
  const parts = path.map((part) => encodeURIComponent(part).replace(/%2C/g, ",")).join("/");
  return `#/${parts}${text ? `?${text}` : ""}`;
}

const watchers = new Set();
const tell = () => watchers.forEach((watch) => watch(parse(location.hash)));
addEventListener("hashchange", tell);

export const go = (address) => {
  location.hash = address;
};

/** Another address for the same view: no entry in the history, no scrolling. */
export function replace(address) {
  if (address === location.hash) return;
  history.replaceState(null, "", address);
  tell();
}

export function useRoute() {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    watchers.add(setRoute);
    return () => watchers.delete(setRoute);
  }, []);
  return route;
}
