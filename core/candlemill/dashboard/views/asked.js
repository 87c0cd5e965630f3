// What a job was asked to do, in a line and in full, and how to ask for it again.
import { html } from "../lib.js";
import { hasKey } from "../api.js";
import { count, exact, minute, percent, range, value } from "../format.js";
import { commandOf, curlOf } from "../request.js";
import { Card, Command, Facts } from "../ui.js";

/** A job's symbols: of a portfolio all of them. */
export const symbolsOf = ({ spec, request }) =>
  []
    .concat(request?.symbol ?? spec.symbol)
    .join(",")
    .replaceAll(",", ", ");

/** A job in a line: BTCUSDT · sma_cross(fast=10, slow=50). */
export function titleOf({ kind, spec, request }) {
  const given = Object.entries(spec.params ?? {}).map(([name, v]) => `${name}=${value(v)}`);
  const varied = Object.entries(spec.grid ?? {}).map(([name, values]) => `${name}: ${count(values.length)} values`);
  const inside = kind === "walk_forward" || kind === "sweep" ? [...given, ...varied] : given;
  const list = inside.length ? `(${inside.join(", ")})` : "";
  return `${symbolsOf({ spec, request })} · ${spec.strategy}${list}`;
}

const PPM = ["fee", "maker_fee", "slippage", "stop_loss", "take_profit", "trailing_stop", "volume_share"];
const AMOUNTS = ["quantity", "capital", "notional"];

export function optionOf(name, v) {
  if (PPM.includes(name)) return v === 0 ? "none" : `${count(v)} ppm (${percent(v * 100, 4).replace(/\.?0+%/, "%")})`;
  if (AMOUNTS.includes(name)) return exact(v);
  if (name === "timeframe") return `${v} min`;
  return typeof v === "boolean" ? (v ? "yes" : "no") : value(v);
}

const APART = ["symbol", "strategy", "params", "grid", "start", "end", "schedule", "volume_scale"];

/** The whole resolved configuration, and how to ask for it again. */
export function Asked({ job, more = [] }) {
  const { spec } = job,
    result = job.result?.result ?? job.result ?? {};
  const rows = [
    ["symbol", symbolsOf(job)],
    ["strategy", spec.strategy],
    ...Object.entries(spec.params ?? {}).map(([name, v]) => [`parameter ${name}`, value(v)]),
    ...Object.entries(spec.grid ?? {}).map(([name, v]) => [
      `grid ${name}`,
      `${v[0]} to ${v.at(-1)}, ${count(v.length)} values`,
    ]),
    ["range", range(spec.start, spec.end)],
    ...Object.entries(spec)
      .filter(([name, v]) => !APART.includes(name) && v !== null && v !== undefined)
      .map(([name, v]) => [name.replaceAll("_", " "), optionOf(name, v)]),
    ...more,
  ];
  const digests = [
    ["job", job.job_id],
    ["digest of the candles", result.data_digest],
    ["digest of the result", result.result_digest],
    ["asked for", minute(job.created_ms)],
  ].filter(([, v]) => v);
  return html`<${Card} title="What was run" id="asked">
    <${Facts} rows=${rows} />
    <${Facts} rows=${digests} wider />
    <${Command} text=${curlOf(job.request, hasKey())} label="curl line" />
    <${Command} text=${commandOf(job.request)} label="command line" />
  </${Card}>`;
}
