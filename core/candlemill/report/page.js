"use strict";
(async () => {
  const root = document.documentElement;
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  };
  const touch = matchMedia("(pointer: coarse)").matches;
  const wantsDark = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const isDark = () => !printing && (root.dataset.theme ? root.dataset.theme === "dark" : wantsDark.matches);

  // -- colours: figures come in the light ones; each stands for its role by its exact text
  let swap = new Map();
  const recolor = (value) => {
    if (typeof value === "string") return swap.get(value) ?? value;
    if (Array.isArray(value)) return typeof value[1] === "number" ? value : value.map(recolor);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recolor(v)]));
  };

  // -- drawing: every figure again when colours, width or what is chosen change
  let found = {};
  const figures = new Map();
  const PRINTED = 660; // the width in pixels that a printed page has for a figure
  const turned = (trace) => { // a heat map with months downwards: a phone is taller than wide
    const flip = (rows) => rows[0].map((_, k) => rows.map((row) => row[k]));
    const { x, y, z, text, customdata } = trace;
    return { ...trace, x: y, y: x, z: flip(z), text: flip(text), customdata: flip(customdata),
      hovertemplate: trace.hovertemplate.replace("%{x} %{y}", "%{y} %{x}") };
  };
  const narrowed = (figure) => {
    const { data, layout } = figure;
    layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 44), r: 6 };
    layout.font = { ...layout.font, size: 11 };
    if (data[0]?.meta !== "turn") {
      for (const trace of data) delete trace.texttemplate; // there is no room for words in the cells
      return figure;
    }
    const height = 60 + 30 * data[0].x.length;
    const swapped = { ...layout, height, yaxis: { ...layout.yaxis, nticks: 13 } };
    return { data: data.map(turned), layout: swapped };
  };
  const isNarrow = (box) => !printing && box.clientWidth < 520;
  const draw = async (name) => {
    const box = document.getElementById(name);
    let figure = structuredClone(figures.get(name));
    if (isDark()) figure = recolor(figure);
    const dated = figure.layout.xaxis?.type === "date";
    const narrow = isNarrow(box);
    if (narrow) figure = narrowed(figure);
    const { data, layout } = figure;
    layout.dragmode = touch || !dated ? false : "zoom";
    if (touch && dated) layout.margin.t += 48; // the mode bar stays above a legend of two lines
    if (printing) {
      layout.width = PRINTED;
      layout.legend = { ...layout.legend, y: 1.06 }; // its lines would lie on those of the figure
      if (layout.height > 300) layout.height *= 0.75;
    }
    box.style.height = `${layout.height}px`;
    box.dataset.narrow = narrow;
    const buttons = dated ? ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"] : ["toImage"];
    const config = { displaylogo: false, modeBarButtons: [buttons],
      displayModeBar: touch ? dated : "hover" };
    await Plotly.react(box, data, layout, config);
  };
  const drawAll = () => Promise.all([...figures.keys()].map(draw));

  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    drawAll();
  });
  wantsDark.addEventListener("change", drawAll);
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand("copy"); }
      button.textContent = "copied";
    });
  }
  const fit = () => Promise.all([...(printing ? [] : figures.keys())].map(async (name) => {
    const box = document.getElementById(name);
    if (box.dataset.narrow && box.dataset.narrow !== String(isNarrow(box))) await draw(name);
    await Plotly.Plots.resize(box);
  }));
  let late = 0;
  addEventListener("resize", () => { // a window that is made small, a phone that is turned
    clearTimeout(late);
    late = setTimeout(fit, 100);
  });
  addEventListener("beforeprint", () => { printing = true; drawAll(); });
  addEventListener("afterprint", () => { printing = false; drawAll(); });

  // -- the price closer by: finer candles and all trades of the span that is looked at
  const SHOWN = 150;
  const CANDLES = 400; // more are drawn as a line in the band from lows to highs
  const FINEST = 3000; // candles that one drawing holds
  const sums = (steps) => { let at = 0; return steps.map((step) => (at += step)); };
  const candlesOf = ([dt, open, body, above, below], tick) => {
    const n = dt.length, c = { t: sums(dt).map((m) => m * 6e4), o: [], h: [], l: [], c: [] };
    for (let k = 0, last = 0; k < n; k++) {
      const o = last + open[k];
      last = o + body[k];
      c.o.push(o * tick); c.h.push((Math.max(o, last) + above[k]) * tick);
      c.l.push((Math.min(o, last) - below[k]) * tick); c.c.push(last * tick);
    }
    return c;
  };
  const firstAt = (t, ms) => {
    let lo = 0, hi = t.length;
    while (lo < hi) { const mid = (lo + hi) >> 1; if (t[mid] < ms) lo = mid + 1; else hi = mid; }
    return lo;
  };
  const setUpZoom = (zoom) => {
    const box = document.getElementById("price"), note = box.parentElement.querySelector(".note");
    const whole = figures.get("price"), said = note.textContent;
    const levels = zoom.levels.map((level) => ({ ...level, ...candlesOf(level.candles, zoom.tick) }));
    const [entry, held, side, at, change, profit] = zoom.trades;
    const entries = sums(entry), prices = sums(at);
    const trades = entries.map((m, k) => ({ from: m * 6e4, to: (m + held[k]) * 6e4, side: side[k],
      at: prices[k] * zoom.unit, out: (prices[k] + change[k]) * zoom.unit, profit: profit[k] * zoom.unit }));
    const color = found.light;
    const money = (x) => x.toLocaleString("en", { maximumSignificantDigits: 7 });

    const bars = (level, a, b) => {
      const cut = (column) => column.slice(a, b), x = cut(level.t);
      if (b - a <= CANDLES) {
        const style = (c) => ({ line: { color: c, width: 1 }, fillcolor: c });
        return [{ type: "candlestick", name: "price", showlegend: false, x, open: cut(level.o), high: cut(level.h),
          low: cut(level.l), close: cut(level.c), increasing: style(color.up), decreasing: style(color.down) }];
      }
      const [band, close] = whole.data, back = (column) => [...column, ...column.slice().reverse()];
      const y = [...cut(level.l), ...cut(level.h).reverse()];
      return [{ ...band, x: back(x), y }, { ...close, x, y: cut(level.c) }];
    };
    const marks = (seen) => {
      const kinds = [
        [(t) => t.side > 0, "from", "at"], [(t) => t.side < 0, "from", "at"],
        [(t) => t.profit > 0, "to", "out"], [(t) => t.profit <= 0, "to", "out"],
      ];
      const templates = whole.data.slice(-4);
      const points = kinds.map(([is, when, price], k) => {
        const kept = seen.filter(is), marker = { ...templates[k].marker, size: seen.length > 60 ? 6 : 9 };
        return { ...templates[k], marker, visible: true, x: kept.map((t) => t[when]), y: kept.map((t) => t[price]),
          customdata: kept.map((t) => money(t.profit)) };
      });
      const line = { color: color.ink, width: 1.2, dash: "dot" };
      const x = seen.flatMap((t) => [t.from, t.to, null]), y = seen.flatMap((t) => [t.at, t.out, null]);
      return [{ type: "scatter", mode: "lines", x, y, line, hoverinfo: "skip", showlegend: false }, ...points];
    };
    const show = (from, to) => {
      const fine = levels[1].windows.some(([a, b]) => a <= from && to <= b);
      const level = [...(fine ? [levels[1]] : []), levels[0]].find(
        (l) => firstAt(l.t, to) - firstAt(l.t, from) <= FINEST);
      if (!level) return reset();
      const a = Math.max(firstAt(level.t, from) - 1, 0), b = firstAt(level.t, to);
      const inside = trades.filter((t) => t.to >= from && t.from <= to);
      const seen = inside.length <= SHOWN ? inside
        : [...inside].sort((p, q) => Math.abs(q.profit) - Math.abs(p.profit)).slice(0, SHOWN);
      const low = Math.min(...level.l.slice(a, b)), high = Math.max(...level.h.slice(a, b));
      if (b <= a) return reset();
      const pad = (high - low) * 0.06 || high * 0.001;
      const layout = structuredClone(whole.layout);
      Object.assign(layout.xaxis, { range: [from, to], autorange: false, rangeslider: { visible: false } });
      Object.assign(layout.yaxis, { range: [low - pad, high + pad], autorange: false });
      figures.set("price", { data: [...bars(level, a, b), ...marks(seen)], layout });
      const size = level.step < 60 ? `${level.step} min` : `${level.step / 60} h`;
      note.textContent = `${(b - a).toLocaleString("en")} candles of ${size}; ` +
        `${seen.length.toLocaleString("en")} of ${inside.length.toLocaleString("en")} trades are marked. ` +
        "A double click or ‘all’ shows the whole range again.";
      return draw("price");
    };
    const reset = () => {
      figures.set("price", whole);
      note.textContent = said;
      return draw("price");
    };
    const time = (x) => typeof x === "number" ? x : Date.parse(`${x.replace(" ", "T")}${x.length > 10 ? "Z" : ""}`);
    box.on("plotly_relayout", (change) => {
      if (change["xaxis.autorange"]) reset();
      else if ("xaxis.range[0]" in change || "xaxis.range" in change) show(...box.layout.xaxis.range.map(time));
    });
    box.on("plotly_doubleclick", reset);
    for (const part of document.querySelectorAll("[data-from]")) {
      if (part.tagName === "TR") {
        part.tabIndex = 0;
        part.addEventListener("keydown", (event) => { if (event.key === "Enter") part.click(); });
      }
      part.addEventListener("click", () => {
        for (const other of document.querySelectorAll(".chosen")) other.classList.remove("chosen");
        part.classList.add("chosen");
        const from = Number(part.dataset.from), to = Number(part.dataset.to);
        const pad = Math.max((to - from) * 0.4, 18e5) * ("exact" in part.dataset ? 0 : 1);
        show(from - pad, to + pad);
        if (part.tagName === "TR") box.parentElement.scrollIntoView({ behavior: "smooth", block: "nearest" });
      });
    }
    document.getElementById("whole").addEventListener("click", reset);
  };

  // -- a sweep: which heat map, and the ranking that goes with it
  const setUpChoices = ({ figures: maps }) => {
    const box = document.getElementById("heat"), card = box.parentElement;
    const chosen = (name, otherwise) => document.getElementById(`choose-${name}`)?.value ?? otherwise;
    const choose = () => {
      const metric = chosen("metric", maps[0].metric);
      const map = maps.find((m) => m.metric === metric && m.axes === Number(chosen("axes", 0)) &&
        m.over === chosen("over", maps[0].over));
      figures.set("heat", map.figure);
      card.querySelector("h2").innerHTML = map.figure.title; // escaped where it was made
      card.querySelector(".note").textContent = map.figure.note;
      for (const part of document.querySelectorAll(".ranking")) part.hidden = part.dataset.metric !== metric;
      return draw("heat");
    };
    for (const select of card.querySelectorAll("select")) select.addEventListener("change", choose);
  };

  try {
    const script = document.createElement("script");
    script.textContent = await unpack("plotly");
    document.head.append(script);
    found = JSON.parse(await unpack("data"));
    swap = new Map(Object.entries(found.light).map(([role, color]) => [color, found.dark[role]]));
    for (const [name, figure] of Object.entries(found.figures)) figures.set(name, figure);
    for (const name of figures.keys()) await draw(name);
    if (found.zoom) setUpZoom(found.zoom);
    if (found.choices) setUpChoices(found.choices);
    root.dataset.ready = "1";
  } catch (error) {
    for (const box of document.querySelectorAll(".plot")) {
      box.innerHTML = '<p class="failed">This figure needs a browser with DecompressionStream (2023 or later).</p>';
      box.style.height = "auto";
    }
    throw error;
  }
})();
