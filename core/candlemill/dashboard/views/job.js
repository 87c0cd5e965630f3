// One job: while it runs its progress, then its result by the kind that it is.
import { html, useEffect, useRef, useState } from "../lib.js";
import { del, download, events, get, hasKey, job as jobPath, post } from "../api.js";
import { count, minute, percent, range, seconds, value } from "../format.js";
import { commandOf, curlOf, fieldsOf } from "../request.js";
import { go, to } from "../route.js";
import { preload } from "../charts/chart.js";
import { Badge, Busy, Card, Command, Failure, Head, KIND_NAMES, STATE_NAMES, ended } from "../ui.js";
import { Portfolio } from "./portfolio.js";
import { Run } from "./run.js";
import { Sweep } from "./sweep.js";
import { Walk } from "./walk.js";

const RESULTS = { backtest: Run, sweep: Sweep, portfolio: Portfolio, walk_forward: Walk };
const AGAIN_MS = 300;

/** The job as it is now: its row, what the stream says while it runs, and the row again when it has ended. */
function useJob(id) {
  const [state, setState] = useState({ job: null, error: null, live: null, broken: false });
  useEffect(() => {
    let stop = () => {}, gone = false;
    const put = (changed) => { if (!gone) setState((old) => ({ ...old, ...changed })); };
    const load = async () => {
      try {
        const job = await get(jobPath(id));
        put({ job, error: null, live: null });
        return job;
      } catch (error) {
        put({ error });
        return null;
      }
    };
    const heard = (name, data) => {
      put({ live: data, broken: false });
      if (name !== "progress") load();
    };
    load().then((job) => {
      if (job && !gone && !ended(job.state)) stop = events(id, heard, (broken) => put({ broken }));
    });
    return () => { gone = true; stop(); };
  }, [id]);
  return state;
}

export function Job({ route }) {
  const id = route.path[1] ?? "";
  const { job, error, live, broken } = useJob(id);
  useEffect(preload, []);
  if (!job) return html`<${Head} title="Job" below=${id} />${error ? html`<${Failure} error=${error} />` : html`<${Busy} />`}`;
  const state = live?.state ?? job.state;
  const Result = RESULTS[job.kind] ?? Run;
  return html`
    <${Head} title=${titleOf(job)} below=${html`<${Badge} state=${state} /> · ${KIND_NAMES[job.kind]} · ${range(job.spec.start, job.spec.end)} UTC`}>
      <${Actions} job=${job} state=${state} />
    </${Head}>
    <div class="cards">
      <${Failure} error=${error} />
      ${!ended(state) && html`<${Progress} job=${job} live=${live} broken=${broken} />`}
      ${(state === "failed" || state === "cancelled") && html`<${Stopped} job=${job} live=${live} state=${state} />`}
      ${job.state === "done" && job.result && html`<${Result} job=${job} route=${route} />`}
      ${state !== "done" && html`<${Asked} job=${job} />`}
    </div>`;
}

/** A job in a line: BTCUSDT · sma_cross(fast=10, slow=50). */
export function titleOf({ kind, spec }) {
  const given = Object.entries(spec.params ?? {}).map(([name, v]) => `${name}=${value(v)}`);
  const varied = Object.entries(spec.grid ?? {}).map(([name, values]) => `${name}: ${count(values.length)} values`);
  const inside = kind === "walk_forward" || kind === "sweep" ? [...given, ...varied] : given;
  return `${spec.symbol.replaceAll(",", ", ")} · ${spec.strategy}${inside.length ? `(${inside.join(", ")})` : ""}`;
}

function Actions({ job, state }) {
  const [error, setError] = useState(null);
  const id = job.job_id;
  const attempt = (what) => async () => { try { setError(null); await what(); } catch (problem) { setError(problem); } };
  const remove = attempt(async () => {
    if (!confirm("Delete this job and its result?")) return;
    await del(jobPath(id));
    go("#/jobs");
  });
  const name = `candlemill-${id.slice(0, 12)}`;
  const report = attempt(() => download(jobPath(id, "report"), `${name}.html`));
  return html`
    ${!ended(state) && html`<button type="button" onClick=${attempt(() => post(jobPath(id, "cancel")))}>cancel</button>`}
    <a class="button" href=${to(["new"], fieldsOf(job.request))}>change</a>
    ${state === "done" && html`
      <a class="button" href=${to(["compare", id])}>compare</a>
      <button type="button" onClick=${attempt(() => download(jobPath(id), `${name}.json`))}>JSON</button>
      ${job.kind !== "portfolio" && (hasKey() ? html`<button type="button" onClick=${report}>report</button>`
        : html`<a class="button" href=${`/api/v1/${jobPath(id, "report")}`} target="_blank" rel="noopener">report</a>`)}`}
    ${ended(state) && html`<button type="button" class="danger" onClick=${remove}>delete</button>`}
    <${Failure} error=${error} />`;
}

// -- while it runs --------------------------------------------------------------------------------------------------

const STEPS = ["accepted", "planned", "running", "repairing", "merging", "done"];

function useClock(on) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [on]);
  return now;
}

function Progress({ job, live, broken }) {
  const now = useClock(true), began = useRef(Date.now());
  const { state, done, total, repairs, fraction } = { state: job.state, ...job.progress, ...live };
  const share = fraction ?? (total ? done / total : 0);
  const at = STEPS.indexOf(state);
  const steps = repairs || state === "repairing" ? STEPS : STEPS.filter((step) => step !== "repairing");
  const spent = (now - Math.min(began.current, now)) / 1000;
  const told = `${STATE_NAMES[state] ?? state}: ${count(done)} of ${count(total)} tasks`;
  return html`<${Card} title="Progress">
    <p class="big">${Math.floor(share * 100)}%</p>
    <div class="progress" role="progressbar" aria-label="progress" aria-valuemin="0" aria-valuemax="100"
      aria-valuenow=${Math.floor(share * 100)} aria-valuetext=${told}><i style="width:${share * 100}%"></i></div>
    <ol class="steps">${steps.map((step) => {
      const k = STEPS.indexOf(step);
      const text = step === "running" && total ? `running, ${count(done)} of ${count(total)} tasks`
        : step === "repairing" && repairs ? `repairing, ${count(repairs)} slices` : step;
      return html`<li key=${step} class=${k < at ? "past" : k === at ? "now" : ""} aria-current=${k === at ? "step" : undefined}>${text}</li>`;
    })}</ol>
    <p class="note">${spent >= 1 ? `${seconds(Math.floor(spent))} so far` : "just begun"}${job.plan?.estimated_seconds
      ? `, estimated ${seconds(job.plan.estimated_seconds)}` : ""}.${broken ? " The stream broke: connecting again …" : ""}</p>
  </${Card}>`;
}

function Stopped({ job, live, state }) {
  const [error, setError] = useState(null);
  const again = async () => {
    try {
      await post("backtest", job.request);
      location.reload();
    } catch (problem) { setError(problem); }
  };
  return html`<${Card} title=${state === "failed" ? "It failed" : "It was cancelled"}>
    <p class="problem ${state === "failed" ? "" : "mild"}" role="alert">${live?.reason || job.reason || "no reason was given"}</p>
    <p><button type="button" onClick=${again}>ask for it again</button></p>
    <${Failure} error=${error} />
  </${Card}>`;
}

// -- what was asked -------------------------------------------------------------------------------------------------

const PPM = ["fee", "maker_fee", "slippage", "stop_loss", "take_profit", "trailing_stop", "volume_share"];
const AMOUNTS = ["quantity", "capital", "notional"];

function optionOf(name, v) {
  if (PPM.includes(name)) return v === 0 ? "none" : `${count(v)} ppm (${percent(v * 100, 4).replace(/\.?0+%/, "%")})`;
  if (AMOUNTS.includes(name)) return String(Number(v) / 1e8).length < 16 ? (Number(v) / 1e8).toLocaleString("en", { maximumFractionDigits: 8 }) : v;
  if (name === "timeframe") return `${v} min`;
  return typeof v === "boolean" ? (v ? "yes" : "no") : value(v);
}

const APART = ["symbol", "strategy", "params", "grid", "start", "end", "schedule", "volume_scale"];

/** The whole resolved configuration, and how to ask for it again. */
export function Asked({ job, more = [] }) {
  const { spec } = job, result = job.result?.result ?? job.result ?? {};
  const rows = [
    ["symbol", spec.symbol.replaceAll(",", ", ")], ["strategy", spec.strategy],
    ...Object.entries(spec.params ?? {}).map(([name, v]) => [`parameter ${name}`, value(v)]),
    ...Object.entries(spec.grid ?? {}).map(([name, v]) => [`grid ${name}`, `${v[0]} to ${v.at(-1)}, ${count(v.length)} values`]),
    ["range", range(spec.start, spec.end)],
    ...Object.entries(spec).filter(([name, v]) => !APART.includes(name) && v !== null && v !== undefined).map(([name, v]) => [name.replaceAll("_", " "), optionOf(name, v)]),
    ...more,
  ];
  const digests = [["job", job.job_id], ["digest of the candles", result.data_digest], ["digest of the result", result.result_digest],
    ["asked for", minute(job.created_ms)]].filter(([, v]) => v);
  return html`<${Card} title="What was run" id="asked">
    <dl class="facts">${rows.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>
    <dl class="facts wider">${digests.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd class="mono">${text}</dd></div>`)}</dl>
    <${Command} text=${curlOf(job.request, hasKey())} label="curl line" />
    <${Command} text=${commandOf(job.request)} label="command line" />
  </${Card}>`;
}
