// The voice gallery: names, languages, a sample at a click, favourites.
import { aboutVoice, catalogue, favourites, sampleBlob } from "./catalogue.js";
import { icon, make } from "./dom.js";
import { codeOf, languageName, t } from "./i18n.js";

const sound = new Audio();
let sounding = null; // {voice, stop}

export function stopSample() { sounding?.stop(); }

// Plays a moment of a voice; `button` shows it. A second click ends it.
export async function playSample(voice, button, onerror) {
  const was = sounding?.voice.key === voice.key;
  stopSample();
  if (was) return;
  const control = new AbortController();
  const mine = { voice, stop: () => { control.abort(); sound.pause(); show("play"); if (sounding === mine) sounding = null; } };
  const show = (name) => { button.replaceChildren(icon(name)); button.classList.toggle("busy", name === "stop" && !control.signal.aborted && sound.paused); button.classList.toggle("on", name === "stop"); };
  sounding = mine;
  show("stop"); button.classList.add("busy");
  try {
    const blob = await sampleBlob(voice, control.signal);
    if (sounding !== mine) return;
    URL.revokeObjectURL(sound.src);
    sound.src = URL.createObjectURL(blob);
    sound.onended = () => mine.stop();
    await sound.play();
    button.classList.remove("busy");
  } catch (error) {
    mine.stop();
    if (error.name !== "AbortError") onerror(error);
  }
}

export class Gallery {
  constructor({ onchoose, onerror }) {
    this.onchoose = onchoose; this.onerror = onerror; this.chosen = null; this.wanted = "";
    this.search = make("input", { type: "search", "aria-label": t("gallery.search"), placeholder: t("gallery.search"), oninput: () => this.draw() });
    this.filter = make("select", { "aria-label": t("gallery.language"), onchange: () => this.draw() });
    this.tools = make("div", { class: "gallery-tools" }, this.search, this.filter);
    this.list = make("ul", { class: "voices" });
    this.empty = make("p", { class: "hint", hidden: true }, t("gallery.none"));
    this.element = make("section", { class: "gallery", "aria-label": t("gallery.title") }, make("h2", {}, t("gallery.title")), this.tools, this.list, this.empty);
  }

  get voices() { return catalogue.voices; }

  refresh() {
    const languages = [...new Set(this.voices.flatMap((voice) => voice.languages).map(codeOf))];
    const keep = this.filter.value;
    this.filter.replaceChildren(make("option", { value: "" }, t("gallery.all")), ...languages.map((code) => make("option", { value: code }, languageName(code))));
    if (languages.includes(keep)) this.filter.value = keep;
    this.filter.hidden = languages.length < 2;
    this.search.hidden = this.voices.length < 8;
    this.tools.hidden = this.filter.hidden && this.search.hidden;
    const still = this.voices.find((voice) => voice.key === (this.chosen?.key ?? this.wanted)) ?? this.voices.find((voice) => voice.isDefault) ?? this.voices[0] ?? null;
    this.chosen = still;
    this.draw();
    const card = this.list.querySelector(".chosen"), box = this.list.getBoundingClientRect(); // a strip on a phone
    if (card) this.list.scrollLeft += card.getBoundingClientRect().left - box.left - 4;
  }

  choose(voice) { this.chosen = voice; this.draw(); this.onchoose(voice); }

  draw() {
    const asked = this.search.value.trim().toLowerCase(), code = this.filter.value;
    const shown = this.voices.filter((voice) => (!asked || `${voice.id} ${voice.title} ${aboutVoice(voice)}`.toLowerCase().includes(asked)) && (!code || voice.languages.map(codeOf).includes(code)));
    shown.sort((a, b) => Number(favourites.has(b.key)) - Number(favourites.has(a.key)));
    this.empty.hidden = shown.length > 0;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    this.list.replaceChildren(...shown.map((voice) => this.#card(voice)));
    if (focused) this.list.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  #card(voice) {
    const isChosen = voice.key === this.chosen?.key, isLoved = favourites.has(voice.key), name = voice.title;
    const canSample = !["described", "unknown"].includes(voice.kind);
    const sample = make("button", { type: "button", class: "icon-button sample", "aria-label": t("gallery.hear", { name }), title: t("gallery.hear", { name }), "data-focus": `s ${voice.key}`, hidden: !canSample, onclick: (event) => playSample(voice, event.currentTarget, this.onerror) }, icon("play"));
    const choose = make("button", { type: "button", class: "choose", "aria-pressed": String(isChosen), "data-voice": voice.id, "data-focus": `c ${voice.key}`, onclick: () => this.choose(voice) }, make("strong", {}, name), make("span", {}, aboutVoice(voice)));
    const love = make("button", { type: "button", class: `icon-button love${isLoved ? " on" : ""}`, "aria-label": t("gallery.favourite", { name }), title: t("gallery.favourite", { name }), "aria-pressed": String(isLoved), "data-focus": `f ${voice.key}`, onclick: () => { favourites.toggle(voice.key); this.draw(); } }, icon("heart", isLoved));
    return make("li", { class: isChosen ? "voice chosen" : "voice" }, canSample ? sample : make("span", { class: "sample still" }, icon(voice.kind === "described" ? "design" : "clone")), choose, love);
  }
}
