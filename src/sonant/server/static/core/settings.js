// Forms made from the server's table of settings: kinds, ranges and defaults are said there, and nowhere here.
import { base64 } from "./api.js";
import { can, catalogue } from "./catalogue.js";
import { field, make, select } from "./dom.js";
import { has, number, t } from "./i18n.js";

// These have a place of their own on a page, or none.
const ELSEWHERE = ["voice", "transcript", "language", "instruction", "speed", "source_audio", "deadline", "options"];
const KINDS = ["switch", "whole", "number", "level", "text", "name", "choice", "glossary"];
const NUMERIC = ["whole", "number", "level"]; // a level is a number, or off

export const rowOf = (name) => catalogue.settings.find((row) => row.name === name);
const nameOf = (row) => (has(`set.${row.name}`) ? t(`set.${row.name}`) : row.name.replaceAll("_", " "));
const isFor = (row, spec) => (row.home === "sampling" ? row.name in spec.sampling : !row.needs.length || row.needs.some((one) => can(spec, one)));
const rangeOf = (row) => (row.most !== null ? t("set.between", { least: number(row.least, row.least < 1 && row.least > 0 ? 3 : 0).replace(/([.,]\d*?)0+$/, "$1").replace(/[.,]$/, ""), most: row.most > Number.MAX_SAFE_INTEGER ? "2⁵³ − 1" : number(row.most) }) + (row.kind === "level" ? " / off" : "") : t("set.above", { above: row.above ?? 0 }));

// Why a written value cannot be: null where it can. Whole numbers above 2⁵³ - 1 are none: the browser would round them.
export function fault(row, text) {
  if (text === "" || !NUMERIC.includes(row.kind) || (row.kind === "level" && text === "off")) return null;
  const value = Number(text);
  const isWithin = Number.isFinite(value) && (row.least === null || value >= row.least) && (row.above === null || value > row.above) && (row.most === null || value <= row.most);
  if (isWithin && (row.kind !== "whole" || Number.isSafeInteger(value))) return null;
  return t(row.kind === "whole" ? "set.wrongWhole" : "set.wrong", { name: nameOf(row), range: rangeOf(row) });
}

export class SettingsForm {
  constructor(onchange) {
    this.onchange = onchange; this.kept = {}; this.inputs = new Map();
    this.element = make("div", { class: "settings" });
  }

  // Draws the settings that a model takes; what was written stays where it still applies.
  update(spec) {
    this.inputs.clear();
    const groups = new Map();
    for (const row of catalogue.settings) {
      if (ELSEWHERE.includes(row.name) || row.name.startsWith("emotion_") || !KINDS.includes(row.kind) || !spec || !isFor(row, spec)) continue;
      if (!groups.has(row.panel)) groups.set(row.panel, []);
      groups.get(row.panel).push(this.#field(row, spec));
    }
    this.element.replaceChildren(...[...groups].map(([panel, fields]) => make("fieldset", {}, make("legend", {}, has(`panel.${panel}`) ? t(`panel.${panel}`) : panel), make("div", { class: "grid" }, ...fields))));
  }

  #field(row, spec) {
    const standard = row.home === "sampling" ? spec.sampling[row.name] : row.name === "normalize" ? spec.normalize : row.default;
    const kept = this.kept[row.name] ?? "";
    let input;
    if (row.kind === "switch" || row.kind === "choice") {
      const choices = row.kind === "switch" ? [["true", t("on")], ["false", t("off")]] : row.choices.filter((one) => row.name !== "normalize" || spec.front_ends.includes(one)).map((one) => [one, has(`choice.${row.name}.${one}`) ? t(`choice.${row.name}.${one}`) : one]);
      const shown = choices.find(([key]) => key === String(standard ?? ""))?.[1];
      input = select([["", shown ? t("set.standard", { value: shown }) : t("set.automatic")], ...choices], kept);
    } else if (row.kind === "glossary") {
      input = make("textarea", { rows: "2", placeholder: t("set.glossaryExample") });
      input.value = kept;
    } else {
      const isNumber = NUMERIC.includes(row.kind);
      input = make("input", { type: "text", inputmode: isNumber && row.kind !== "level" ? "decimal" : null, autocomplete: "off", placeholder: row.name === "seed" ? t("set.random") : standard === null || standard === undefined ? t("set.automatic") : String(standard) });
      input.value = kept;
    }
    input.dataset.setting = row.name;
    const wrong = make("p", { class: "wrong", hidden: true });
    const made = field(nameOf(row) + (row.unit ? ` (${row.unit})` : ""), input);
    made.append(wrong);
    made.title = row.help; // the table's own words, in English
    input.addEventListener("input", () => { this.kept[row.name] = input.value; this.#judge(row, input, wrong); this.onchange(); });
    this.inputs.set(row.name, { row, input, wrong });
    if (row.kind === "glossary") made.classList.add("wide");
    return made;
  }

  #judge(row, input, wrong) {
    const found = fault(row, input.value.trim());
    wrong.textContent = found ?? ""; wrong.hidden = !found;
    input.toggleAttribute("aria-invalid", Boolean(found));
    if (found) input.setAttribute("aria-invalid", "true");
    return found;
  }

  // The first field that cannot be sent, brought to sight; null when all can.
  firstWrong() {
    for (const { row, input, wrong } of this.inputs.values()) {
      const found = this.#judge(row, input, wrong);
      if (!found) continue;
      for (let box = input.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
      input.focus();
      return found;
    }
    return null;
  }

  // What was set, as fields of a request's body.
  body() {
    const body = {}, sampling = {};
    for (const { row, input } of this.inputs.values()) {
      const text = input.value.trim();
      if (text === "") continue;
      let value = text;
      if (row.kind === "switch") value = text === "true";
      else if (NUMERIC.includes(row.kind) && text !== "off") value = Number(text);
      else if (row.kind === "glossary") value = Object.fromEntries(text.split("\n").map((line) => line.split("=").map((part) => part.trim())).filter(([word, spelling]) => word && spelling));
      if (row.home === "sampling") sampling[row.name] = value; else body[row.field] = value;
    }
    if (Object.keys(sampling).length) body.sampling = sampling;
    return body;
  }

  get state() { return { ...this.kept }; }
  set state(kept) { this.kept = { ...kept }; for (const [name, { row, input, wrong }] of this.inputs) { input.value = this.kept[name] ?? ""; this.#judge(row, input, wrong); } this.onchange(); }
  get count() { return [...this.inputs.values()].filter(({ input }) => input.value.trim() !== "").length; }
}

// A slider whose middle is 1 and whose ends are the table's: each step is the same ratio.
export class SpeedSlider {
  constructor(onchange) {
    const row = rowOf("speed");
    this.input = make("input", { type: "range", min: Math.log2(row.least), max: Math.log2(row.most), step: "0.1", value: "0" });
    this.output = make("output", { for: "speed" });
    this.input.id = "speed";
    this.input.addEventListener("input", () => { this.#show(); onchange(); });
    this.element = make("div", { class: "slider" }, make("label", { for: "speed" }, t("set.speed")), this.input, this.output);
    this.#show();
  }
  get value() { return Math.round(2 ** Number(this.input.value) * 100) / 100; }
  set value(speed) { this.input.value = Math.log2(speed || 1); this.#show(); }
  #show() { const text = `${number(this.value, 2).replace(/([.,]\d*?)0+$/, "$1").replace(/[.,]$/, "")} ×`; this.output.textContent = text; this.input.setAttribute("aria-valuetext", text); }
}

// One way at a time to give an emotion, of those that the model knows.
export class EmotionForm {
  constructor(onchange) {
    this.onchange = onchange; this.way = "none"; this.clip = null;
    this.ways = make("div", { class: "segmented", role: "radiogroup", "aria-label": t("emotion.title") });
    this.moods = catalogue.emotions.map((emotion) => {
      const input = make("input", { type: "range", min: "0", max: "1", step: "0.05", value: "0", "data-emotion": emotion });
      input.id = `emotion-${emotion}`;
      const output = make("output", { for: input.id }, "0");
      input.addEventListener("input", () => { output.textContent = number(Number(input.value), 2); onchange(); });
      input.show = () => { output.textContent = number(Number(input.value), 2); };
      return { input, element: make("div", { class: "slider" }, make("label", { for: input.id }, has(`mood.${emotion}`) ? t(`mood.${emotion}`) : emotion), input, output) };
    });
    this.words = make("input", { type: "text", placeholder: t("emotion.wordsExample"), oninput: onchange });
    this.own = make("input", { type: "checkbox", onchange: () => { this.#show(); onchange(); } });
    this.file = make("input", { type: "file", accept: "audio/*,video/webm", onchange: async () => { await this.take(this.file.files[0]); onchange(); } });
    this.fileName = make("p", { class: "hint" });
    const row = rowOf("emotion_strength");
    this.strength = make("input", { type: "range", id: "emotion-strength", min: String(row.least), max: String(row.most), step: "0.05", value: String(row.default) });
    const output = make("output", { for: "emotion-strength" }, number(1, 2));
    this.strength.show = () => { output.textContent = number(Number(this.strength.value), 2); };
    this.strength.addEventListener("input", () => { this.strength.show(); onchange(); });
    this.panels = {
      mood: make("div", { class: "sliders" }, ...this.moods.map(({ element }) => element)),
      words: make("div", {}, field(t("emotion.words"), this.words), make("label", { class: "check" }, this.own, t("emotion.own"))),
      clip: make("div", {}, field(t("emotion.clip"), this.file, t("emotion.clipHint")), this.fileName),
    };
    this.strengthRow = make("div", { class: "slider" }, make("label", { for: "emotion-strength" }, t("emotion.strength")), this.strength, output);
    this.element = make("fieldset", { class: "emotion" }, make("legend", {}, t("emotion.title")), this.ways, ...Object.values(this.panels), this.strengthRow);
  }

  update(spec) {
    const offered = [["none", true], ["mood", can(spec, "emotion_vector")], ["words", can(spec, "emotion_text")], ["clip", can(spec, "emotion_audio")]].filter(([, is]) => is).map(([way]) => way);
    this.element.hidden = offered.length < 2;
    this.offered = offered;
    this.ways.replaceChildren(...offered.map((way) => {
      const input = make("input", { type: "radio", name: "emotion-way", value: way, onchange: () => { this.way = way; this.#show(); this.onchange(); } });
      return make("label", {}, input, make("span", {}, t(`emotion.way.${way}`)));
    }));
    this.#show();
  }

  get current() { return this.offered?.includes(this.way) ? this.way : "none"; }

  #show() {
    for (const input of this.ways.querySelectorAll("input")) input.checked = input.value === this.current;
    for (const [way, panel] of Object.entries(this.panels)) panel.hidden = way !== this.current;
    this.strengthRow.hidden = this.current === "none";
    this.words.disabled = this.own.checked;
    this.fileName.textContent = this.clip ? t("emotion.clipTaken", { name: this.clip.name }) : "";
  }

  async take(file) { this.clip = file ? { name: file.name, data: await base64(file) } : null; this.#show(); }

  body() {
    const body = {};
    if (this.current === "mood") {
      const moods = Object.fromEntries(this.moods.map(({ input }) => [input.dataset.emotion, Number(input.value)]).filter(([, value]) => value > 0));
      if (Object.keys(moods).length) body.emotion_vector = moods;
    } else if (this.current === "words") {
      if (this.own.checked) body.emotion_from_text = true;
      else if (this.words.value.trim()) body.emotion_text = this.words.value.trim();
    } else if (this.current === "clip" && this.clip) body.emotion_audio = this.clip.data;
    const strength = Number(this.strength.value);
    if (Object.keys(body).length && strength !== rowOf("emotion_strength").default) body.emotion_strength = strength;
    return body;
  }

  get state() { return { way: this.way, moods: Object.fromEntries(this.moods.map(({ input }) => [input.dataset.emotion, input.value])), words: this.words.value, own: this.own.checked, clip: this.clip, strength: this.strength.value }; }
  set state(kept) {
    this.way = kept.way ?? "none"; this.clip = kept.clip ?? null; this.own.checked = Boolean(kept.own); this.words.value = kept.words ?? "";
    for (const { input } of this.moods) { input.value = kept.moods?.[input.dataset.emotion] ?? "0"; input.show(); }
    this.strength.value = kept.strength ?? "1"; this.strength.show();
    this.#show();
  }
}
