// What is requested, in its three forms: fields of the form (flat texts, as in the address: `p.fast`, `g.slow`,
// `w.BTCUSDT`), the body of a request, and a line for a shell.
import { DAY, MINUTE } from "./format.js";
import { flagOf, isOption, named } from "./options.js";

/** Options that are numbers where they look like one, others that are texts, and those that are ticked. */
const whole = () => named("rate", "leverage", "count", "minutes");
const texts = () => named("text", "choice", "amount", "timeframe");
const flags = () => named("flag");
const WALK = { train: "6mo", test: "1mo", score: "sharpe_ratio" };

/** A parameter's value in its own type; what is no number stays text, and the server says what is wrong with it. */
function typed(text) {
  if (/^-?\d{1,15}$/.test(text) || /^-?\d*\.\d+$/.test(text)) return Number(text);
  return text === "true" || text === "false" ? text === "true" : text;
}

const listed = (text) => (text.includes(":") ? text : text.split(",").map((part) => typed(part.trim())));

const entries = (fields, prefix) =>
  Object.entries(fields)
    .filter(([k, v]) => k.startsWith(prefix) && v !== "")
    .map(([k, v]) => [k.slice(2), v]);

const SEARCH = { trials: "100", sampler: "tpe", pruner: "none", best_by: "sharpe_ratio", seed: "1" };
export const usualOfSearch = (name) => SEARCH[name];

/** Whether the form asks for a study. */
export const isSearch = (fields) => fields.search === "1" && (entries(fields, "g.").length > 0 || !!fields.also);

/** The body of a study: the axes are its space; `also` has further ones, like `stop_loss=1%:5%:1%; timeframe=5m,15m`. */
export function studyOf(fields) {
  const { grid, walk_forward: _, ...body } = bodyOf(fields);
  const more = (fields.also ?? "")
    .split(";")
    .map((part) => part.trim().match(/^([\w-]+)\s*=\s*(.+)$/))
    .filter(Boolean)
    .map(([, name, values]) => [name.replaceAll("-", "_"), values.includes(":") ? values : values.split(",").map((v) => v.trim())]);
  const at = (name) => fields[name] || SEARCH[name];
  return {
    ...body,
    space: { ...grid, ...Object.fromEntries(more) },
    trials: typed(at("trials")),
    sampler: at("sampler"),
    pruner: at("pruner"),
    score: at("best_by"),
    seed: typed(at("seed")),
  };
}

/** The fields that ask for a study's body. */
function searchOf(body) {
  const fields = { search: "1" };
  for (const name of ["trials", "sampler", "pruner", "seed"]) {
    if (String(body[name]) !== SEARCH[name]) fields[name] = String(body[name]);
  }
  if (body.score !== SEARCH.best_by) fields.best_by = body.score;
  const options = Object.entries(body.space).filter(([name]) => isOption(name) || name === "symbol");
  for (const [name, values] of Object.entries(body.space)) {
    if (!options.some(([other]) => other === name)) fields[`g.${name}`] = gridText(values);
  }
  if (options.length) fields.also = options.map(([name, values]) => `${name}=${[].concat(values).join(",")}`).join("; ");
  return fields;
}

export function bodyOf(fields) {
  const body = { symbol: fields.symbol ?? "", strategy: fields.strategy ?? "" };
  const params = entries(fields, "p."),
    grid = entries(fields, "g."),
    weights = entries(fields, "w.");
  if (params.length) body.params = Object.fromEntries(params.map(([k, v]) => [k, typed(v)]));
  if (grid.length) body.grid = Object.fromEntries(grid.map(([k, v]) => [k, listed(v)]));
  if (weights.length) body.weights = Object.fromEntries(weights);
  if (fields.walk && grid.length) {
    body.walk_forward = Object.fromEntries(Object.entries(WALK).map(([k, usual]) => [k, fields[k] || usual]));
    if (fields.anchored) body.walk_forward.anchored = true;
  }
  for (const name of texts()) if (fields[name]) body[name] = fields[name];
  for (const name of whole()) if (fields[name]) body[name] = typed(fields[name]);
  for (const name of flags()) if (fields[name]) body[name] = true;
  return body;
}

/** 5, 10, 15 as 5:15:5. */
function gridText(values) {
  if (!Array.isArray(values)) return String(values);
  const step = values[1] - values[0];
  const even = values.length > 2 && values.every((v, k) => Number.isInteger(v) && v >= 0 && v === values[0] + k * step);
  return even && step > 0 ? `${values[0]}:${values.at(-1)}${step > 1 ? `:${step}` : ""}` : values.join(",");
}

/** The fields of a body: what `bodyOf` undoes. */
export function fieldsOf(body) {
  const fields = { symbol: [].concat(body.symbol).join(","), strategy: body.strategy };
  for (const [k, v] of Object.entries(body.params ?? {})) fields[`p.${k}`] = String(v);
  for (const [k, v] of Object.entries(body.grid ?? {})) fields[`g.${k}`] = gridText(v);
  for (const [k, v] of Object.entries(body.weights ?? {})) fields[`w.${k}`] = String(v);
  if (body.walk_forward) {
    fields.walk = "1";
    for (const k of Object.keys(WALK)) if (body.walk_forward[k]) fields[k] = String(body.walk_forward[k]);
    if (body.walk_forward.anchored) fields.anchored = "1";
  }
  for (const name of [...texts(), ...whole()]) {
    if (body[name] !== undefined && body[name] !== null && body[name] !== "") fields[name] = String(body[name]);
  }
  for (const name of flags()) if (body[name]) fields[name] = "1";
  return body.space ? { ...fields, ...searchOf(body) } : fields;
}

const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

export function commandOf(body) {
  const fields = fieldsOf(body);
  if (body.space) return studyCommand(body);
  const verb = body.walk_forward ? "walk-forward" : body.grid && Object.keys(body.grid).length ? "sweep" : "backtest";
  const words = [];
  const add = (name, text) => words.push(...(text.startsWith("-") ? [`--${name}=${text}`] : [`--${name}`, text]));
  add("symbol", fields.symbol);
  add("strategy", fields.strategy);
  for (const [option, prefix] of [
    ["param", "p."],
    ["grid", "g."],
    ["weight", "w."],
  ]) {
    for (const [k, v] of entries(fields, prefix)) add(option, `${k}=${v}`);
  }
  for (const name of [...texts(), ...whole(), ...Object.keys(WALK)])
    if (fields[name]) add(flagOf(name).slice(2), fields[name]);
  for (const name of ["anchored", ...flags()]) if (fields[name]) words.push(flagOf(name));
  return ["candlemill", verb, ...words.map(quoted)].join(" ");
}

/** The line of a study: that of the job that all trials have in common, and what varies. */
function studyCommand({ space, trials, sampler, pruner, score, seed, points, ...body }) {
  const words = [commandOf(body).replace(/^candlemill backtest/, "candlemill optimize")];
  for (const [name, values] of Object.entries(space)) words.push("--space", quoted(`${name}=${gridText(values)}`));
  words.push("--trials", trials, "--sampler", sampler, "--score", score, "--seed", seed);
  if (pruner !== "none") words.push("--pruner", pruner);
  return words.join(" ");
}

export function curlOf(body, withKey) {
  const key = withKey ? ' -H "Authorization: Bearer $CANDLEMILL_KEY"' : "";
  const type = " -H 'Content-Type: application/json'";
  return `curl -X POST ${location.origin}/api/v1/${body.space ? "optimize" : "backtest"}${key}${type} -d ${quoted(JSON.stringify(body))}`;
}

// -- parameters -----------------------------------------------------------------------------------------------------

/** [name, schema] of each parameter, in the strategy's order. */
export function parametersOf(schema) {
  const name = schema.$ref?.split("/").at(-1);
  return Object.entries((name ? schema.$defs[name] : schema).properties ?? {});
}

/** A first grid around a parameter's default. */
export function firstGrid({ type, default: middle, minimum, maximum, enum: among }) {
  if (type === "boolean") return "false,true";
  if (among) return among.join(",");
  if (type !== "integer" || !middle) return String(middle ?? "");
  const low = Math.max(minimum ?? 1, Math.round(middle / 2)),
    high = Math.min(maximum ?? Infinity, middle * 2);
  return gridText([low, high]).replace(",", ":") + `:${Math.max(1, Math.round((high - low) / 6))}`;
}

/** How many values a grid's text means, and a few of them; null for a text that is none. */
export function gridValues(text) {
  const found = /^(\d+):(\d+)(?::(\d+))?$/.exec(text.trim());
  if (!found) {
    const parts = text
      .split(",")
      .map((part) => part.trim())
      .filter(Boolean);
    return parts.length && !text.includes(":") ? { count: parts.length, ends: [parts[0], parts.at(-1)] } : null;
  }
  const [low, high, step] = [Number(found[1]), Number(found[2]), Number(found[3] ?? 1)];
  if (step < 1 || high < low) return null;
  const count = Math.floor((high - low) / step) + 1;
  return { count, ends: [low, low + (count - 1) * step] };
}

// -- ranges ---------------------------------------------------------------------------------------------------------

function end(text, last) {
  const found = /^(\d{4})(?:-(\d\d))?(?:-(\d\d))?(?:[T ](\d\d):(\d\d)(?::00)?Z?)?$/.exec(text.trim());
  if (!found) return NaN;
  const [y, m, d, hours, minutes] = found.slice(1).map((part) => (part === undefined ? undefined : Number(part)));
  if (hours !== undefined) return Date.UTC(y, m - 1, d, hours, minutes) + (last ? MINUTE : 0);
  if (d) return Date.UTC(y, m - 1, d) + (last ? DAY : 0);
  if (m) return Date.UTC(y, m - 1 + (last ? 1 : 0), 1);
  return Date.UTC(y + (last ? 1 : 0), 0, 1);
}

/** [start, end) in ms of `2023`, `2023-05`, `A..B`; null of `all` and of what is no range. */
export function spanOf(text) {
  if (!text || text === "all") return null;
  const [first, last = first] = text.split("..");
  const span = [end(first, false), end(last, true)];
  return span[0] < span[1] ? span : null;
}

/** The shortest text of whole days: a year, a month, a day, or two of them. */
export function rangeText(start, stop) {
  const first = new Date(start).toISOString(),
    last = new Date(stop - MINUTE).toISOString();
  const lengths = [4, 7, 10, 16];
  const options = lengths.map((n) => first.slice(0, n));
  for (const n of lengths) for (const m of lengths) options.push(`${first.slice(0, n)}..${last.slice(0, m)}`);
  return (
    options.find((text) => {
      const s = spanOf(text);
      return s && s[0] === start && s[1] === stop;
    }) ?? options.at(-1)
  );
}
