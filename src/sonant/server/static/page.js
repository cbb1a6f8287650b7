// What all sections share: elements, the alert line, the models, selects for model and voice.
import { ApiError, get, post } from "/static/api.js";

export const $ = (selector, root = document) => root.querySelector(selector);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function alertUser(error) {
  const line = $("#alert");
  if (error?.name === "AbortError") return;
  line.textContent = error instanceof Error ? error.message : error ?? "";
  line.hidden = !line.textContent;
  if (error instanceof ApiError && error.status === 401 && !$("#key-dialog").open) $("#key-dialog").showModal();
}

// The served models by name; `spec` is null where only loading tells what a model can do.
export const models = new Map();
// A clip to try without saving it: {label, data, transcript}.
export const trial = { clip: null };

export async function refreshModels() {
  const { data } = await get("/v1/models");
  models.clear();
  for (const model of data) if (!model.alias_of) models.set(model.id, { about: model.about, state: model.state, spec: model.capabilities });
}

// What a chosen model can do; it is loaded meanwhile, so that it can speak soon.
export async function chosenSpec(name) {
  const known = models.get(name);
  if (!known) return null;
  if (known.state !== "loaded" || known.spec === null) {
    const loading = post(`/v1/models/${encodeURIComponent(name)}/load`);
    const loaded = loading.then(({ capabilities }) => Object.assign(known, { spec: capabilities, state: "loaded" }));
    if (known.spec === null) await loaded;
    else loaded.catch(alertUser);
  }
  return known.spec;
}

export const can = (spec, capability) => Boolean(spec?.capabilities.includes(capability));

export function fillModels(select, keep = select.value) {
  select.replaceChildren(...[...models.keys()].map((name) => make("option", { value: name }, name)));
  if (models.has(keep)) select.value = keep;
}

export async function fillVoices(select, model) {
  const spec = await chosenSpec(model);
  const keep = select.value;
  const { voices } = await get(`/v1/audio/voices?model=${encodeURIComponent(model)}`);
  const options = [];
  const speaksAlone = spec.default_voice || !(spec.needs_voice || spec.voices.length);
  if (speaksAlone) options.push(make("option", { value: "" }, spec.default_voice ? `default (${spec.default_voice})` : "no voice"));
  if (trial.clip && can(spec, "clone")) options.push(make("option", { value: "\u0000clip" }, `clip: ${trial.clip.label}`));
  options.push(...voices.filter((voice) => voice.kind === "preset" || can(spec, "clone")).map((voice) => make("option", { value: voice.id }, voice.id)));
  if (!options.length) options.push(make("option", { value: "" }, "add a voice first"));
  select.replaceChildren(...options);
  if ([...select.options].some((option) => option.value === keep)) select.value = keep;
  return spec;
}

// True, and told, when this model speaks only with a voice and none is chosen.
export function lacksVoice(spec, value) {
  const lacks = Boolean(spec?.needs_voice && !value);
  if (lacks) alertUser("This model speaks only with a voice: record one or choose a clip under Voices.");
  return lacks;
}

// The voice a select stands for, as fields of a request.
export function voiceFields(value) {
  if (value === "\u0000clip") return { ref_audio: trial.clip.data, ...(trial.clip.transcript ? { ref_text: trial.clip.transcript } : {}) };
  return value ? { voice: value } : {};
}

export function bindSlider(input) {
  const output = input.parentElement.querySelector("output");
  const show = () => { output.textContent = Number(input.value).toFixed(2).replace(/\.?0+$/, ""); };
  input.addEventListener("input", show);
  show();
}

export const seconds = (value) => (value === null || value === undefined ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`);
export const factor = (value) => (value === null || value === undefined ? "–" : value.toFixed(value < 0.1 ? 3 : 2));
