// Dragging over a chart of times chooses a span; a double click shows all; Ctrl and the wheel come closer.
import { DAY, MINUTE } from "../format.js";

const LEAST_MS = 20 * MINUTE;

/** `chosen(from, to)` gets the span, `all()` the wish for everything; `now` is [from, to] as it is. Touch is left to
 * the page's scrolling: there the navigator does it. Returns what undoes it. */
export function dragToZoom(chart, box, now, chosen, all) {
  const shade = document.createElement("div");
  shade.className = "choice";
  let from = null;
  const time = (x) => {
    const ms = chart.convertFromPixel({ xAxisIndex: 0 }, x);
    return Math.min(Math.max(ms, now[0]), now[1]);
  };
  const place = (event) => event.clientX - box.getBoundingClientRect().left;
  const inside = (event) => chart.containPixel({ gridIndex: "all" }, [place(event), event.offsetY]);
  const down = (event) => {
    if (event.pointerType === "touch" || event.button !== 0 || !inside(event)) return;
    from = place(event);
    event.preventDefault();
  };
  const move = (event) => {
    if (from === null) return;
    const at = place(event);
    if (Math.abs(at - from) < 4) return;
    const grid = chart.getModel().getComponent("grid", 0).coordinateSystem.getRect();
    const ends = [Math.min(at, from), Math.max(at, from)].map((x) =>
      Math.min(Math.max(x, grid.x), grid.x + grid.width),
    );
    Object.assign(shade.style, {
      left: `${ends[0]}px`,
      width: `${ends[1] - ends[0]}px`,
      top: `${grid.y}px`,
      bottom: "28px",
    });
    box.append(shade);
  };
  const up = (event) => {
    if (from === null) return;
    const ends = [time(Math.min(place(event), from)), time(Math.max(place(event), from))];
    const dragged = Math.abs(place(event) - from) >= 4;
    from = null;
    shade.remove();
    if (dragged) chosen(...atLeast(ends[0], ends[1], LEAST_MS));
  };
  const wheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const middle = time(place(event)),
      by = event.deltaY > 0 ? 1.4 : 1 / 1.4;
    chosen(...atLeast(middle - (middle - now[0]) * by, middle + (now[1] - middle) * by, LEAST_MS));
  };
  const listeners = [
    [box, "pointerdown", down],
    [window, "pointermove", move],
    [window, "pointerup", up],
    [box, "dblclick", all],
    [box, "wheel", wheel],
  ];
  for (const [on, name, onEvent] of listeners) on.addEventListener(name, onEvent, { passive: false });
  return () => {
    shade.remove();
    for (const [on, name, onEvent] of listeners) on.removeEventListener(name, onEvent);
  };
}

export function atLeast(from, to, least) {
  if (to - from >= least) return [Math.round(from), Math.round(to)];
  const middle = (from + to) / 2;
  return [Math.round(middle - least / 2), Math.round(middle + least / 2)];
}

/** A span kept inside the whole one, in whole minutes. */
export function within([from, to], [first, last]) {
  const length = Math.min(to - from, last - first);
  const start = Math.min(Math.max(from, first), last - length);
  const edge = (ms) => Math.round((ms - first) / MINUTE) * MINUTE + first;
  return [edge(start), edge(start + length)];
}

export const SPANS = [
  ["month", 30 * DAY],
  ["week", 7 * DAY],
  ["day", DAY],
  ["6 hours", DAY / 4],
];
