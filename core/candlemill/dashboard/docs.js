// The REST interface as a page, made from its OpenAPI document.
import { html, render, useEffect, useState } from "./lib.js";
import { toggle } from "./theme.js";
import { Busy, Card, Command, Failure } from "./ui.js";

const FIRST = `curl -X POST ${location.origin}/api/v1/backtest -H 'Content-Type: application/json' ` +
  `-d '{"symbol": "BTCUSDT", "strategy": "momentum_v1", "range": "2023"}'`;

const nameOf = (ref) => ref.split("/").at(-1);

/** A schema in a few words; objects of their own are links. */
function Type({ schema }) {
  if (!schema) return "";
  if (schema.$ref) return html`<a href="#${nameOf(schema.$ref)}">${nameOf(schema.$ref)}</a>`;
  const some = schema.oneOf ?? schema.anyOf;
  if (some) return some.map((one, k) => html`${k ? " or " : ""}<${Type} schema=${one} />`);
  if (schema.enum) return schema.enum.map((v) => (v === "" ? "“”" : String(v))).join(" · ");
  if (schema.type === "array") return html`list of <${Type} schema=${schema.items} />`;
  if (schema.additionalProperties?.type || schema.additionalProperties?.oneOf) return html`object of <${Type} schema=${schema.additionalProperties} />`;
  return [].concat(schema.type ?? "anything").join(" or ");
}

function limits(schema = {}) {
  const found = [];
  if (schema.minimum !== undefined) found.push(`from ${schema.minimum.toLocaleString("en")}`);
  if (schema.maximum !== undefined) found.push(`to ${schema.maximum.toLocaleString("en")}`);
  if (schema.maxLength !== undefined) found.push(`at most ${schema.maxLength} letters`);
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") found.push(`default ${JSON.stringify(schema.default)}`);
  return found.join(", ");
}

const Rows = ({ rows, head }) => html`<div class="wide" tabindex="0" role="region" aria-label=${head}><table>
  <thead><tr><th scope="col">${head}</th><th scope="col">type</th><th scope="col">limits</th><th scope="col"></th></tr></thead>
  <tbody>${rows.map(([name, schema, told, required]) => html`<tr key=${name}><th scope="row"><code>${name}</code>${required ? "" : html` <span class="muted">optional</span>`}</th>
    <td><${Type} schema=${schema} /></td><td class="muted">${limits(schema)}</td><td class="muted" style="white-space:normal">${told ?? ""}</td></tr>`)}</tbody></table></div>`;

function Operation({ method, path, of }) {
  const parameters = (of.parameters ?? []).map((p) => [p.name, p.schema, p.description ?? p.schema?.description, p.required]);
  const body = of.requestBody?.content?.["application/json"]?.schema;
  const [status, good] = Object.entries(of.responses).find(([code]) => code[0] === "2") ?? ["", {}];
  const answer = good.content?.["application/json"]?.schema;
  return html`<${Card} title=${html`<code>${method.toUpperCase()} ${path}</code>`}>
    <p style="margin:0 0 6px">${of.summary}.${of.description ? html` <span class="muted">${of.description}</span>` : ""}</p>
    ${body && html`<p class="muted" style="margin:0 0 6px">Body: <${Type} schema=${body} /></p>`}
    ${parameters.length > 0 && html`<${Rows} rows=${parameters} head="parameter" />`}
    <p class="note">Answers ${status}${answer ? html`: <${Type} schema=${answer} />` : good.content ? `: ${Object.keys(good.content)[0]}` : ""}; problems as problem+json.</p>
  </${Card}>`;
}

function Docs() {
  const [found, setFound] = useState({});
  useEffect(() => {
    fetch("/openapi.json").then((answer) => answer.json()).then((document) => setFound({ document }), (error) => setFound({ error }));
  }, []);
  useEffect(() => { if (found.document) document.documentElement.dataset.ready = "1"; }, [found]);
  const { document: doc, error } = found;
  return html`
    <header class="bar"><div><a class="brand" href="/" aria-label="candlemill"><img src="/icon.svg" alt="" width="24" height="24" /><span>candlemill</span></a>
      <nav aria-label="views"><a href="/">Dashboard</a><a href="/docs" aria-current="page">REST</a></nav>
      <button type="button" class="icon" onClick=${toggle} aria-label="light or dark colours">◐</button></div></header>
    <main><div class="head"><div><h1>REST interface</h1>
      <p>Money is an integer, the decimal × 10⁸; rates are parts per million; times are UTC milliseconds. <a href="/openapi.json">openapi.json</a></p></div></div>
      <div class="cards">
        <${Card} title="A first job"><${Command} text=${FIRST} label="curl line" /></${Card}>
        <${Failure} error=${error} />
        ${!doc && !error && html`<${Busy} />`}
        ${doc && Object.entries(doc.paths).flatMap(([path, item]) => Object.entries(item).map(([method, of]) => html`<${Operation} key=${method + path} method=${method} path=${path} of=${of} />`))}
        ${doc && Object.entries(doc.components.schemas).map(([name, schema]) => html`<${Card} key=${name} title=${name} id=${name}>
          ${schema.description && html`<p class="muted" style="margin:0 0 6px">${schema.description}</p>`}
          <${Rows} head="field" rows=${Object.entries(schema.properties ?? {}).map(([field, of]) => [field, of, of.description, schema.required?.includes(field)])} />
        </${Card}>`)}
      </div></main>
    <footer>candlemill ${doc?.info.version ?? ""}</footer>`;
}

render(html`<${Docs} />`, document.getElementById("app"));
