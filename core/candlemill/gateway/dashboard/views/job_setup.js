// What a job requests, in a line and in full, and how to request it again.
import { html } from "../lib.js";
import { hasKey } from "../api.js";
import { count, minute, range, value } from "../format.js";
import { belongs, optionText } from "../options.js";
import { commandOf, curlOf } from "../request.js";
import { Card, Command, Facts } from "../ui.js";

/** A job's symbols: of a portfolio all of them. */
export const symbolsOf = ({ spec, request }) =>
  []
    .concat(request?.symbol ?? spec.symbol)
    .join(",")
    .replaceAll(",", ", ");

/** What the trials of a study choose from; nothing for other jobs. */
const spaceOf = (result) => result?.request?.space ?? {};

/** Whether an option has something to show: texts and tables may be empty. */
const says = (v) => v !== null && v !== undefined && v !== "" && (typeof v !== "object" || Object.keys(v).length > 0);

/** What differs from the usual in a job, in a line: fast=10, slow: 7 values. */
export const settingsText = (settings) =>
  Object.entries(settings ?? {})
    .map(([name, text]) => `${name.replaceAll("_", " ")}${text.endsWith(" values") ? ": " : "="}${text}`)
    .join(", ");

/** A job in a line: BTCUSDT · sma_cross(fast=10, slow=50). */
export function titleOf({ spec, request, settings }) {
  const text = settingsText(settings);
  return `${symbolsOf({ spec, request })} · ${spec.strategy}${text ? `(${text})` : ""}`;
}

const LISTED = 4; // values of a grid that are named one by one
const APART = ["symbol", "strategy", "params", "grid", "start", "end", "schedule", "volume_scale"];

/** The whole resolved configuration, and how to request it again. */
export function JobSetup({ job, more = [] }) {
  const { spec } = job,
    result = job.result?.result ?? job.result ?? {};
  const space = spaceOf(job.result);
  const rows = [
    ["symbol", symbolsOf(job)],
    ["strategy", spec.strategy],
    ...Object.entries(spec.params ?? {})
      .filter(([name]) => !(name in space))
      .map(([name, v]) => [`parameter ${name}`, value(v)]),
    ...Object.entries({ ...spec.grid, ...space }).map(([name, v]) => [
      `grid ${name}`,
      v.length <= LISTED ? v.map(value).join(", ") : `${value(v[0])} to ${value(v.at(-1))}, ${count(v.length)} values`,
    ]),
    ["range", range(spec.start, spec.end)],
    ...Object.entries(spec)
      .filter(([name, v]) => !APART.includes(name) && belongs(name, spec) && says(v) && !(name in space))
      .map(([name, v]) => [name.replaceAll("_", " "), optionText(name, v)]),
    ...more,
  ];
  const digests = [
    ["job", job.job_id],
    ["digest of the candles", result.data_digest],
    ["digest of the result", result.result_digest],
    ["requested", job.created_ms > 0 ? minute(job.created_ms) : ""], // none of a set of a sweep
  ].filter(([, v]) => v);
  return html`<${Card} title="What was run" id="setup">
    <${Facts} rows=${rows} />
    <${Facts} rows=${digests} wider />
    ${
      !job.request.points && // a list is no line
      html`<${Command} text=${curlOf(job.request, hasKey())} label="curl line" />
      <${Command} text=${commandOf(job.request)} label="command line" />`
    }
  </${Card}>`;
}
