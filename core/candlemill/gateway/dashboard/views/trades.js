// A run's trades, page by page; a row leads to its place in the charts.
import { html, useEffect, useState } from "../lib.js";
import { job as jobPath, useGet } from "../api.js";
import { MINUTE, count, exact, exactColumn, largest, minute, money, span } from "../format.js";
import { replace, to } from "../route.js";
import { Busy, Card, Failure, Pages, SortHead, toned, useNarrow, Wide } from "../ui.js";

const LIMIT = 15;

/** `many`: they are of several symbols, with prices of different size. */
export function Trades({ id, route, many }) {
  const { from, to: until } = route.query;
  const [sort, setSort] = useState({ sort: "exit", order: "asc" });
  const [cursors, setCursors] = useState([""]);
  useEffect(() => setCursors([""]), [from, until, sort]);
  const { data, error } = useGet(jobPath(id, "trades"), {
    from,
    to: until && until - MINUTE,
    ...sort,
    limit: LIMIT,
    cursor: cursors.at(-1),
  });
  const by = (name) =>
    setSort((old) => ({ sort: name, order: old.sort === name && old.order === "desc" ? "asc" : "desc" }));
  const look = (trade) => {
    replace(lookAt(route, trade.entry_ms, trade.exit_ms));
    document.querySelector("[data-price]")?.closest("section").scrollIntoView({ block: "start", behavior: "smooth" });
  };
  const first = (cursors.length - 1) * LIMIT;
  const rows = data?.items ?? [];
  const shown = rows.length ? `${count(first + 1)} to ${count(first + rows.length)}` : "none";
  const top = largest(rows.map((t) => t.pnl));
  const price = many ? exact : exactColumn(rows.flatMap((t) => [t.entry_price, t.exit_price]));
  const narrow = useNarrow(); // where the profit comes first
  const head = html`<${SortHead} name="pnl" text="profit" ...${sort} onSort=${by} />`;
  const profit = (t) => html`<td class="n">${toned(money(t.pnl, top), t.pnl)}</td>`;
  return html`<${Card} title=${from ? "Trades of the span" : "Trades"}>
    <${Failure} error=${error} />
    ${!data && !error && html`<${Busy} />`}
    ${data && !rows.length && html`<p class="empty">No trade was closed${from ? " in this span" : ""}.</p>`}
    ${
      rows.length > 0 &&
      html`<${Wide} name="trades"><table>
      <thead><tr>
        <th scope="col">entry</th>${narrow && head}${many && html`<th scope="col">symbol</th>`}
        <${SortHead} name="exit" text="exit" ...${sort} onSort=${by} numeric=${false} />
        <th scope="col">side</th>${!narrow && head}
        <th scope="col" class="n">held</th><th scope="col" class="n">entry price</th>
        <th scope="col" class="n">exit price</th>
        <th scope="col" class="n">fees</th><th scope="col">ended by</th>
      </tr></thead>
      <tbody>${rows.map(
        (t) => html`<tr key=${t.entry_ms} class="goes" onClick=${() => look(t)}>
        <td><button type="button" class="link" title="show it in the charts">${minute(t.entry_ms)}</button></td>
        ${narrow && profit(t)}${many && html`<td>${t.symbol}</td>`}
        <td>${minute(t.exit_ms)}</td>
        <td>${t.side > 0 ? "long" : "short"}</td>
        ${!narrow && profit(t)}
        <td class="n">${span(t.exit_ms - t.entry_ms)}</td>
        <td class="n">${price(t.entry_price)}</td><td class="n">${price(t.exit_price)}</td>
        <td class="n">${money(t.fees, top)}</td><td>${t.reason}${t.gap ? ", over a gap" : ""}</td>
      </tr>`,
      )}</tbody></table></${Wide}>
      <${Pages} shown=${shown} total=${data.total === undefined ? "" : count(data.total)} cursors=${cursors}
        next=${data.next} onPage=${setCursors} />`
    }
  </${Card}>`;
}

/** The page of a run with its charts on a stretch of time, and some around it. */
const lookAt = (route, from, until) => {
  const pad = Math.max((until - from) * 0.4, 30 * MINUTE);
  return to(route.path, {
    ...route.query,
    from: Math.floor((from - pad) / MINUTE) * MINUTE,
    to: Math.ceil((until + pad) / MINUTE) * MINUTE,
  });
};
