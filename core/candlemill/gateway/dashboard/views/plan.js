// What the form's job would do, as the server plans it, and what starts it.
import { html, useEffect, useRef, useState } from "../lib.js";
import { hasKey, post } from "../api.js";
import { count, plural, range, seconds } from "../format.js";
import { bodyOf, commandOf, curlOf, isSearch, studyOf } from "../request.js";
import { go, to } from "../route.js";
import { Card, Command, Failure, Pairs, useSettled } from "../ui.js";
import { fieldOf, readable } from "./blame.js";

/** The plan of the fields, requested when typing rests: `{ data, error, pending, body }`. */
export function usePlan(fields) {
  const search = isSearch(fields) ? studyOf(fields) : null;
  const { grid, walk_forward: walk, ...single } = bodyOf(fields);
  const text = JSON.stringify(search ? single : bodyOf(fields)); // of a study one of its trials is planned
  const settled = useSettled(text, 200);
  const [state, setState] = useState({ data: null, error: null, of: null });
  useEffect(() => {
    const abort = new AbortController();
    post("plan", JSON.parse(settled), abort.signal).then(
      (described) => setState({ data: { kind: described.kind, ...described.plan }, error: null, of: settled }),
      (error) =>
        error.name !== "AbortError" &&
        setState({
          data: null,
          error: Object.assign(error, { field: fieldOf(error), message: readable(error.message) }),
          of: settled,
        }),
    );
    return () => abort.abort();
  }, [settled]);
  return { ...state, pending: state.of !== text, body: search ?? JSON.parse(text) };
}

const WORDS = { backtest: "backtest", sweep: "sweep", portfolio: "portfolio", walk_forward: "walk-forward", sweeps: "sweeps", walk_forwards: "walk-forwards", study: "study" };

function sentence(kind, data) {
  if (kind === "sweep") return `Sweep of ${plural(data.sets, "parameter set")}`;
  if (kind === "walk_forward") return `Walk-forward over ${plural(data.sets, "parameter set")}`;
  if (kind === "sweeps") return `A sweep for each symbol, ${plural(data.sets, "parameter set")} in all`;
  if (kind === "walk_forwards") return `A walk-forward for each symbol, over ${plural(data.sets, "parameter set")} in all`;
  if (kind === "portfolio") return `Portfolio of ${plural(data.sets, "symbol")}`;
  return "Backtest of one parameter set";
}

function kindOf(body, data) {
  if (body.space) return "study";
  if (data?.kind) return data.kind;
  const several = Array.isArray(body.symbol) ? body.symbol.length > 1 : /[,*?[]/.test(body.symbol);
  if (body.walk_forward) return several ? "walk_forwards" : "walk_forward";
  if (body.grid) return several ? "sweeps" : "sweep";
  return several ? "portfolio" : "backtest";
}

export function Plan({ plan }) {
  const [failed, setFailed] = useState(null);
  const [starting, setStarting] = useState(false);
  const { data, error, pending, body } = plan;
  const kind = kindOf(body, data);
  const shown = useRef(null);
  useEffect(() => setFailed(null), [JSON.stringify(body)]);
  const start = async () => {
    setStarting(true);
    try {
      go(to(["job", (await post(body.space ? "optimize" : "backtest", body)).job_id]));
    } catch (problem) {
      setFailed(problem);
      setStarting(false);
    }
  };
  return html`<${Card} title="Plan" kind="plan">
    <div ref=${shown} aria-live="polite" class=${pending ? "stale" : ""}>
      ${
        data &&
        html`<p class="what">${body.space ? `Study of ${plural(body.trials, "trial")}` : sentence(kind, data)}</p>
        ${body.space && html`<p class="note">Each trial is a job like this:</p>`}
        <${Pairs} rows=${planRows(data)} />
        <${Missing} data=${data} />`
      }
      ${!data && !error && html`<p class="busy">planning …</p>`}
      ${error && html`<${Failure} error=${error} />`}
    </div>
    <${Failure} error=${failed} />
    <button type="button" class="main" disabled=${starting || !!error} onClick=${start} data-start>
      ${starting ? "starting …" : data?.cached && !body.space ? `Open the ${WORDS[kind]}` : `Start the ${WORDS[kind]}`}
    </button>
    <details style="margin-top:14px"><summary class="muted">the same from a shell</summary>
      <div><${Command} text=${curlOf(body, hasKey())} label="curl line" />
      <${Command} text=${commandOf(body)} label="command line" /></div>
    </details>
  </${Card}>`;
}

function planRows({ rows, start, end, slices, tasks, cached, reuse, estimated_seconds: estimate }) {
  const found = [["candles", count(rows)]];
  if (start !== undefined) found.unshift(["range", range(start, end)]);
  found.push(["slices", count(slices)], ["tasks", count(tasks)]);
  if (cached) found.push(["known already", "all: the answer is stored"]);
  else if (reuse) found.push(["known already", `${count(reuse.reused_slices)} of ${count(reuse.slices)} slices`]);
  if (reuse && !cached && reuse.outcomes > reuse.slices) {
    found.push(["of all sets", `${count(reuse.reused_outcomes)} of ${count(reuse.outcomes)} outcomes`]);
  }
  found.push(["estimate", cached ? "at once" : seconds(estimate)]);
  return found;
}

const REASONS = {
  new_set: "not run before",
  new_range: "run over other ranges only",
  candles_changed: "its candles have changed",
  other_code: "run by other code only",
};
const STRETCHES = 4;

/** Which slices have to be computed, and why they are not known. */
function Missing({ data }) {
  const missing = data.cached || !data.reuse?.reused_slices ? [] : (data.reuse.missing ?? []);
  if (!missing.length) return null;
  const line = ({ start, end, slices, sets, reason }) =>
    `${range(start, end)}, ${plural(slices, "slice")}${sets > 1 ? ` for ${count(sets)} sets` : ""}: ${REASONS[reason]}`;
  const rest = missing.length - STRETCHES;
  return html`<p class="note">To compute: ${missing.slice(0, STRETCHES).map(line).join("; ")}${
    rest > 0 ? `; and ${plural(rest, "stretch", "stretches")} more` : ""
  }.</p>`;
}
