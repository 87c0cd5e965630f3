// A symbol's days, each of them, as the server's calendar of the days that have candles tells.
import { DAY, day } from "../format.js";

const FULL = 1440;

/** [{ day: "2023-01-01", rows, missing }] from the first day to the last. */
export function daysOf(calendar) {
  const days = [];
  for (const { day: ms, rows, missing } of calendar) {
    for (let t = days.length ? days.at(-1).ms + DAY : ms; t < ms; t += DAY)
      days.push({ ms: t, day: day(t), rows: 0, missing: FULL });
    days.push({ ms, day: day(ms), rows, missing });
  }
  return days;
}

/** Stretches of days that lack minutes, the largest first. */
export function stretches(days) {
  const found = [];
  let open = null;
  for (const d of days) {
    if (!d.missing) {
      open = null;
      continue;
    }
    if (!open) found.push((open = { from: d.day, to: d.day, days: 0, missing: 0 }));
    open.to = d.day;
    open.days += 1;
    open.missing += d.missing;
  }
  return found.sort((a, b) => b.missing - a.missing);
}
