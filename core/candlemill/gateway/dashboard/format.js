// Scaled integers as people read them, as the reports do. Money is decimal × 10^8, an integer (beyond 2^53 a BigInt),
// and is turned to text without ever being a float.

export const SCALE = 100_000_000;
export const NONE = "–";
const BIG = 100_000_000n;

const size = (x) => (x < 0n ? -x : x);
const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, ",");

/** Decimals that show amounts up to `largest` (scaled) with at least four significant digits. */
function placesFor(largest) {
  const top = size(BigInt(largest));
  if (top >= 100_000n * BIG) return 0;
  if (top >= BIG || top === 0n) return 2;
  return Math.min(8, 12 - String(top).length);
}

/** With thousands separators, rounded half to even. */
export function decimal(scaled, places) {
  if (scaled === null || scaled === undefined) return NONE;
  const value = BigInt(scaled);
  const unit = 10n ** BigInt(8 - places);
  const rounded = size(divide(value, unit));
  const digits = String(rounded).padStart(places + 1, "0");
  const whole = grouped(digits.slice(0, digits.length - places));
  const sign = value < 0n && rounded ? "-" : "";
  return sign + whole + (places ? `.${digits.slice(digits.length - places)}` : "");
}

/** `largest` decides on the decimals of a whole column. */
export const money = (scaled, largest = scaled) =>
  scaled === null || scaled === undefined ? NONE : decimal(scaled, placesFor(largest));

/** All decimals that there are, for prices and quantities. */
export const exact = (scaled) =>
  scaled === null || scaled === undefined ? NONE : decimal(scaled, 8).replace(/\.?0+$/, "");

/** Prices of a column, all with the decimals of the one that has the most. */
export function exactColumn(values) {
  const places = Math.max(0, ...values.map((v) => (exact(v).split(".")[1] ?? "").length));
  return (v) => decimal(v, places);
}

export function ratio(scaled, largest = scaled) {
  if (scaled === null || scaled === undefined) return NONE;
  return decimal(scaled, size(BigInt(largest)) >= 100n * BIG ? 2 : 3);
}

/** A share (1.0 is scaled to 10^8) in percent. */
export const percent = (scaled, places = 2) =>
  scaled === null || scaled === undefined ? NONE : `${decimal(BigInt(scaled) * 100n, places)}%`;

/** Parts per million in percent, with all their decimals: 1000 is 0.1%. */
export function rate(ppm) {
  if (ppm === null || ppm === undefined) return NONE;
  return percent(BigInt(ppm) * 100n, 4).replace(/\.?0+%$/, "%");
}

/** part / whole, scaled; null of nothing. */
export const share = (part, whole) => (BigInt(whole) > 0n ? divide(BigInt(part) * BIG, BigInt(whole)) : null);

/** A share (scaled) of an amount, scaled. */
export const times = (part, whole) =>
  part === null || part === undefined ? null : divide(BigInt(part) * BigInt(whole), BIG);

/** Rounded half to even. */
function divide(part, whole) {
  const rest = size(part) % whole;
  let found = size(part) / whole;
  if (2n * rest > whole || (2n * rest === whole && found % 2n === 1n)) found += 1n;
  return part < 0n ? -found : found;
}

export const count = (value) => (value === null || value === undefined ? NONE : grouped(String(value)));

export const sum = (values) => values.reduce((total, value) => total + BigInt(value), 0n);

export const largest = (values) =>
  values.reduce((top, v) => (v !== null && size(BigInt(v)) > top ? size(BigInt(v)) : top), 0n);

export const sign = (value) =>
  value === null || value === undefined ? 0 : BigInt(value) > 0n ? 1 : BigInt(value) < 0n ? -1 : 0;

/** For drawing only. */
export const float = (scaled) => (scaled === null || scaled === undefined ? null : Number(scaled) / SCALE);

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${String(n) === "1" ? one : many}`;

// -- time, always UTC -----------------------------------------------------------------------------------------------

export const MINUTE = 60_000;
export const DAY = 86_400_000;
export const day = (ms) => new Date(ms).toISOString().slice(0, 10);
export const minute = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");

/** A duration in its two largest units. */
export function span(ms) {
  const minutes = Math.floor(ms / MINUTE);
  const days = Math.floor(minutes / 1440),
    hours = Math.floor(minutes / 60) % 24,
    rest = minutes % 60;
  if (days) return `${count(days)} d` + (hours && days < 100 ? ` ${hours} h` : "");
  return hours ? `${hours} h ${String(rest).padStart(2, "0")} min` : `${rest} min`;
}

export function seconds(s) {
  if (s < 0.1) return "at once";
  if (s < 60) return `${s < 10 && !Number.isInteger(s) ? s.toFixed(1) : Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
}

/** First included, last excluded, to the minute where it is not midnight. */
export function range(start, end) {
  const whole = start % DAY === 0 && end % DAY === 0;
  return whole ? `${day(start)} to ${day(end - 1)}` : `${minute(start)} to ${minute(end - MINUTE)}`;
}

export const bucket = (minutes) =>
  minutes < 60 ? `${minutes} min` : minutes < 1440 ? `${minutes / 60} h` : `${minutes / 1440} d`;

export const value = (x) => (typeof x === "boolean" ? String(x) : x === null || x === undefined ? NONE : String(x));
