// Compare: the same text said twice, heard blind, then told which was which, with figures and a score that stays.
import { speak } from "../core/api.js";
import { aboutVoice, catalogue, fieldsOf, specOf, titleOf } from "../core/catalogue.js";
import { confirmed, field, make, problemLine, select } from "../core/dom.js";
import { number, sampleOf, seconds, t } from "../core/i18n.js";
import { SpeedSlider, fault, rowOf } from "../core/settings.js";
import { joined, levels } from "../core/sound.js";
import { SoundView } from "../core/soundview.js";
import { prefs } from "../core/store.js";

export function mount(root) {
  let running = null, results = null;
  const kept = prefs.get("compare", {}), score = prefs.get("score", { A: 0, B: 0, same: 0 });
  const problem = problemLine();
  const text = make("textarea", { rows: "3", id: "compare-text" });
  text.value = kept.text ?? "";
  const sides = ["A", "B"].map((name) => makeSide(name, kept[name] ?? {}));
  const blind = make("input", { type: "checkbox", id: "blind", checked: kept.blind ?? true });
  blind.checked = kept.blind ?? true;
  const button = make("button", { type: "submit", class: "primary large", id: "compare" }, t("compare.go"));
  const form = make("form", { class: "card", novalidate: true }, field(t("speak.text"), text), make("div", { class: "two" }, ...sides.map((side) => side.element)), make("label", { class: "check" }, blind, t("compare.blind")), problem, make("div", { class: "go" }, button));
  const places = [t("compare.first"), t("compare.second")].map((label, at) => {
    const view = new SoundView({ label, compact: true });
    const told = make("dl", { class: "figures" }), title = make("h3", {}, label);
    const pick = make("button", { type: "button", class: "pick choose-one", onclick: () => choose(at) }, t(at ? "compare.secondBetter" : "compare.firstBetter"));
    return { view, told, title, pick, element: make("section", { class: "card take", "aria-label": label }, title, view.element, pick, told) };
  });
  const same = make("button", { type: "button", class: "choose-one", id: "same", onclick: () => choose(-1) }, t("compare.same"));
  const outcome = make("p", { class: "outcome", role: "status" });
  const reset = make("button", { type: "button", class: "quiet small", onclick: async () => { if (await confirmed(t("compare.reset"), t("compare.resetText"), t("remove"))) { Object.assign(score, { A: 0, B: 0, same: 0 }); prefs.set("score", score); showScore(); } } }, t("compare.reset"));
  const scoreLine = make("p", { class: "hint", id: "score" });
  const result = make("div", { hidden: true, id: "compare-result" }, make("div", { class: "two" }, ...places.map((place) => place.element)), make("div", { class: "actions center" }, same), outcome);

  function makeSide(name, was) {
    const voice = select([], was.voice, () => fillModels()), model = select([], was.model, remember);
    const seed = make("input", { type: "text", inputmode: "numeric", value: was.seed ?? (name === "A" ? "1" : "2"), oninput: remember });
    const speed = new SpeedSlider(remember);
    for (const [input, id] of [[speed.input, `speed-${name}`]]) { speed.element.querySelector("label").htmlFor = id; speed.output.htmlFor = id; input.id = id; }
    speed.value = was.speed ?? 1;
    const manner = make("input", { type: "text", value: was.manner ?? "", oninput: remember });
    const mannerField = field(t("speak.manner"), manner), modelField = field(t("speak.model"), model);
    const side = { name, voice, model, seed, speed, manner, mannerField, was };
    function fillModels() {
      const found = catalogue.voices.find((one) => one.key === voice.value);
      model.fill((found?.models ?? []).map((one) => [one, titleOf(one)]), model.value || was.model);
      modelField.hidden = (found?.models.length ?? 0) < 2;
      const spec = specOf(model.value);
      mannerField.hidden = !spec?.capabilities.some((one) => one === "instruction" || one === "voice_design");
      remember();
    }
    side.fillModels = fillModels;
    side.element = make("fieldset", { class: "side", "data-side": name }, make("legend", {}, name), field(t("speak.voice"), voice), modelField, mannerField, field(t("details.seed"), seed), speed.element);
    return side;
  }

  function remember() {
    if (!sides?.[1]) return;
    prefs.set("compare", { text: text.value, blind: blind.checked, ...Object.fromEntries(sides.map((side) => [side.name, { voice: side.voice.value, model: side.model.value, seed: side.seed.value, speed: side.speed.value, manner: side.manner.value }])) });
  }
  text.addEventListener("input", remember); blind.addEventListener("change", remember);

  // Two that differ: the second side takes the next voice, of another model if there is one.
  function refresh() {
    const usable = catalogue.voices.filter((voice) => voice.kind !== "unknown"), choices = usable.map((voice) => [voice.key, `${voice.title}${aboutVoice(voice) ? ` (${aboutVoice(voice)})` : ""}`]);
    const first = usable.find((voice) => voice.isDefault) ?? usable[0], second = usable.find((voice) => voice !== first && voice.models[0] !== first?.models[0]) ?? usable.find((voice) => voice !== first) ?? first;
    for (const [at, side] of sides.entries()) {
      const wanted = side.voice.value || side.was.voice || [first, second][at]?.key;
      side.voice.fill(choices, wanted);
      side.fillModels();
    }
    text.value ||= sampleOf(first?.languages[0]);
  }

  function body(side) {
    const voice = catalogue.voices.find((one) => one.key === side.voice.value);
    const made = { model: side.model.value, input: text.value, ...fieldsOf(voice) };
    if (side.seed.value.trim()) made.seed = Number(side.seed.value);
    if (!side.mannerField.hidden && side.manner.value.trim()) made.instructions = side.manner.value.trim();
    if (side.speed.value !== 1) made.speed = side.speed.value;
    return made;
  }

  async function one(side, signal) {
    const began = performance.now(), pieces = [], made = { side, voice: side.voice.selectedOptions[0]?.textContent, first: null };
    const done = await speak(body(side), { signal, onstart: (head) => Object.assign(made, head, { title: made.voice }), onsamples: (samples) => { made.first ??= (performance.now() - began) / 1000; pieces.push(samples); } });
    made.samples = joined(pieces);
    return Object.assign(made, done, { voice: made.title, level: levels(made.samples, made.rate) });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) { running.abort(); return; }
    problem.clear();
    if (!text.value.trim()) { problem.show(t("speak.noText")); text.focus(); return; }
    for (const side of sides) { const wrong = fault(rowOf("seed"), side.seed.value.trim()); if (wrong) { problem.show(wrong); side.seed.focus(); return; } }
    const control = running = new AbortController();
    button.textContent = t("stop");
    result.hidden = true;
    try {
      for (const place of places) await place.view.wake();
      // One after the other, so that neither figure suffers from the other's work.
      results = [await one(sides[0], control.signal), await one(sides[1], control.signal)];
      if (blind.checked && crypto.getRandomValues(new Uint8Array(1))[0] % 2) results.reverse();
      result.hidden = false; outcome.textContent = "";
      for (const [at, place] of places.entries()) { place.view.load(results[at].samples, results[at].rate); place.element.classList.remove("chosen"); place.told.replaceChildren(); place.title.textContent = place.view.name; }
      if (!blind.checked) reveal();
      for (const pick of result.querySelectorAll(".choose-one")) pick.disabled = false;
      places[0].view.button.focus();
      places[0].view.play(0);
    } catch (error) { problem.show(error); }
    running = null;
    button.textContent = t("compare.again");
  });

  function reveal() {
    for (const [at, place] of places.entries()) {
      const found = results[at];
      place.title.textContent = `${found.side.name}: ${found.voice}`;
      const told = [[t("details.length"), seconds(found.samples.length / found.rate)], [t("details.first"), seconds(found.first)], [t("details.pace"), found.rtf ? t("details.times", { times: number(1 / found.rtf, 1) }) : "–"], [t("details.level"), `${number(found.level.loud)} dB`], [t("details.seed"), found.seed]];
      place.told.replaceChildren(...told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
    }
  }

  function choose(at) {
    if (!results) return;
    const winner = at < 0 ? "same" : results[at].side.name;
    score[winner]++;
    prefs.set("score", score);
    reveal();
    places.forEach((place, n) => place.element.classList.toggle("chosen", n === at));
    for (const pick of result.querySelectorAll(".choose-one")) pick.disabled = true;
    outcome.textContent = winner === "same" ? t("compare.noDifference") : t("compare.chosen", { name: results[at].voice, side: winner });
    showScore();
  }
  function showScore() { const any = score.A + score.B + score.same; scoreLine.textContent = any ? t("compare.score", { a: score.A, b: score.B, same: score.same }) : ""; reset.hidden = !any; }

  root.append(make("div", { class: "narrow" }, make("h2", { class: "title" }, t("compare.title")), make("p", { class: "lead" }, t("compare.lead")), form, result, make("div", { class: "title-row" }, scoreLine, reset)));
  refresh(); showScore();
  return { refresh, hidden() { for (const place of places) place.view.stop(); } };
}
