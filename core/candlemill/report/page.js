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
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(recolor);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, recolor(v)]));
  };

  let found = {};
  const figures = new Map();
  const draw = async (name) => {
    const box = document.getElementById(name);
    const figure = figures.get(name);
    const dressed = isDark() ? recolor(figure) : structuredClone(figure);
    const layout = { ...dressed.layout, dragmode: touch ? false : dressed.layout.dragmode ?? "zoom" };
    if (box.clientWidth < 520) {
      layout.margin = { ...layout.margin, l: Math.min(layout.margin.l, 44), r: 6 };
      layout.font = { size: 11 };
      if (layout.narrow) Object.assign(layout, layout.narrow);
    }
    delete layout.narrow;
    if (printing) layout.width = box.clientWidth;
    const buttons = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"];
    const config = { responsive: !printing, displaylogo: false, modeBarButtons: [buttons], scrollZoom: false };
    await Plotly.react(box, dressed.data, layout, config);
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
  addEventListener("beforeprint", () => { printing = true; drawAll(); });
  addEventListener("afterprint", () => { printing = false; drawAll(); });

  try {
    const script = document.createElement("script");
    script.textContent = await unpack("plotly");
    document.head.append(script);
    found = JSON.parse(await unpack("data"));
    swap = new Map(Object.entries(found.light).map(([role, color]) => [color, found.dark[role]]));
    for (const [name, figure] of Object.entries(found.figures)) figures.set(name, figure);
    for (const name of figures.keys()) await draw(name);
    root.dataset.ready = "1";
  } catch (error) {
    for (const box of document.querySelectorAll(".plot")) {
      box.innerHTML = '<p class="failed">This figure needs a browser with DecompressionStream (2023 or later).</p>';
      box.style.height = "auto";
    }
    throw error;
  }
})();
