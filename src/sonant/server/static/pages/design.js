// Design: a voice from a description; three takes, one is kept.
import { post, speak } from "../core/api.js";
import { modelsThat, titleOf } from "../core/catalogue.js";
import { busy, field, icon, make, problemLine, select } from "../core/dom.js";
import { sampleOf, t } from "../core/i18n.js";
import { joined } from "../core/sound.js";
import { SoundView } from "../core/soundview.js";
import { NAME, plainName } from "./clone.js";

const TAKES = 3;

export function mount(root, app) {
  let running = null, takes = [], chosen = null;
  const problem = problemLine(), keeping = problemLine();
  const words = make("textarea", { rows: "3", id: "description", placeholder: t("design.example") });
  const ideas = make("div", { class: "chips", role: "group", "aria-label": t("design.ideas") }, ...[1, 2, 3, 4].map((n) => make("button", { type: "button", class: "chip", onclick: () => { words.value = t(`design.idea${n}`); words.focus(); } }, t(`design.idea${n}`))));
  const line = make("input", { type: "text", value: sampleOf() });
  const model = select([], "");
  const modelField = field(t("speak.model"), model);
  const button = make("button", { type: "submit", class: "primary large", id: "design" }, t("design.go"));
  const form = make("form", { class: "card", novalidate: true }, field(t("design.describe"), words), ideas, make("div", { class: "grid" }, field(t("design.line"), line), modelField), problem, make("div", { class: "go" }, button));
  const results = make("div", { class: "takes-grid", id: "design-takes" });
  const name = make("input", { type: "text", maxlength: "64", placeholder: "ann", autocomplete: "off" });
  const keep = make("button", { type: "submit", class: "primary large", id: "keep-design" }, t("design.keep"));
  const keepForm = make("form", { class: "card", hidden: true, novalidate: true }, make("h2", {}, t("design.keepTitle")), field(t("clone.name"), name), keeping, make("div", { class: "go" }, keep));
  const done = make("section", { class: "card done", role: "status", hidden: true });
  const none = make("section", { class: "card empty", hidden: true }, make("span", { class: "big" }, icon("design")), make("h2", {}, t("design.none")), make("p", {}, t("design.noneText")), make("pre", { tabindex: "0" }, "sonant pull qwen3-tts-1.7b-voicedesign"));

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) { running.abort(); return; }
    problem.clear();
    if (!words.value.trim()) { problem.show(t("speak.noDescription")); words.focus(); return; }
    const control = running = new AbortController();
    button.textContent = t("stop");
    chosen = null; keepForm.hidden = done.hidden = true;
    const base = crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;
    for (const take of takes) take.view.drop();
    takes = Array.from({ length: TAKES }, (_, n) => makeTake(n, base + n));
    results.replaceChildren(...takes.map((take) => take.element));
    try {
      for (const take of takes) {
        await take.view.wake();
        take.element.classList.add("busy");
        const pieces = [];
        await speak(take.body, { signal: control.signal, onstart: ({ rate }) => { take.rate = rate; }, onsamples: (samples) => pieces.push(samples) });
        take.element.classList.remove("busy");
        take.view.load(joined(pieces), take.rate);
        take.pick.disabled = false;
        if (take === takes[0]) take.view.play(0);
      }
    } catch (error) { for (const take of takes) take.element.classList.remove("busy"); problem.show(error); }
    running = null;
    button.textContent = t("design.more");
  });

  function makeTake(n, seed) {
    const label = t("design.take", { n: n + 1 });
    const view = new SoundView({ label, compact: true });
    const pick = make("button", { type: "button", class: "pick", disabled: true, "aria-pressed": "false", onclick: () => choose(take) }, t("design.pick"));
    const take = { view, pick, body: { model: model.value, input: line.value.trim() || sampleOf(), instructions: words.value.trim(), seed }, element: make("section", { class: "card take", "aria-label": label }, make("h3", {}, label), view.element, pick) };
    return take;
  }

  function choose(take) {
    chosen = take;
    for (const one of takes) { one.element.classList.toggle("chosen", one === take); one.pick.setAttribute("aria-pressed", String(one === take)); }
    keepForm.hidden = false;
    name.focus();
  }

  keepForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    keeping.clear();
    const plain = plainName(name.value);
    if (!NAME.test(plain)) { keeping.show(t("clone.noName")); name.focus(); return; }
    busy(keep, true);
    try {
      // The same seed and words: the server makes the take that was heard once more, and keeps it.
      await post("/v1/audio/voices/design", { name: plain, ...chosen.body });
      const canSpeak = modelsThat("clone").length > 0;
      done.replaceChildren(make("span", { class: "tick" }, icon("check")), make("h2", {}, t("clone.kept", { name: plain })), make("p", {}, t(canSpeak ? "clone.keptText" : "clone.keptNoModel")),
        make("div", { class: "actions" }, canSpeak ? make("button", { type: "button", class: "primary", onclick: () => app.go("speak", { voice: `stored:${plain}` }) }, t("clone.speakWith", { name: plain })) : null));
      done.hidden = false; keepForm.hidden = true; name.value = "";
      await app.refresh();
    } catch (error) { keeping.show(error); } finally { busy(keep, false); }
  });

  function refresh() {
    const able = modelsThat("voice_design");
    model.fill(able.map((one) => [one, titleOf(one)]));
    modelField.hidden = able.length < 2;
    form.hidden = results.hidden = !able.length;
    none.hidden = able.length > 0;
  }
  root.append(make("div", { class: "narrow" }, make("h2", { class: "title" }, t("design.title")), make("p", { class: "lead" }, t("design.lead")), none, form, results, keepForm, done));
  refresh();
  return { refresh, hidden() { for (const take of takes) take.view.stop(); } };
}
