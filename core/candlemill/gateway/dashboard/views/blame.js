// Which field of the form a problem is about: what the server says, or what its message begins with.
import { isOption } from "../options.js";

export function fieldOf({ field, message }) {
  if (field) return field;
  if (/^unknown symbol/.test(message)) return "symbol";
  if (/^unknown strategy/.test(message)) return "strategy";
  const grid = /^grid '(\w+)=/.exec(message);
  if (grid) return `grid.${grid[1]}`;
  const parameter = /^\w+: (\w+)=/.exec(message);
  if (parameter) return `params.${parameter[1]}`;
  const [, name, sign] = /^(\w+)(=?)/.exec(message) ?? [];
  return sign || ["symbol", "strategy"].includes(name) || isOption(name) ? name : "";
}

/** The types in a message as people call them. */
export const readable = (message) =>
  message
    .replace(/\bExpected\b/, "expected")
    .replaceAll("`int`", "a whole number")
    .replaceAll("`str`", "text")
    .replaceAll("`", "");
