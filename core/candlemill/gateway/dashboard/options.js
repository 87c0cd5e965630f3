// The table of options of a request: how each is written, its default, its field in the form. The server has it.
import { get } from "./api.js";
import { exact, rate, value } from "./format.js";

let loading = null;
let rows = [];
let byName = new Map();

/** To be awaited before anything below is used; asks once, and again after a failure. */
export function loadOptions() {
  loading ??= get("options").then(
    ({ options }) => {
      rows = options;
      byName = new Map(rows.map((row) => [row.name, row]));
    },
    (error) => {
      loading = null;
      throw error;
    },
  );
  return loading;
}

/** Names of options whose kind is one of `kinds`. */
export const named = (...kinds) => rows.filter((row) => kinds.includes(row.kind)).map((row) => row.name);

/** The options of a group of the form that belong to what its fields say. */
export const optionsOf = (group, fields) =>
  rows.filter((row) => row.group === group && (!row.when.length || row.when.some((one) => holds(one, fields))));

const given = (name, fields) => fields[name] || byName.get(name)?.default;

/** The account, as the server takes it: if none is named, that of the first field that belongs to one account alone. */
export function accountOf(fields) {
  if (fields.account) return fields.account;
  const others = (setting) =>
    Object.entries(setting).every(([name, value]) => name === "account" || given(name, fields) === value);
  const usual = given("account", fields);
  const settings = rows.filter((row) => fields[row.name]).map((row) => row.when.filter(others));
  return settings.find((some) => some.length && some.every((one) => one.account !== usual))?.[0].account ?? usual;
}

const holds = (setting, fields) =>
  Object.entries(setting).every(
    ([name, value]) => (name === "account" ? accountOf(fields) : given(name, fields)) === value,
  );

/** Whether an option means something beside the other settings of a spec. */
export const belongs = (name, spec) => {
  const when = byName.get(name)?.when ?? [];
  return !when.length || when.some((one) => Object.entries(one).every(([other, wanted]) => spec[other] === wanted));
};

/** What the fields become when one of them changes: options that belong to other settings are cleared. */
export function cleared(fields, changed) {
  const next = { ...fields, ...changed };
  const idle = rows.filter((row) => row.when.length && !row.when.some((one) => holds(one, next)));
  return { ...changed, ...Object.fromEntries(idle.map((row) => [row.name, ""])) };
}

export const isOption = (name) => byName.has(name);

export const flagOf = (name) => byName.get(name)?.flag ?? `--${name.replaceAll("_", "-")}`;

/** An option's value in a spec as text for people. */
export function optionText(name, v) {
  const kind = byName.get(name)?.kind;
  if (kind === "rate") return v === 0 ? "none" : rate(v);
  if (kind === "leverage") return `${v / 1e6}x`;
  if (kind === "amount") return exact(v);
  if (kind === "timeframe") return `${v} min`;
  return typeof v === "boolean" ? (v ? "yes" : "no") : value(v);
}
