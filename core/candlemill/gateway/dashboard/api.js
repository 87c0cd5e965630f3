// The REST interface: exact integers, problems as errors, progress as a stream. docs: /docs of this server.
import { useEffect, useState } from "./lib.js";

const BASE = "/api/v1/";
const KEY = "candlemill-key";
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

/** What the server answered with problem+json (RFC 9457), or that it did not answer (status 0). */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the server answered ${status}`);
    Object.assign(this, { status, code: body.code ?? "", field: body.field ?? "", near: body.near ?? [] });
  }
}

// -- the key --------------------------------------------------------------------------------------------------------

let askForKey = null;
let asking = null;

/** `ask` is called when the server wants a key: a function that resolves to it. */
export const onKeyWanted = (ask) => {
  askForKey = ask;
};
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

const headers = (more = {}) => {
  const key = sessionStorage.getItem(KEY);
  return key === null ? more : { ...more, Authorization: `Bearer ${key}` };
};

/** Ask once, however many requests wait for it. */
function newKey(refused) {
  asking ??= askForKey(refused)
    .then((key) => {
      sessionStorage.setItem(KEY, key);
    })
    .finally(() => {
      asking = null;
    });
  return asking;
}

// -- requests -------------------------------------------------------------------------------------------------------

/** JSON with integers beyond 2^53 as BigInt; the others are numbers. */
export function parseJson(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const mark = "\u0001";
  const quoted = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?/g, (part) =>
    part.length < 16 || !/^-?\d+$/.test(part) || Number.isSafeInteger(Number(part)) ? part : `"\\u0001${part}"`,
  );
  return JSON.parse(quoted, (_, v) => (typeof v === "string" && v.startsWith(mark) ? BigInt(v.slice(1)) : v));
}

/** `fetch`, and for what only reads once more if the network failed for a moment. */
async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if ((options.method ?? "GET") !== "GET") throw noAnswer();
  }
  await new Promise((wake) => setTimeout(wake, RETRY_MS[0]));
  try {
    return await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : noAnswer();
  }
}

const noAnswer = () => new Problem(0, { detail: "the server does not answer: is `candlemill serve` still running?" });

async function answer(path, options) {
  let used = sessionStorage.getItem(KEY);
  for (;;) {
    const found = await reach(path, { ...options, headers: headers(options.headers) });
    if (found.status !== 401) return found;
    if (sessionStorage.getItem(KEY) === used) await newKey(used !== null);
    used = sessionStorage.getItem(KEY);
  }
}

async function checked(found) {
  if (found.ok) return found;
  let body = {};
  try {
    body = parseJson(await found.text());
  } catch {
    /* not ours: the status has to do */
  }
  throw new Problem(found.status, body);
}

const query = (given) => {
  const kept = Object.entries(given).filter(([, v]) => v !== undefined && v !== null && v !== "");
  const pairs = kept.flatMap(([name, v]) => (Array.isArray(v) ? v.map((one) => [name, one]) : [[name, v]]));
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
};

async function call(method, path, { body, params = {}, signal } = {}) {
  const options = { method, signal };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  const found = await checked(await answer(BASE + path + query(params), options));
  return found.status === 204 ? null : parseJson(await found.text());
}

export const get = (path, params, signal) => call("GET", path, { params, signal });
export const post = (path, body, signal) => call("POST", path, { body, signal });
export const put = (path, body) => call("PUT", path, { body });
export const del = (path) => call("DELETE", path);
export const job = (id, part = "") => `backtest/${encodeURIComponent(id)}${part ? `/${part}` : ""}`;

/** Save an answer as a file: as it came, byte for byte. */
export async function download(path, name, params = {}) {
  const found = await checked(await answer(BASE + path + query(params), {}));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await found.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// -- in components --------------------------------------------------------------------------------------------------

/** `{ data, error, loading }` of an answer; requested again when path or params change. `data` is the last one that
 * came until the next is there, so that nothing flickers. A null path asks for nothing. */
export function useGet(path, params = {}, again = 0) {
  const [state, setState] = useState({ data: null, error: null, loading: path !== null, of: null });
  const wanted = path === null ? null : path + query(params);
  useEffect(() => {
    if (wanted === null) return undefined;
    const abort = new AbortController();
    setState((old) => ({ ...old, loading: true }));
    call("GET", wanted, { signal: abort.signal }).then(
      (data) => setState({ data, error: null, loading: false, of: wanted }),
      (error) => error.name !== "AbortError" && setState({ data: null, error, loading: false, of: wanted }),
    );
    return () => abort.abort();
  }, [wanted, again]);
  return state;
}

// -- progress -------------------------------------------------------------------------------------------------------

/** Server-sent events of a job until it has ended; after a break it goes on from the last event. `onEvent(event, data)`
 * for each, `broken(true | false)` when the stream breaks and when it is back. Returns what stops it. EventSource
 * cannot send a key. */
export function events(id, onEvent, broken) {
  const abort = new AbortController();
  let last = "",
    failures = 0,
    ended = false;
  const take = (block) => {
    const fields = {};
    for (const line of block.split("\n")) {
      const [, name, text] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
      if (name) fields[name] = name === "data" && fields.data ? `${fields.data}\n${text}` : text;
    }
    if (fields.id) last = fields.id;
    if (!fields.data) return;
    const name = fields.event ?? "progress";
    ended ||= name !== "progress";
    onEvent(name, parseJson(fields.data));
  };
  const listen = async () => {
    const more = last ? { "Last-Event-ID": last } : {};
    const path = BASE + job(id, "events");
    const options = { signal: abort.signal, headers: { Accept: "text/event-stream", ...more } };
    const found = await checked(await answer(path, options));
    const reader = found.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      broken(false);
      failures = 0;
      text = (text + value).replaceAll("\r\n", "\n");
      const blocks = text.split("\n\n");
      text = blocks.pop();
      blocks.forEach(take);
    }
  };
  (async () => {
    while (!ended && !abort.signal.aborted) {
      try {
        await listen();
      } catch (error) {
        if (abort.signal.aborted || (error.status >= 400 && error.status < 500)) return;
      }
      if (ended || abort.signal.aborted) return;
      broken(true);
      await new Promise((wake) => setTimeout(wake, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
    }
  })();
  return () => abort.abort();
}
