// Which field of the form a problem is about: what the server says, or what its message begins with.
const NAMES = /^(symbol|strategy|range|timeframe|quantity|capital|notional|slices|max_gap)\b/;

export function fieldOf({ field, message }) {
  if (field) return field;
  if (/^unknown symbol/.test(message)) return "symbol";
  if (/^unknown strategy/.test(message)) return "strategy";
  const grid = /^grid '(\w+)=/.exec(message);
  if (grid) return `grid.${grid[1]}`;
  const parameter = /^\w+: (\w+)=/.exec(message);
  if (parameter) return `params.${parameter[1]}`;
  return (/^(\w+)=/.exec(message) ?? NAMES.exec(message))?.[1] ?? "";
}

/** The types in a message as people call them. */
export const readable = (message) =>
  message
    .replace(/\bExpected\b/, "expected")
    .replaceAll("`int`", "a whole number")
    .replaceAll("`str`", "text")
    .replaceAll("`", "");
