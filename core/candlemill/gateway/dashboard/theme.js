// Light and dark: the system's choice until one is made here. Charts take their colours from the style sheet.
import { useEffect, useState } from "./lib.js";

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const watchers = new Set();

let chosen; // the theme on the screen, while the page is printed

export const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

export function toggle() {
  root.dataset.theme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("candlemill-theme", root.dataset.theme);
  } catch {
    /* for this page only, then */
  }
  watchers.forEach((watch) => watch());
}
system.addEventListener("change", () => watchers.forEach((watch) => watch()));

// Paper is light.
addEventListener("beforeprint", () => {
  chosen = root.dataset.theme;
  root.dataset.theme = "light";
  watchers.forEach((watch) => watch());
});
addEventListener("afterprint", () => {
  if (chosen === undefined) delete root.dataset.theme;
  else root.dataset.theme = chosen;
  watchers.forEach((watch) => watch());
});

const ROLES = ["ink", "muted", "grid", "paper", "back", "line", "other", "up", "down", "band", "loss", "fold", "rise", "fall"];

function read() {
  const style = getComputedStyle(root);
  const colors = Object.fromEntries(ROLES.map((role) => [role, style.getPropertyValue(`--${role}`).trim()]));
  return { ...colors, font: style.getPropertyValue("--font").trim(), dark: isDark() };
}

/** The colours by role; again when they change. Text in ink can be read on `rise` and `fall`. */
export function useColors() {
  const [colors, setColors] = useState(read);
  useEffect(() => {
    const watch = () => setColors(read());
    watchers.add(watch);
    return () => watchers.delete(watch);
  }, []);
  return colors;
}

/** `rgb(…)` of a colour between two hexadecimal ones; `at` from 0 to 1. */
export function between(a, b, at) {
  const part = (text, k) => parseInt(text.slice(1 + 2 * k, 3 + 2 * k), 16);
  return `rgb(${[0, 1, 2].map((k) => Math.round(part(a, k) + (part(b, k) - part(a, k)) * at)).join(",")})`;
}
