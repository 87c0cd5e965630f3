// What the form's job would do, as the server plans it, and what starts it.
import { html, useEffect, useRef, useState } from "../lib.js";
import { hasKey, post } from "../api.js";
import { count, plural, seconds } from "../format.js";
import { bodyOf, commandOf, curlOf } from "../request.js";
import { go, to } from "../route.js";
import { Card, Command, Failure, Pairs, useSettled } from "../ui.js";
import { fieldOf } from "./blame.js";

/** The plan of the fields, asked for when typing rests: `{ data, error, pending, body }`. */
export function usePlan(fields) {
  const text = JSON.stringify(bodyOf(fields));
  const settled = useSettled(text, 200);
  const [state, setState] = useState({ data: null, error: null, of: null });
  useEffect(() => {
    const abort = new AbortController();
    post("plan", JSON.parse(settled), abort.signal).then(
      (told) => setState({ data: { kind: told.kind, ...told.plan }, error: null, of: settled }),
      (error) => error.name !== "AbortError" &&
        setState({ data: null, error: Object.assign(error, { field: fieldOf(error) }), of: settled }),
    );
    return () => abort.abort();
  }, [settled]);
  return { ...state, pending: state.of !== text, body: JSON.parse(text) };
}

const WORDS = { backtest: "backtest", sweep: "sweep", portfolio: "portfolio", walk_forward: "walk-forward" };

function sentence(kind, data, body) {
  const symbols = [].concat(body.symbol).join(",");
  if (kind === "sweep") return `Sweep of ${plural(data.sets, "parameter set")}`;
  if (kind === "walk_forward") return `Walk-forward over ${plural(data.sets, "parameter set")}`;
  if (kind === "portfolio") return `Portfolio of ${plural(data.symbols ?? symbols.split(",").length, "symbol")}`;
  return "Backtest of one parameter set";
}

function reused({ cached, reuse }) {
  if (cached) return "all of it: the answer is stored";
  const done = reuse?.slices ?? reuse?.reused ?? 0, of = reuse?.of ?? reuse?.total;
  return done ? `${count(done)}${of ? ` of ${count(of)}` : ""} slices` : "nothing yet";
}

export function kindOf(body, data) {
  if (data?.kind) return data.kind;
  const several = Array.isArray(body.symbol) ? body.symbol.length > 1 : /[,*?[]/.test(body.symbol);
  return several ? "portfolio" : body.walk_forward ? "walk_forward" : body.grid ? "sweep" : "backtest";
}

export function Plan({ plan, fields }) {
  const [failed, setFailed] = useState(null);
  const [starting, setStarting] = useState(false);
  const { data, error, pending, body } = plan;
  const kind = kindOf(body, data);
  const shown = useRef(null);
  useEffect(() => setFailed(null), [JSON.stringify(body)]);
  const start = async () => {
    setStarting(true);
    try {
      go(to(["job", (await post("backtest", body)).job_id]));
    } catch (problem) {
      setFailed(problem);
      setStarting(false);
    }
  };
  return html`<${Card} title="Plan" kind="plan">
    <div ref=${shown} aria-live="polite" class=${pending ? "stale" : ""}>
      ${data && html`<p class="what">${sentence(kind, data, body)}</p>
        <${Pairs} rows=${planRows(data)} />`}
      ${!data && !error && html`<p class="busy">planning …</p>`}
      ${error && html`<${Failure} error=${error} />`}
    </div>
    <${Failure} error=${failed} />
    <button type="button" class="main" disabled=${starting || !!error} onClick=${start} data-start>
      ${starting ? "starting …" : data?.cached ? `Open the ${WORDS[kind]}` : `Start the ${WORDS[kind]}`}
    </button>
    <details style="margin-top:14px"><summary class="muted">the same from a shell</summary>
      <div><${Command} text=${curlOf(body, hasKey())} label="curl line" />
      <${Command} text=${commandOf(body)} label="command line" /></div>
    </details>
  </${Card}>`;
}

function planRows(data) {
  const rows = [["candles", count(data.rows)]];
  if (data.missing_minutes) rows.push(["missing minutes", count(data.missing_minutes)]);
  if (data.folds) rows.push(["folds", count(data.folds)]);
  rows.push(["slices", count(data.slices)], ["tasks", count(data.tasks)], ["known already", reused(data)]);
  rows.push(["estimate", data.cached ? "at once" : seconds(data.estimated_seconds)]);
  return rows;
}
