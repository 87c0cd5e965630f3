// The frame: which view the address means, the menu, the theme, the key.
import { html, render, useEffect, useRef, useState } from "./lib.js";
import { Problem, onKeyWanted } from "./api.js";
import { loadMetrics } from "./metrics.js";
import { loadOptions } from "./options.js";
import { parse, useRoute } from "./route.js";
import { isDark, toggle } from "./theme.js";
import { Busy, Failure } from "./ui.js";

// Each is loaded when it is first looked at, and the others when the browser has nothing else to do. Most show
// figures, for which they need the table of metrics, or jobs, for which they need that of options.
const withTables =
  (load, ...tables) =>
  () =>
    Promise.all([load(), ...tables.map((table) => table())]).then(([View]) => View);
const VIEWS = {
  new: () => import("./views/new.js").then((module) => module.New),
  jobs: withTables(() => import("./views/jobs.js").then((module) => module.Jobs), loadMetrics),
  job: withTables(() => import("./views/job.js").then((module) => module.Job), loadMetrics, loadOptions),
  compare: withTables(() => import("./views/compare.js").then((module) => module.Compare), loadMetrics, loadOptions),
  data: () => import("./views/data.js").then((module) => module.Data),
  paper: () => import("./views/paper.js").then((module) => module.Paper),
};
const IDLE_MS = 1500;

const MENU = [
  ["new", "New"],
  ["jobs", "Jobs"],
  ["compare", "Compare"],
  ["data", "Data"],
  ["paper", "Paper"],
];

function KeyDialog({ wanted }) {
  const at = useRef(null);
  useEffect(() => at.current.showModal(), []);
  const enter = (event) => {
    event.preventDefault();
    const key = new FormData(event.target).get("key").trim();
    if (key) wanted.resolve(key);
  };
  const leave = (event) => {
    event.preventDefault();
    wanted.reject(new Problem(401, { detail: "this server wants an API key: load the page again to enter it" }));
  };
  const why = wanted.refused ? "The server refused that key." : "This server wants a key.";
  return html`<dialog ref=${at} onCancel=${leave} aria-labelledby="key-title">
    <form onSubmit=${enter}>
      <h2 id="key-title">API key</h2>
      <p class="muted">${why} It is kept until this tab is closed.</p>
      <label class="field"><span class="hidden">key</span>
        <input name="key" type="password" autocomplete="off" autofocus required style="width:100%" /></label>
      <div class="actions"><button type="submit" class="main">use it</button></div>
    </form>
  </dialog>`;
}

function useKeyDialog() {
  const [wanted, setWanted] = useState(null);
  useEffect(
    () =>
      onKeyWanted(
        (refused) =>
          new Promise((resolve, reject) => {
            const done = (tell) => (value) => {
              setWanted(null);
              tell(value);
            };
            setWanted({ refused, resolve: done(resolve), reject: done(reject) });
          }),
      ),
    [],
  );
  return wanted && html`<${KeyDialog} wanted=${wanted} />`;
}

function Bar({ at }) {
  const [dark, setDark] = useState(isDark());
  const turn = () => {
    toggle();
    setDark(isDark());
  };
  return html`<header class="bar"><div>
    <a class="brand" href="#/new" aria-label="candlemill"><img src="icon.svg" alt="" width="24" height="24" />
    <span>candlemill</span></a>
    <nav aria-label="views">${MENU.map(
      ([name, text]) => html`
      <a key=${name} href="#/${name}"
        aria-current=${at === name || (at === "job" && name === "jobs") ? "page" : undefined}>${text}</a>`,
    )}</nav>
    <button type="button" class="icon" onClick=${turn} aria-label=${dark ? "light colours" : "dark colours"}
      title="light or dark">◐</button>
  </div></header>`;
}

/** The view of that name once it is loaded. */
function useView(name) {
  const [found, setFound] = useState({ name: null });
  useEffect(() => {
    const load = VIEWS[name] ?? (() => Promise.resolve(Missing));
    load().then(
      (View) => setFound({ name, View }),
      (error) => setFound({ name, error }),
    );
  }, [name]);
  return found.name === name ? found : {};
}

function App() {
  const route = useRoute();
  const at = route.path[0] ?? "new";
  const { View, error } = useView(at);
  const main = useRef(null);
  const dialog = useKeyDialog();
  const where = route.path.join("/");
  const before = useRef(where);
  useEffect(() => {
    // a new view: begin at its top, and tell a screen reader
    if (before.current === where || !View) return;
    before.current = where;
    scrollTo(0, 0);
    main.current.querySelector("h1")?.focus({ preventScroll: true });
  }, [where, View]);
  useEffect(() => {
    document.documentElement.dataset.ready = "1";
    setTimeout(() => Object.values(VIEWS).forEach((load) => load().catch(() => {})), IDLE_MS);
  }, []);
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`
    <a class="skip" href="#main" onClick=${skip}>skip to the content</a>
    <${Bar} at=${at} />
    <main ref=${main} tabindex="-1" id="main">
      ${View && html`<${View} key=${where} route=${route} />`}
      ${error ? html`<${Failure} error=${error} />` : !View && html`<${Busy} />`}
    </main>
    <footer>times are UTC · money is exact · <a href="/docs">REST interface</a></footer>
    ${dialog}`;
}

const Missing = ({ route }) =>
  html`<h1>No such page</h1><p>#/${route.path.join("/")} is no view: use the menu above.</p>`;

if (!parse(location.hash).path.length) history.replaceState(null, "", "#/new");
render(html`<${App} />`, document.getElementById("app"));
