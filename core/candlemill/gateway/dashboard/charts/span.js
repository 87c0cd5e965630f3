// The span that a result's charts show: a small picture of the whole run with two handles, buttons, and the dates.
import { html, useMemo, useRef } from "../lib.js";
import { DAY, day, minute } from "../format.js";
import { SPANS, atLeast, within } from "./drag.js";

const LEAST_MS = 20 * 60_000;
const HANDLES = [
  [0, "start of the span"],
  [1, "end of the span"],
];

/** The line of `values` over `t`, in a box of 1000 by 100; it ends before each of `breaks`, where candles are missing. */
function path(t, values, [first, last], breaks) {
  if (!t.length) return "";
  const begins = new Set([0, ...breaks]);
  const low = Math.min(...values),
    high = Math.max(...values),
    height = high - low || 1;
  return t
    .map((ms, k) => {
      const x = ((ms - first) / (last - first)) * 1000,
        y = 92 - ((values[k] - low) / height) * 84;
      return `${begins.has(k) ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    })
    .join("");
}

/** `whole` and `span` are [from, to] in ms; `onSpan(from, to)`, without any for everything. `t`, `values` are drawn;
 * shorter spans than `least` have no button. */
export function Span({ whole, span, onSpan, t, values, breaks = [], least = 0 }) {
  // A week or a month ends with the last candle, which may lie long before the end of the range.
  const latest = Math.min(span[1], t.length ? t.at(-1) + 60_000 : span[1]);
  const box = useRef(null),
    held = useRef(null);
  const line = useMemo(() => path(t, values, whole, breaks), [t, values, whole[0], whole[1]]);
  const length = whole[1] - whole[0];
  const share = (ms) => `${((ms - whole[0]) / length) * 100}%`;
  const time = (event) => {
    const { left, width } = box.current.getBoundingClientRect();
    return whole[0] + Math.min(Math.max((event.clientX - left) / width, 0), 1) * length;
  };
  const put = (from, to) => onSpan(...within(atLeast(from, to, LEAST_MS), whole));
  const move = (k, ms) =>
    k === 0 ? put(Math.min(ms, span[1] - LEAST_MS), span[1]) : put(span[0], Math.max(ms, span[0] + LEAST_MS));
  const grab = (what) => (event) => {
    if (event.button !== 0) return;
    event.stopPropagation();
    box.current.setPointerCapture(event.pointerId);
    held.current = { what, at: time(event), span };
  };
  const drag = (event) => {
    const hold = held.current;
    if (!hold) return;
    const ms = time(event),
      by = ms - hold.at;
    if (hold.what === "window") onSpan(...within([hold.span[0] + by, hold.span[1] + by], whole));
    else if (hold.what === "new") put(Math.min(hold.at, ms), Math.max(hold.at, ms));
    else move(hold.what, ms);
  };
  const press = (k) => (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    const ends = { Home: whole[0], End: whole[1] };
    if (!(event.key in steps) && !(event.key in ends)) return;
    event.preventDefault();
    const step = Math.max((span[1] - span[0]) / 50, 60_000);
    move(k, ends[event.key] ?? span[k] + steps[event.key] * step);
  };
  const closer = (by) => {
    const middle = (span[0] + span[1]) / 2,
      half = ((span[1] - span[0]) / 2) * by;
    put(middle - half, middle + half);
  };
  const pan = (by) =>
    onSpan(
      ...within(
        span.map((ms) => ms + by * (span[1] - span[0])),
        whole,
      ),
    );
  const isAll = span[0] <= whole[0] && span[1] >= whole[1];
  const shown = (ms) => (span[1] - span[0] > 60 * DAY ? day(ms) : minute(ms));
  const handle = ([k, name]) => html`<div class="handle" key=${k} role="slider" tabindex="0" aria-label=${name}
    aria-valuemin=${whole[0]} aria-valuemax=${whole[1]} aria-valuenow=${span[k]} aria-valuetext=${minute(span[k])}
    style="left:${share(span[k])}" onPointerDown=${grab(k)} onKeyDown=${press(k)}></div>`;
  return html`<div>
    <div class="choices" role="group" aria-label="span of the charts" style="margin-bottom:10px">
      <button type="button" class="small" aria-pressed=${isAll} onClick=${() => onSpan()}>all</button>
      ${SPANS.filter(([, ms]) => ms < length && ms >= least).map(
        ([name, ms]) => html`<button type="button" class="small" key=${name}
        aria-pressed=${!isAll && span[1] - span[0] === ms} onClick=${() => onSpan(...within([latest - ms, latest], whole))}>${name}
        </button>`,
      )}
      <button type="button" class="small" aria-label="closer" onClick=${() => closer(0.5)}>+</button>
      <button type="button" class="small" aria-label="wider" disabled=${isAll} onClick=${() => closer(2)}>−</button>
      <button type="button" class="small" aria-label="earlier" disabled=${isAll} onClick=${() => pan(-0.5)}>←</button>
      <button type="button" class="small" aria-label="later" disabled=${isAll} onClick=${() => pan(0.5)}>→</button>
      <span class="muted" aria-live="polite" data-span>${shown(span[0])} to ${shown(span[1] - 60_000)}</span>
    </div>
    <div class="navigator" ref=${box} onPointerDown=${grab("new")} onPointerMove=${drag} onPointerUp=${() => {
      held.current = null;
    }}
      onPointerCancel=${() => {
        held.current = null;
      }} onDblClick=${() => onSpan()}>
      <svg viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true"><path d=${line} /></svg>
      <div class="window" style="left:${share(span[0])};width:${((span[1] - span[0]) / length) * 100}%"
        onPointerDown=${isAll ? undefined : grab("window")}></div>
      ${HANDLES.map(handle)}
    </div>
    <div class="dates" aria-hidden="true"><span>${day(whole[0])}</span><span>${day(whole[1] - 1)}</span></div>
  </div>`;
}
