// One job: while it runs its progress, then its result by the kind that it is.
import { html, useEffect, useRef, useState } from "../lib.js";
import { del, download, events, get, hasKey, job as jobPath, post, put } from "../api.js";
import { count, plural, range, seconds } from "../format.js";
import { fieldsOf } from "../request.js";
import { go, to } from "../route.js";
import { preload } from "../charts/chart.js";
import { Badge, Busy, Card, Failure, Head, KIND_NAMES, STATE_NAMES, ended, useNarrow } from "../ui.js";
import { JobSetup, titleOf } from "./job_setup.js";
import { OfSymbols } from "./of_symbols.js";
import { Panel, isPanel } from "./panel.js";
import { Portfolio } from "./portfolio.js";
import { Run } from "./run.js";
import { Study } from "./study.js";
import { Sweep } from "./sweep.js";
import { Walk } from "./walk.js";

const RESULTS = {
  backtest: Run,
  sweep: Sweep,
  portfolio: Portfolio,
  walk_forward: Walk,
  sweeps: OfSymbols,
  walk_forwards: OfSymbols,
  study: Study,
};
const NOT_COMPARED = ["sweep", "sweeps", "walk_forwards", "study"];

/** The job as it is now: its row, what the stream says while it runs, and the row again when it has ended. */
function useJob(id) {
  const [state, setState] = useState({ job: null, error: null, live: null, broken: false });
  useEffect(() => {
    let stop = () => {},
      gone = false;
    const put = (changed) => {
      if (!gone) setState((old) => ({ ...old, ...changed }));
    };
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
    const onEvent = (name, data) => {
      put({ live: data, broken: false });
      if (name !== "progress") load();
    };
    load().then((job) => {
      if (job && !gone && !ended(job.state)) stop = events(id, onEvent, (broken) => put({ broken }));
    });
    return () => {
      gone = true;
      stop();
    };
  }, [id]);
  return state;
}

export function Job({ route }) {
  const id = route.path[1] ?? "";
  const { job, error, live, broken } = useJob(id);
  useEffect(preload, []);
  if (!job && error?.status === 404) return html`<${Unknown} id=${id} />`;
  if (!job) {
    const waiting = error ? html`<${Failure} error=${error} />` : html`<${Busy} />`;
    return html`<${Head} title="Job" below=${id} />${waiting}`;
  }
  const state = live?.state ?? job.state;
  const Result = job.kind === "backtest" && isPanel(job.spec) ? Panel : (RESULTS[job.kind] ?? Run);
  const when = range(job.spec.start, job.spec.end);
  const below = html`<${Badge} state=${state} /> · ${KIND_NAMES[job.kind]} · ${when} UTC`;
  return html`
    <${Head} title=${titleOf(job)}
      below=${below}>
      <${Actions} job=${job} state=${state} />
    </${Head}>
    <div class="cards">
      <${Failure} error=${error} />
      ${!ended(state) && html`<${Progress} job=${job} live=${live} broken=${broken} />`}
      ${(state === "failed" || state === "cancelled") && html`<${Stopped} job=${job} live=${live} state=${state} />`}
      ${job.state === "done" && job.result && html`<${Result} job=${job} route=${route} />`}
      ${state !== "done" && html`<${JobSetup} job=${job} />`}
      <${Notes} id=${id} />
    </div>`;
}

const Unknown = ({ id }) => html`<${Head} title="No such job" />
  <p>This store has no job ${id.slice(0, 12)}: it was deleted, or belongs to another store.
    ${" "}<a href="#/jobs">All jobs</a>, or <a href="#/new">a new one</a>.</p>`;

function Actions({ job, state }) {
  const [error, setError] = useState(null);
  const id = job.job_id;
  const attempt = (what) => async () => {
    try {
      setError(null);
      await what();
    } catch (problem) {
      setError(problem);
    }
  };
  const remove = attempt(async () => {
    if (!confirm("Delete this job and its result?")) return;
    await del(jobPath(id));
    go("#/jobs");
  });
  const again = attempt(async () => {
    await post("optimize", job.request);
    location.reload();
  });
  const cancel = attempt(() => post(jobPath(id, "cancel")));
  const name = `candlemill-${id.slice(0, 12)}`;
  const json = attempt(() => download(jobPath(id), `${name}.json`));
  const report = attempt(() => download(jobPath(id, "report"), `${name}.html`));
  const beside = html`<a class="button" href=${to(["compare", id])} title="beside other jobs">compare</a>`;
  const page = hasKey() // which a link cannot send
    ? html`<button type="button" onClick=${report}>report</button>`
    : html`<a class="button" href=${`/api/v1/${jobPath(id, "report")}`} target="_blank" rel="noopener">report</a>`;
  const all = html`
    ${!ended(state) && html`<button type="button" onClick=${cancel}>cancel</button>`}
    ${
      !job.request.points &&
      html`<a class="button" href=${to(["new"], fieldsOf(job.request))}
        title="the form, filled in with this job">edit as new</a>`
    }
    ${job.kind === "study" && ended(state) && state !== "done" && html`<button type="button" class="main"
      onClick=${again}>go on</button>`}
    ${state === "done" && !NOT_COMPARED.includes(job.kind) && beside}
    ${state === "done" && html`<button type="button" onClick=${json}>JSON</button>`}
    ${state === "done" && html`<${Tables} job=${job} attempt=${attempt} />`}
    ${state === "done" && page}
    ${ended(state) && html`<button type="button" class="danger" onClick=${remove}>delete</button>`}
    <${Failure} error=${error} />`;
  if (!useNarrow() || !ended(state)) return all;
  return html`<details class="fold"><summary>actions and files</summary><div class="actions">${all}</div></details>`;
}

// -- notes ----------------------------------------------------------------------------------------------------------

const EMPTY = { label: "", note: "", tags: [] };

/** Label, note and tags: saved when a field is left. */
function Notes({ id }) {
  const [notes, setNotes] = useState(null);
  const [error, setError] = useState(null);
  const [said, setSaid] = useState("");
  useEffect(() => {
    let gone = false;
    setNotes(null);
    get(jobPath(id, "notes")).then(
      (found) => gone || setNotes(found),
      () => gone || setNotes(null),
    );
    return () => {
      gone = true;
    };
  }, [id]);
  if (!notes) return null;
  const save = async (changed) => {
    const next = { ...EMPTY, ...notes, ...changed };
    if (JSON.stringify(next) === JSON.stringify({ ...EMPTY, ...notes })) return;
    try {
      setNotes(await put(jobPath(id, "notes"), next));
      setError(null);
      setSaid("saved");
    } catch (problem) {
      setError(problem);
      setSaid("");
    }
  };
  const tagsOf = (text) => text.split(",").map((tag) => tag.trim()).filter(Boolean);
  return html`<${Card} title="Notes" note="For finding it again. The result does not depend on them.">
    <div class="notes">
      <label>label <input type="text" maxlength="200" value=${notes.label}
        onChange=${(event) => save({ label: event.target.value.trim() })} /></label>
      <label>tags <input type="text" value=${notes.tags.join(", ")} placeholder="with commas between them"
        onChange=${(event) => save({ tags: tagsOf(event.target.value) })} /></label>
      <label>note <textarea rows="3" maxlength="4000" value=${notes.note}
        onChange=${(event) => save({ note: event.target.value })}></textarea></label>
    </div>
    <p class="note" role="status">${said}</p>
    <${Failure} error=${error} />
  </${Card}>`;
}

// -- tables as files ------------------------------------------------------------------------------------------------

const OF_RUN = ["trades", "orders", "daily", "equity"];
const TABLES = {
  sweep: ["sets"],
  sweeps: ["sets"],
  study: ["sets"],
  portfolio: ["trades", "orders", "daily"],
  walk_forwards: ["trades", "orders", "daily"],
};

/** Whole tables as files: exact decimals, for other programs. */
function Tables({ job, attempt }) {
  const [format, setFormat] = useState("csv");
  const id = job.job_id;
  const save = (table) => {
    const name = `${table}-${id.slice(0, 12)}.${format}`;
    return attempt(() => download(jobPath(id, `tables/${table}`), name, { format }));
  };
  const tables = TABLES[job.kind] ?? (isPanel(job.spec) ? [...OF_RUN, "contribution"] : OF_RUN);
  return html`<span class="joined" role="group" aria-label="download tables">
    <select aria-label="format of downloads" value=${format} onChange=${(event) => setFormat(event.target.value)}>
      ${["csv", "parquet", "arrow"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>
    ${tables.map(
      (table) => html`<button key=${table} type="button" onClick=${save(table)}
        title="download ${table} as ${format}">${table}</button>`,
    )}</span>`;
}

// -- while it runs --------------------------------------------------------------------------------------------------

const TICK_MS = 100;
const STEPS = ["accepted", "planned", "running", "repairing", "merging", "done"];

function useClock(on) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(timer);
  }, [on]);
  return now;
}

/** How far the bar goes beyond the finished tasks: by the estimate towards the end of the next one, never up to it. */
function ahead(seconds, total, estimate, planned) {
  const reached = 1 - Math.exp((-seconds * total) / (estimate || 5));
  return (reached * (planned ? 0.95 : 0.05)) / total;
}

function Progress({ job, live, broken }) {
  const now = useClock(true),
    began = useRef(Date.now()),
    last = useRef({ done: 0, at: began.current });
  const { state, done, total, repairs, fraction } = { state: job.state, ...job.progress, ...live };
  const share = fraction ?? (total ? done / total : 0);
  if (last.current.done !== done) last.current = { done, at: now };
  const more = ahead(Math.max(now - last.current.at, 0) / 1000, total || 1, job.plan?.estimated_seconds, state !== "accepted");
  const at = STEPS.indexOf(state);
  const steps = repairs || state === "repairing" ? STEPS : STEPS.filter((step) => step !== "repairing");
  const spent = (now - Math.min(began.current, now)) / 1000;
  const described = `${STATE_NAMES[state] ?? state}: ${count(done)} of ${count(total)} tasks`;
  return html`<${Card} title="Progress">
    <p class="big">${Math.floor(share * 100)}%</p>
    <div class="progress" role="progressbar" aria-label="progress" aria-valuemin="0" aria-valuemax="100"
      aria-valuenow=${Math.floor(share * 100)} aria-valuetext=${described}><i style="width:${Math.min(share + more, 1) * 100}%"></i></div>
    <ol class="steps">${steps.map((step) => {
      const k = STEPS.indexOf(step);
      const text =
        step === "running" && total
          ? `running, ${count(done)} of ${count(total)} tasks`
          : step === "repairing" && repairs
            ? `repairing, ${plural(repairs, "slice")}`
            : step;
      return html`<li key=${step} class=${k < at ? "past" : k === at ? "now" : ""}
        aria-current=${k === at ? "step" : undefined}>${text}</li>`;
    })}</ol>
    <p class="note">${spent >= 1 ? `${seconds(Math.floor(spent))} so far` : "just begun"}${
      job.plan?.estimated_seconds ? `, estimated ${seconds(job.plan.estimated_seconds)}` : ""
    }.${broken ? " The stream broke: connecting again …" : ""}</p>
  </${Card}>`;
}

function Stopped({ job, live, state }) {
  const [error, setError] = useState(null);
  const again = async () => {
    try {
      await post("backtest", job.request);
      location.reload();
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Card} title=${state === "failed" ? "It failed" : "It was cancelled"}>
    <p class="problem ${state === "failed" ? "" : "mild"}"
      role="alert">${live?.reason || job.reason || "no reason was given"}</p>
    <p><button type="button" onClick=${again}>ask for it again</button></p>
    <${Failure} error=${error} />
  </${Card}>`;
}
