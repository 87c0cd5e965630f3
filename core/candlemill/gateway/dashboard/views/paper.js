// Paper runs as they decide: the list of runs, and of one its last decisions. Requested again every two seconds.
import { html, useEffect, useState } from "../lib.js";
import { get } from "../api.js";
import { count, exact, minute, money, NONE } from "../format.js";
import { settingsText } from "./job_setup.js";
import { Busy, Card, Command, Failure, Head, Wide } from "../ui.js";

const EVERY_MS = 2000;

/** What the server answers at `path`, again and again while the view is shown. */
function usePolled(path) {
  const [found, setFound] = useState({});
  useEffect(() => {
    const aborted = new AbortController();
    let timer = 0;
    const ask = () =>
      get(path, {}, aborted.signal)
        .then((value) => setFound({ value }))
        .catch((error) => error.name !== "AbortError" && setFound((before) => ({ ...before, error })))
        .finally(() => {
          if (!aborted.signal.aborted) timer = setTimeout(ask, EVERY_MS);
        });
    ask();
    return () => {
      aborted.abort();
      clearTimeout(timer);
    };
  }, [path]);
  return found;
}

const percent = (ppm) => (ppm === null ? "keep" : `${ppm / 10_000}%`);
const orders = (decision) =>
  decision.orders.map((o) => `${o.kind} ${o.side > 0 ? "buy" : "sell"} ${exact(o.price)}`).join(", ") || NONE;
const fills = (decision) =>
  decision.fills
    .map((f) => `${f.side > 0 ? "bought" : "sold"} ${f.quantity === null ? "" : exact(f.quantity)} at ${exact(f.price)}`)
    .join(", ") || NONE;
const equity = (decision) => (decision.equity === null ? NONE : money(decision.equity));

const Runs = ({ runs }) => html`<${Wide} name="paper runs"><table>
  <thead><tr><th scope="col">symbol</th><th scope="col">strategy</th><th scope="col" class="n">equity</th><th scope="col" class="n">holds</th>
    <th scope="col" class="n">target</th><th scope="col">last minute</th><th scope="col">since</th></tr></thead>
  <tbody>${runs.map(
    (run) => html`<tr key=${run.run}>
      <td><a href="#/paper/${run.run}">${run.symbol}</a></td><td>${run.strategy}</td>
      <td class="n">${run.last ? equity(run.last) : NONE}</td>
      <td class="n">${run.last ? percent(run.last.exposure) : NONE}</td>
      <td class="n">${run.last ? percent(run.last.target) : NONE}</td>
      <td>${run.last ? minute(run.last.minute) : NONE}</td><td>${minute(run.since)}</td></tr>`,
  )}</tbody></table><//>`;

const Decisions = ({ decisions }) => html`<${Wide} name="decisions"><table>
  <thead><tr><th scope="col">minute</th><th scope="col" class="n">equity</th><th scope="col" class="n">holds</th><th scope="col" class="n">target</th>
    <th scope="col">fills</th><th scope="col">orders</th><th scope="col" class="n">attempt</th></tr></thead>
  <tbody>${decisions.map(
    (one) => html`<tr key=${`${one.minute} ${one.attempt}`}>
      <td>${minute(one.minute)}</td><td class="n">${equity(one)}</td>
      <td class="n">${percent(one.exposure)}</td><td class="n">${percent(one.target)}</td>
      <td>${fills(one)}</td><td>${orders(one)}</td><td class="n">${count(one.attempt)}</td></tr>`,
  )}</tbody></table><//>`;

function AllRuns() {
  const { value, error } = usePolled("paper");
  const head = html`<${Head} title="Paper" below="Strategies that decide on an exchange's candles as they close." />`;
  if (!value) return html`${head}${error ? html`<${Failure} error=${error} />` : html`<${Busy} />`}`;
  return html`${head}<${Failure} error=${error} />
    <${Card} title="Runs" note="No order is ever placed. A decision counts if no later attempt of its minute follows.">
      ${
        value.runs.length
          ? html`<${Runs} runs=${value.runs} />`
          : html`<p>None yet. One begins with</p>
            <${Command} text="candlemill paper --symbol BTCUSDT --strategy sma_cross" label="command" />`
      }
    <//>`;
}

function OneRun({ id }) {
  const { value, error } = usePolled(`paper/${encodeURIComponent(id)}`);
  if (!value) return html`<${Head} title="Paper" below=${id} />${error ? html`<${Failure} error=${error} />` : html`<${Busy} />`}`;
  const { run, decisions } = value;
  const text = settingsText(run.settings);
  const below = html`<a href="#/paper">all runs</a> · decides since ${minute(run.since)} on candles from
    ${" "}${minute(run.start)} UTC`;
  return html`<${Head} title="${run.symbol} · ${run.strategy}${text && `(${text})`}"
      below=${below} />
    <${Failure} error=${error} />
    <${Card} title="Decisions"><${Decisions} decisions=${decisions} /><//>`;
}

export function Paper({ route }) {
  const id = route.path[1];
  return id ? html`<${OneRun} id=${id} />` : html`<${AllRuns} />`;
}
