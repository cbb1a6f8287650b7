// Draws the OpenAPI document of this server.
import { make } from "/static/core/dom.js";
import { prefs } from "/static/core/store.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
document.documentElement.dataset.theme = prefs.get("theme") ?? (dark.matches ? "dark" : "light");
const document_ = await (await fetch("/openapi.json")).json();
const named = (schema) => (schema?.$ref ? document_.components.schemas[schema.$ref.split("/").pop()] : schema) ?? {};

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).filter((one) => one !== "null").join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.const !== undefined) return String(schema.const);
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  return schema.format === "binary" || schema.contentMediaType ? "file" : schema.type ?? "any";
}

function table(rows) {
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...["Field", "Type", "Default", "Meaning"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell, i) => make("td", {}, i === 0 ? make("code", {}, cell) : cell)))))));
}

const fields = (schema) => Object.entries(schema.properties ?? {}).map(([name, one]) => [name + (schema.required?.includes(name) ? " *" : ""), kind(one), one.default === undefined || one.default === null ? "" : String(one.default), one.description ?? ""]);

document.querySelector("#about").textContent = `${document_.info.description} Version ${document_.info.version}. * is required.`;
const groups = new Map();
for (const [path, operations] of Object.entries(document_.paths)) {
  for (const [verb, operation] of Object.entries(operations)) {
    const group = operation.tags?.[0] ?? "other";
    if (!groups.has(group)) groups.set(group, []);
    const parts = [make("summary", {}, make("span", { class: "verb" }, verb.toUpperCase()), make("code", {}, path), make("span", {}, ` ${operation.summary ?? ""}`)), make("p", { class: "hint" }, operation.description ?? "")];
    if (operation.parameters) parts.push(table(operation.parameters.map((one) => [`${one.name}${one.required ? " *" : ""}`, kind(one.schema), "", `in the ${one.in}`])));
    const content = operation.requestBody?.content ?? {};
    const [type] = Object.keys(content);
    if (type) {
      parts.push(table(fields(named(content[type].schema))));
      const example = { "/v1/audio/speech": '{"model": "tts-1", "voice": "alloy", "input": "Hello."}', "/v1/audio/speech/segments": '{"input": "Hello. How are you?"}', "/v1/audio/speech/batch": '{"items": [{"input": "One."}, {"input": "Two."}]}' }[path];
      if (example) parts.push(make("pre", { tabindex: "0" }, `curl ${location.origin}${path} -H "Content-Type: application/json" \\\n  -d '${example}'${path.endsWith("/speech") ? " -o hello.mp3" : ""}`));
    }
    groups.get(group).push(make("details", { class: "route" }, ...parts));
  }
}
document.querySelector("#routes").append(...[...groups].flatMap(([name, routes]) => [make("h2", {}, name), ...routes]));
