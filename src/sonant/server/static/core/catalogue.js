// The served models and the voices they speak with, as a person chooses them: the voice first.
import { call, get, post } from "./api.js";
import { languageName, sampleOf, t } from "./i18n.js";
import { keepSample, keptSample, prefs } from "./store.js";

export const catalogue = { models: new Map(), voices: [], settings: [], emotions: [] };
export const can = (spec, capability) => Boolean(spec?.capabilities.includes(capability));
export const specOf = (model) => catalogue.models.get(model)?.spec ?? null;
export const modelsThat = (capability) => [...catalogue.models.values()].filter((model) => can(model.spec, capability)).map((model) => model.id);

// Names such as af_bella hold the language and kind of voice, which are shown apart.
export const titleOf = (id) => { const plain = id.replace(/^[a-z][fm]_/, "").replaceAll("_", " "); return plain.slice(0, 1).toUpperCase() + plain.slice(1); };

export async function refreshCatalogue() {
  const [{ data: models }, listed, settings] = await Promise.all([get("/v1/models"), get("/v1/audio/voices?model=all"), catalogue.settings.length ? null : get("/v1/settings")]);
  if (settings) { catalogue.settings = settings.data; catalogue.emotions = settings.emotions; }
  catalogue.models.clear();
  for (const model of models) if (!model.alias_of) catalogue.models.set(model.id, { id: model.id, state: model.state, about: model.about, spec: model.capabilities });
  const voices = [];
  for (const model of catalogue.models.values()) {
    const { spec, id } = model;
    if (!spec) voices.push({ key: `unknown:${id}`, id, kind: "unknown", title: titleOf(id), models: [id], languages: [] });
    else if (spec.needs_instruction) voices.push({ key: `described:${id}`, id, kind: "described", title: t("voice.described"), models: [id], languages: spec.languages });
    else if (!spec.voices.length && !spec.needs_voice) voices.push({ key: `model:${id}`, id, kind: "model", title: titleOf(id), models: [id], languages: spec.languages });
  }
  for (const voice of listed.voices) {
    const [model] = voice.models, spec = specOf(model);
    voices.push({
      key: `${voice.kind}:${voice.id}`, id: voice.id, kind: voice.kind, title: voice.kind === "preset" ? titleOf(voice.id) : voice.id, models: voice.models,
      languages: voice.language ? [voice.language] : voice.kind === "preset" ? spec?.languages ?? [] : [], isDefault: voice.kind === "preset" && spec?.default_voice === voice.id,
    });
  }
  for (const voice of voices) if (voices.some((other) => other !== voice && other.title === voice.title)) voice.ofModel = titleOf(voice.models[0]);
  catalogue.stored = listed.uploaded_voices;
  const first = [...catalogue.models.keys()];
  const rank = (voice) => [voice.kind === "stored" ? 0 : 1, Math.min(...voice.models.map((model) => first.indexOf(model))), voice.isDefault ? 0 : 1];
  voices.sort((a, b) => { const one = rank(a), two = rank(b); for (let i = 0; i < one.length; i++) if (one[i] !== two[i]) return one[i] - two[i]; return 0; });
  catalogue.voices = voices;
}

// Loads a model that is not in memory; what it can do is known then at the latest.
export async function wakeModel(name) {
  const known = catalogue.models.get(name);
  if (!known || known.state === "loaded") return;
  try {
    const { capabilities } = await post(`/v1/models/${encodeURIComponent(name)}/load`);
    Object.assign(known, { state: "loaded", spec: capabilities });
  } catch (error) {
    if (error.code !== "missing_right" || !known.spec) throw error; // it is loaded when it is first asked to speak
  }
}

export const favourites = {
  has: (key) => prefs.get("favourites", []).includes(key),
  toggle(key) { const kept = prefs.get("favourites", []); prefs.set("favourites", kept.includes(key) ? kept.filter((one) => one !== key) : [...kept, key]); },
};

// What a voice is, in a few words below its name.
export function aboutVoice(voice) {
  const kinds = { stored: t("voice.stored"), described: t("voice.describedAbout"), unknown: t("voice.unknown") };
  const spoken = voice.languages.length > 3 ? t("voice.languages", { count: voice.languages.length }) : voice.languages.map(languageName).join(", ");
  return [kinds[voice.kind], spoken, voice.ofModel].filter(Boolean).join(" · ");
}

// A voice as fields of a request.
export const fieldsOf = (voice) => (voice && ["preset", "stored"].includes(voice.kind) ? { voice: voice.id } : {});

// A moment of a voice as a sound file: the clip of a stored one, a sentence said by any other, kept for the next time.
export async function sampleBlob(voice, signal) {
  if (voice.kind === "stored") return (await call(`/v1/audio/voices/${encodeURIComponent(voice.id)}/clip`, { signal })).blob();
  const model = voice.models[0], name = `${specOf(model)?.fingerprint ?? model}/${voice.key}`;
  const kept = await keptSample(name);
  if (kept) return kept;
  const json = { model, input: sampleOf(voice.languages[0]), ...fieldsOf(voice), seed: 7, response_format: "wav", stream: false };
  const blob = await (await call("/v1/audio/speech", { method: "POST", json, signal })).blob();
  await keepSample(name, blob);
  return blob;
}
