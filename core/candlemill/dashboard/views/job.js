// One job: while it runs its progress, then its result by the kind that it is.
import { html, useEffect, useRef, useState } from "../lib.js";
import { del, download, events, get, hasKey, job as jobPath, post } from "../api.js";
import { count, plural, range, seconds } from "../format.js";
import { fieldsOf } from "../request.js";
import { go, to } from "../route.js";
import { preload } from "../charts/chart.js";
import { Badge, Busy, Card, Failure, Head, KIND_NAMES, STATE_NAMES, ended } from "../ui.js";
import { Asked, titleOf } from "./asked.js";
import { Portfolio } from "./portfolio.js";
import { Run } from "./run.js";
import { Sweep } from "./sweep.js";
import { Walk } from "./walk.js";

const RESULTS = { backtest: Run, sweep: Sweep, portfolio: Portfolio, walk_forward: Walk };

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
    const heard = (name, data) => {
      put({ live: data, broken: false });
      if (name !== "progress") load();
    };
    load().then((job) => {
      if (job && !gone && !ended(job.state)) stop = events(id, heard, (broken) => put({ broken }));
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
  if (!job) {
    const waiting = error ? html`<${Failure} error=${error} />` : html`<${Busy} />`;
    return html`<${Head} title="Job" below=${id} />${waiting}`;
  }
  const state = live?.state ?? job.state;
  const Result = RESULTS[job.kind] ?? Run;
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
      ${state !== "done" && html`<${Asked} job=${job} />`}
    </div>`;
}

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
  const cancel = attempt(() => post(jobPath(id, "cancel")));
  const name = `candlemill-${id.slice(0, 12)}`;
  const json = attempt(() => download(jobPath(id), `${name}.json`));
  const report = attempt(() => download(jobPath(id, "report"), `${name}.html`));
  const beside = html`<a class="button" href=${to(["compare", id])} title="beside other jobs">compare</a>`;
  const page = hasKey() // which a link cannot send
    ? html`<button type="button" onClick=${report}>report</button>`
    : html`<a class="button" href=${`/api/v1/${jobPath(id, "report")}`} target="_blank" rel="noopener">report</a>`;
  return html`
    ${!ended(state) && html`<button type="button" onClick=${cancel}>cancel</button>`}
    <a class="button" href=${to(["new"], fieldsOf(job.request))}
      title="the form, filled in with this job">edit as new</a>
    ${state === "done" && job.kind !== "sweep" && beside}
    ${state === "done" && html`<button type="button" onClick=${json}>JSON</button>`}
    ${state === "done" && job.kind !== "portfolio" && page}
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
  const now = useClock(true),
    began = useRef(Date.now());
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
