// What each month made: a table, its cells tinted.
import { html, useMemo } from "../lib.js";
import { job as jobPath, useGet } from "../api.js";
import { SCALE, money, percent, sum } from "../format.js";
import { Busy, Card, Failure, useNarrow, Wide } from "../ui.js";

const NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const gain = (share) => percent(share, Math.abs(Number(share)) >= 10 * SCALE ? 0 : 1); // narrow cells

/** A year is the product of its months; a ruined account's later months, in which nothing happens, change nothing. */
function yearOf(months) {
  const defined = months.filter((m) => m.return !== null || BigInt(m.pnl) !== 0n);
  if (!defined.length || defined.some((m) => m.return === null)) return null;
  return Math.round((defined.reduce((all, m) => all * (1 + Number(m.return) / SCALE), 1) - 1) * SCALE);
}

function tint(share, top) {
  if (share === null || !Number(share)) return "";
  const strength = Math.min(Math.abs(Number(share)) / top, 1);
  const color = `var(--${share > 0 ? "up" : "down"}) calc(var(--most) * ${strength.toFixed(3)} + 4%)`;
  return `background:color-mix(in srgb, ${color}, var(--paper))`;
}

export function Months({ id }) {
  const { data, error } = useGet(jobPath(id, "monthly"));
  const narrow = useNarrow();
  const table = useMemo(() => data && tableOf(data.months), [data]);
  return html`<${Card} title="Months" note="Profit of each UTC month over the account's value when it began.">
    <${Failure} error=${error} />
    ${!data && !error && html`<${Busy} />`}
    ${table && html`<${Wide} name="months"><${narrow ? Upright : Flat} ...${table} /></${Wide}>`}
  </${Card}>`;
}

const Cell = ({ month, top, name }) =>
  month
    ? html`<td style=${tint(month.return, top)} title="${name}: profit ${money(month.pnl)}">${gain(month.return)}</td>`
    : html`<td></td>`;
const Total = ({ year, total }) =>
  html`<td class="total" title="${year}: profit ${money(total.pnl)}">${gain(total.return)}</td>`;

/** A row for each year. */
const Flat = ({ rows, top }) => html`<table class="months">
  <thead><tr><th><span class="hidden">year</span>
  </th>${NAMES.map((name) => html`<th scope="col" key=${name}>${name}</th>`)}<th scope="col">Year</th></tr></thead>
  <tbody>${rows.map(
    ({ year, months, total }) => html`<tr key=${year}><th scope="row">${year}</th>
    ${NAMES.map((name, k) => html`<${Cell} key=${name} month=${months[k]} top=${top} name="${name} ${year}" />`)}
    <${Total} year=${year} total=${total} /></tr>`,
  )}</tbody></table>`;

/** A column for each year: a phone is taller than wide. */
const Upright = ({ rows, top }) => html`<table class="months">
  <thead><tr><th><span class="hidden">month</span>
  </th>${rows.map(({ year }) => html`<th scope="col" key=${year}>${year}</th>`)}</tr></thead>
  <tbody>${NAMES.map(
    (name, k) => html`<tr key=${name}><th scope="row">${name}</th>
      ${rows.map(
        ({ year, months }) => html`<${Cell} key=${year} month=${months[k]} top=${top} name="${name} ${year}" />`,
      )}</tr>`,
  )}
    <tr><th scope="row">Year</th>
      ${rows.map(({ year, total }) => html`<${Total} key=${year} year=${year} total=${total} />`)}</tr>
  </tbody></table>`;

function tableOf(found) {
  const sizes = found
    .filter((m) => m.return !== null)
    .map((m) => Math.abs(Number(m.return)))
    .sort((a, b) => a - b);
  const rows = [...new Set(found.map((m) => m.year))].map((year) => {
    const inside = found.filter((m) => m.year === year);
    const months = NAMES.map((_, k) => inside.find((m) => m.month === k + 1) ?? null);
    return { year, months, total: { return: yearOf(inside), pnl: sum(inside.map((m) => m.pnl)) } };
  });
  return { rows, top: sizes[Math.round((sizes.length - 1) * 0.95)] || 1 };
}
