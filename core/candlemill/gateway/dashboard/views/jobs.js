// All jobs: filters, pages, and some of them chosen to compare or delete.
import { html, useEffect, useState } from "../lib.js";
import { del, job as jobPath, post, useGet } from "../api.js";
import { count, day, minute, money, plural } from "../format.js";
import { shown } from "../metrics.js";
import { go, replace, to } from "../route.js";
import { Badge, Busy, broken, Failure, Head, KIND_NAMES, Pages, Select, ended, plainState, toned, useNarrow, useSettled } from "../ui.js";
import { settingsText } from "./job_setup.js";

const LIMIT = 25,
  LOOK_AGAIN_MS = 1500;
const DATE = /^\d{4}(-\d\d(-\d\d)?)?$/;
const STATES = ["done", "accepted", "planned", "repairing", "merging", "failed", "cancelled"];

/** What can be requested: terms that are still being typed are left out. */
const complete = (query) => {
  const shapes = { param: /^[^=]+=.+$/, where: /^[a-z_]+\s*[<>]=?\s*-?\d+(\.\d+)?%?$/, since: DATE, until: DATE };
  return Object.fromEntries(Object.entries(query).filter(([name, v]) => shapes[name]?.test(v) ?? true));
};

export function Jobs({ route }) {
  const { query } = route;
  const [again, setAgain] = useState(0);
  const [cursors, setCursors] = useState([""]);
  const [chosen, setChosen] = useState([]);
  const [failed, setFailed] = useState(null);
  const filters = useSettled(JSON.stringify(query), 250);
  const { data, error } = useGet("backtests", { ...complete(JSON.parse(filters)), limit: LIMIT, cursor: cursors.at(-1) }, again);
  const rows = data?.items ?? [];
  const running = rows.some((row) => !ended(row.state));
  useEffect(() => {
    if (!running) return undefined;
    const timer = setTimeout(() => document.hidden || setAgain((n) => n + 1), LOOK_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [running, data]);
  const put = (changed) => {
    setCursors([""]);
    replace(to(route.path, { ...query, ...changed }));
  };
  const toggle = (id) => setChosen((old) => (old.includes(id) ? old.filter((other) => other !== id) : [...old, id]));
  const act = async (what) => {
    setFailed(null);
    try {
      await what();
    } catch (problem) {
      setFailed(problem);
    }
    setAgain((n) => n + 1);
  };
  const filtered = Object.values(query).some(Boolean);
  const none = html`No job yet: <a href="#/new">begin one</a>.`;
  const first = (cursors.length - 1) * LIMIT;
  const range = rows.length ? `${count(first + 1)} to ${count(first + rows.length)}` : "";
  return html`
    <${Head} title="Jobs" below="Everything that was requested, the newest first.">
    <a class="button main" href="#/new">new</a></${Head}>
    <section class="card" aria-label="jobs">
      <${Filters} query=${query} put=${put} />
      <${Failure} error=${error ?? failed} />
      ${!data && !error && html`<${Busy} />`}
      ${data && !rows.length && html`<p class="empty">${filtered ? "No job is like that." : none}</p>`}
      ${rows.length > 0 && html`<${Table} rows=${rows} chosen=${chosen} toggle=${toggle} act=${act} />`}
      ${data && html`<${Pages} shown=${range} cursors=${cursors} next=${data.next} onPage=${setCursors} />`}
    </section>
    ${chosen.length > 0 && html`<${Picked} chosen=${chosen} clear=${() => setChosen([])} act=${act} />`}`;
}

function Filters({ query, put }) {
  const names = (all, words) => [["", "all"], ...all.map((name) => [name, words(name)])];
  const text = (name, title = name, example = "") => html`<label>${title}
    <input type="text" style="width:130px;height:32px" value=${query[name] ?? ""} placeholder=${example}
      spellcheck=${false} onInput=${(event) => put({ [name]: event.target.value.trim() })} /></label>`;
  const fields = html`<div class="choices" role="search" style="margin-bottom:10px;gap:8px 16px">
    <${Select} label="state" value=${query.state ?? ""} choices=${names(STATES, plainState)}
      onChange=${(state) => put({ state })} />
    <${Select} label="kind" value=${query.kind ?? ""}
      choices=${names(Object.keys(KIND_NAMES), (kind) => KIND_NAMES[kind])} onChange=${(kind) => put({ kind })} />
    ${text("symbol")}${text("strategy")}${text("text", "words")}${text("tag")}
    ${text("param", "parameter", "fast=10")}${text("where", "figure", "sharpe_ratio>1")}
    ${text("since", "from", "2023-05")}${text("until", "to", "2023-06")}
  </div>`;
  if (!useNarrow()) return fields;
  const open = Object.values(query).some(Boolean);
  return html`<details class="fold" open=${open}><summary>search</summary>${fields}</details>`;
}

function Table({ rows, chosen, toggle, act }) {
  return html`<table class="stack">
    <thead><tr><th scope="col"><span class="hidden">choose</span></th><th scope="col">state</th>
    <th scope="col">kind</th><th scope="col">job</th>
      <th scope="col">range</th><th scope="col" class="n">profit</th><th scope="col" class="n">Sharpe</th>
      <th scope="col" class="n">drawdown</th><th scope="col">requested</th>
      <th scope="col"><span class="hidden">do</span></th></tr></thead>
    <tbody>${rows.map(
      (row) => html`
        <${Row} key=${row.job_id} row=${row} chosen=${chosen.includes(row.job_id)} toggle=${toggle} act=${act} />`,
    )}</tbody>
  </table>`;
}

function Row({ row, chosen, toggle, act }) {
  const address = to(["job", row.job_id]);
  const over = ended(row.state);
  const name = `${row.symbol.replaceAll(",", ", ")} · ${row.strategy}`;
  const open = (event) => {
    if (!event.target.closest("a, button, input, label")) go(address);
  };
  const cancel = () => act(() => post(`${jobPath(row.job_id)}/cancel`));
  const remove = () => confirm(`Delete ${name} and its result?`) && act(() => del(jobPath(row.job_id)));
  const share = row.progress?.fraction;
  const best = row.kind === "sweep" && row.sharpe_ratio != null ? "best " : "";
  return html`<tr class="goes ${chosen ? "chosen" : ""}" onClick=${open}>
    <td class="a-pick"><input type="checkbox" checked=${chosen} onChange=${() => toggle(row.job_id)}
      aria-label="choose ${name}" /></td>
    <td class="a-state"><${Badge}
      state=${row.state} />${!over && share > 0 ? html` <span class="muted">${Math.floor(share * 100)}%</span>` : ""}
      </td>
    <td class="a-kind nowrap">${KIND_NAMES[row.kind]}${row.sets ? html`<div class="muted">${
      plural(row.sets, row.kind === "study" ? "trial" : "set")}</div>` : ""}</td>
    <th scope="row" class="a-job"><a href=${address}>${broken(name)}</a><div class="muted">${settingsText(row.settings)}</div>
      <${Noted} label=${row.label} tags=${row.tags} /></th>
    <td class="a-range nowrap">${day(row.start)} to ${day(row.end - 1)}</td>
    <td class="n a-profit"
      data-label="profit">${row.total_pnl == null ? "" : toned(money(row.total_pnl), row.total_pnl)}</td>
    <td class="n a-sharpe" data-label="Sharpe">${row.sharpe_ratio == null ? "" : best + shown("sharpe_ratio", row.sharpe_ratio)}</td>
    <td class="n a-drawdown"
      data-label="drawdown">${row.max_drawdown == null ? "" : shown("max_drawdown", row.max_drawdown, row.sizing)}</td>
    <td class="a-when nowrap muted">${minute(row.created_ms)}</td>
    <td class="n a-do">${
      over
        ? html`<button type="button" class="quiet small" aria-label="delete ${name}" onClick=${remove}>delete</button>`
        : html`<button type="button" class="quiet small" aria-label="cancel ${name}" onClick=${cancel}>cancel</button>`
    }</td>
  </tr>`;
}

/** A job's label and tags, as far as it has them. */
function Noted({ label, tags }) {
  if (!label && !tags?.length) return null;
  return html`<div>${label} ${(tags ?? []).map((tag) => html`<a key=${tag} class="tag"
    href=${to(["jobs"], { tag })}>${tag}</a> `)}</div>`;
}

function Picked({ chosen, clear, act }) {
  const remove = () =>
    confirm(`Delete ${chosen.length} jobs and their results?`) &&
    act(async () => {
      for (const id of chosen) await del(jobPath(id));
      clear();
    });
  return html`<div class="picked" role="region" aria-label="chosen jobs">
    <b>${chosen.length} chosen</b>
    <a class="button main" href=${to(["compare", chosen.join(",")])}>compare</a>
    <button type="button" class="danger" onClick=${remove}>delete</button>
    <button type="button" class="quiet" onClick=${clear}>clear</button>
  </div>`;
}
