// A figure of every set of a sweep, over two of its parameters (or over one: bars). A cell can be opened.
import { html, useCallback, useRef, useState } from "../lib.js";
import { label, shown } from "../metrics.js";
import { useColors } from "../theme.js";
import { axisShown, barsOf, best, cellAt, cellsOf, heightOf, nameOf, scale } from "./cells.js";
import { Chart, Cursor } from "./chart.js";

/** `data` is the answer of …/heatmap; `onOpen(id)` gets the job of a cell's set. */
export function HeatMap({ data, metric, sizing, onOpen }) {
  const colors = useColors();
  const [at, setAt] = useState(null); // the cell that the keyboard is at
  const chart = useRef(null);
  const [nx, ny] = [data.x.values.length, data.y.values.length];
  const flat = ny === 1;
  const text = (i, j) => shown(metric, data.z[j][i], sizing);
  const option = useCallback(
    (c, width) => (flat ? barsOf : cellsOf)(c, width, data, metric, sizing),
    [data, metric, sizing],
  );
  const onChart = useCallback(
    (found) => {
      chart.current = found;
      const open = ({ dataIndex, value }) => {
        const [i, j] = flat ? [dataIndex, 0] : value;
        if (data.job_ids[j][i]) onOpen(data.job_ids[j][i]);
      };
      found.on("click", open);
      return () => {
        found.off("click", open);
        chart.current = null;
      };
    },
    [data, onOpen],
  );
  const focus = (event) => {
    if (event.target.matches(":focus-visible")) setAt((old) => old ?? best(data, metric));
  };
  const press = (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const [i, j] = at ?? best(data, metric);
    if (event.key in steps) {
      const [dx, dy] = at ? steps[event.key] : [0, 0];
      setAt([Math.min(Math.max(i + dx, 0), nx - 1), Math.min(Math.max(j + dy, 0), ny - 1)]);
    } else if (event.key === "Enter" && data.job_ids[j][i]) onOpen(data.job_ids[j][i]);
    else if (event.key === "Escape") setAt(null);
    else return;
    event.preventDefault();
  };
  const { min, max, colors: ramp } = scale(colors, data, metric);
  const height = flat ? 280 : heightOf(ny);
  const says =
    at &&
    (data.z[at[1]][at[0]] === null
      ? `${nameOf(data, ...at)}: none`
      : `${nameOf(data, ...at)}: ${label(metric)} ${text(...at)}. Enter opens its run.`);
  const axes = [data.x.name, data.y.name].filter(Boolean).join(" and ");
  const name = `${label(metric)} by ${axes}: arrow keys move, Enter opens a set's run`;
  return html`
    <div tabindex="0" role="application" aria-roledescription="heat map" onKeyDown=${press} onFocus=${focus}
      onBlur=${() => setAt(null)} aria-label=${name} data-heat>
      <${Chart} option=${option} height=${height} role="presentation" onChart=${onChart}>
        ${at && chart.current && html`<${Cursor} ...${cellAt(chart.current, data, at)} />`}
      </${Chart}>
    </div>
    <div class="cell">
      ${
        !flat &&
        html`<span class="choices muted" aria-hidden="true"
          style="gap:6px;font-size:12.5px">${axisShown(metric, min, sizing)}
        <i style="width:150px;height:10px;border-radius:5px;background:linear-gradient(90deg,${ramp.join(",")})">
        </i>${axisShown(metric, max, sizing)}</span>`
      }
      <span aria-live="polite" class="muted"
        style="font-size:13px">${says ?? `The framed ${flat ? "bar" : "cell"} is the best. A click on one opens that set's run; so do the arrow keys and Enter.`}
        </span>
    </div>`;
}
