// A new job: a form made from the strategies' schemas, beside it what it would do. The fields are the address's.
import { html, useCallback, useEffect, useRef, useState } from "../lib.js";
import { useGet } from "../api.js";
import { loadOptions } from "../options.js";
import { parametersOf } from "../request.js";
import { parse, replace, to } from "../route.js";
import { Busy, Failure, Head, NoCandles } from "../ui.js";
import { Account, Costs, How } from "./options.js";
import { Market } from "./market.js";
import { Plan, usePlan } from "./plan.js";
import { Search } from "./search.js";
import { Strategy, Walk } from "./strategy.js";

const FIRST_CHOICE = "momentum_v1";

const SETTLED_MS = 300;

/** The fields, and what sets some of them; the address follows when typing rests. */
function useFields(route, defaults) {
  const [fields, setFields] = useState(route.query);
  const written = useRef(JSON.stringify(route.query)); // what the address says, by us or by a link
  const said = JSON.stringify(route.query);
  useEffect(() => {
    if (said === written.current) return;
    written.current = said;
    setFields(JSON.parse(said));
  }, [said]);
  const text = JSON.stringify(fields);
  useEffect(() => {
    if (text === written.current) return undefined;
    const timer = setTimeout(() => {
      const address = to(["new"], JSON.parse(text));
      written.current = JSON.stringify(parse(address).query);
      replace(address);
    }, SETTLED_MS);
    return () => clearTimeout(timer);
  }, [text]);
  const set = useCallback(
    (changed) =>
      setFields((old) => {
        const next = { ...defaults, ...old, ...changed };
        return Object.fromEntries(Object.entries(next).filter(([, v]) => v !== "" && v !== undefined && v !== null));
      }),
    [JSON.stringify(defaults)],
  );
  return [{ ...defaults, ...fields }, set];
}

/** Whether the table of options is there, or why it is not. */
function useOptions() {
  const [state, setState] = useState({ ready: false });
  useEffect(() => {
    loadOptions().then(
      () => setState({ ready: true }),
      (error) => setState({ ready: false, error }),
    );
  }, []);
  return state;
}

export function New({ route }) {
  const symbols = useGet("symbols"),
    strategies = useGet("strategies");
  const options = useOptions();
  const error = symbols.error ?? strategies.error ?? options.error;
  const ready = symbols.data && strategies.data && options.ready;
  return html`
    <${Head} title="New backtest"
      below="Vary a parameter to make it a sweep or a search; take several symbols to make it a portfolio." />
    <${Failure} error=${error} />
    ${!ready && !error && html`<${Busy} />`}
    ${
      ready &&
      (symbols.data.symbols.length
        ? html`<${Form} route=${route} symbols=${symbols.data.symbols} strategies=${strategies.data.strategies} />`
        : html`<${NoCandles} />`)
    }`;
}

function Form({ route, symbols, strategies }) {
  const longest = symbols.reduce((best, s) => (s.bars > best.bars ? s : best));
  const first = strategies.find((s) => s.name === FIRST_CHOICE) ?? strategies[0];
  const [fields, set] = useFields(route, { symbol: longest.symbol, strategy: first.name });
  const strategy = strategies.find((s) => s.name === fields.strategy);
  const parameters = strategy ? parametersOf(strategy.schema) : [];
  const plan = usePlan(fields);
  const blamed = plan.error?.field;
  const wrong = (...names) => (names.includes(blamed) ? plan.error.message : undefined);
  const shared = { fields, set, wrong };
  return html`<form class="new" onSubmit=${(event) => event.preventDefault()} data-ready="form">
    <div class="cards">
      <${Market} ...${shared} symbols=${symbols} />
      <${Strategy} ...${shared} strategies=${strategies} strategy=${strategy} parameters=${parameters} />
      ${Object.keys(fields).some((k) => k.startsWith("g.")) && html`<${Search} ...${shared} />${
        fields.search !== "1" && html`<${Walk} ...${shared} />`}`}
      <${Costs} ...${shared} />
      <${Account} ...${shared} />
      <${How} ...${shared} />
    </div>
    <aside><${Plan} plan=${plan} /></aside>
  </form>`;
}
