// Speak: a voice, a text and how it will be read, one large button, the sound with its words, and what was made before.
import { call, formOf, pcmOf, samplesOf, speak } from "../core/api.js";
import { can, catalogue, fieldsOf, specOf, titleOf, wakeModel } from "../core/catalogue.js";
import { busy, confirmed, debounced, field, icon, iconButton, make, problemLine, save, select } from "../core/dom.js";
import { Gallery, stopSample } from "../core/gallery.js";
import { clock, languageName, number, sampleOf, seconds, size, t } from "../core/i18n.js";
import { EmotionForm, SettingsForm, SpeedSlider } from "../core/settings.js";
import { Spectrogram, captions, drawSpectrogram, wavBytes } from "../core/sound.js";
import { SoundView, written } from "../core/soundview.js";
import { bytesOf, dropTake, dropTakes, keepTake, listTakes, prefs } from "../core/store.js";

const FORMATS = ["mp3", "wav", "flac", "opus", "aac", "srt", "vtt"];

export function mount(root, app) {
  const restored = prefs.get("draft", {});
  let running = null, shown = null, takes = [], model = restored.model ?? "", reading = "", readingOf = "", readingCall = null, isRestoring = true;

  const problem = problemLine();
  const remember = debounced(() => prefs.set("draft", snapshot(true)), 200);
  const changed = () => { if (isRestoring) return; remember(); planReading(); };

  // -- the form -----------------------------------------------------------------------------
  const gallery = new Gallery({ onchoose: () => { useVoice(); changed(); }, onerror: problem.show });
  const text = make("textarea", { id: "text", rows: "4", "aria-label": t("speak.text"), placeholder: t("speak.placeholder"), oninput: changed });
  const count = make("span", { class: "hint" });
  const models = select([], "", (value) => { model = value; useModel(); changed(); });
  const modelField = field(t("speak.model"), models);
  const language = select([], "", changed);
  const languageField = field(t("speak.language"), language);
  const instruction = make("textarea", { rows: "2", oninput: changed });
  const instructionField = field(t("speak.manner"), instruction);
  const emotion = new EmotionForm(changed);
  const speed = new SpeedSlider(changed);
  const settings = new SettingsForm(() => { tally(); changed(); });
  const settingsCount = make("span", { class: "count" });
  const tally = () => { settingsCount.textContent = settings.count ? ` · ${settings.count}` : ""; };
  const spoken = make("div", { class: "reading", role: "region", tabindex: "0", "aria-label": t("speak.reading"), hidden: true });
  const button = make("button", { type: "submit", class: "primary large", id: "speak" });
  const form = make("form", { class: "composer card", autocomplete: "off", novalidate: true },
    make("div", { class: "speaker" }),
    text,
    make("div", { class: "under" }, count, make("span", { class: "hint keys" }, t("speak.keys"))),
    spoken, instructionField, emotion.element,
    make("div", { class: "manner" }, speed.element, languageField, modelField),
    make("details", { class: "more" }, make("summary", {}, t("speak.more"), settingsCount), settings.element),
    problem, make("div", { class: "go" }, button));

  // -- the sound ----------------------------------------------------------------------------
  const view = new SoundView({ label: t("speak.sound"), hasWords: true, onchange: () => showButton() });
  const spectrogram = make("canvas", { class: "spectrogram", role: "img", "aria-label": t("details.spectrogram") });
  const figures = make("dl", { class: "figures" }), guards = make("ul", { class: "guards", lang: "en" });
  const details = make("details", { class: "more", ontoggle: () => drawDetails() }, make("summary", {}, t("details.title")), figures, spectrogram);
  const format = select(FORMATS.map((name) => [name, name.toUpperCase()]), prefs.get("format", "mp3"), (value) => prefs.set("format", value));
  format.setAttribute("aria-label", t("speak.format"));
  const download = make("button", { type: "button", class: "quiet", id: "download", onclick: () => deliver(shown) }, icon("download"), t("download"));
  const result = make("section", { class: "card result", "aria-label": t("speak.sound"), hidden: true }, view.element, guards, make("div", { class: "deliver" }, download, format), details);

  // -- what was made before -----------------------------------------------------------------
  const list = make("ol", { class: "takes", id: "takes" });
  const kept = make("span", { class: "hint" });
  const forget = make("button", { type: "button", class: "quiet small", onclick: async () => { if (await confirmed(t("history.clear"), t("history.clearText"), t("remove"))) { await dropTakes(); takes = []; showTakes(); } } }, t("history.clear"));
  const history = make("section", { class: "history", "aria-labelledby": "history-title" }, make("div", { class: "title-row" }, make("h2", { id: "history-title" }, t("history.title")), kept, forget), list);

  root.append(make("div", { class: "speak-page" }, gallery.element, make("div", { class: "work" }, form, result, history)));

  const voiceNow = () => gallery.chosen;
  const specNow = () => specOf(model);
  function state() { return running ? "making" : view.playing ? "playing" : "idle"; }
  function showButton() {
    const is = state() !== "idle";
    button.replaceChildren(icon(is ? "stop" : "speak"), make("span", {}, t(is ? "stop" : "speak.go")));
    button.classList.toggle("stopping", is);
  }

  function useVoice() {
    const voice = voiceNow();
    form.querySelector(".speaker").replaceChildren(...(voice ? [make("span", { class: "hint" }, t("speak.as")), make("strong", {}, voice.title)] : [make("span", { class: "hint" }, t("speak.noVoice"))]));
    models.fill((voice?.models ?? []).map((name) => [name, titleOf(name)]), model);
    modelField.hidden = (voice?.models.length ?? 0) < 2;
    model = models.value || voice?.models[0] || "";
    useModel();
  }

  function useModel() {
    const spec = specNow(), voice = voiceNow();
    if (voice && !spec) { wakeModel(model).then(() => app.refresh(), problem.show); return; }
    if (!spec) return;
    wakeModel(model).catch(problem.show);
    language.fill([["", t("speak.anyLanguage")], ...spec.languages.map((name) => [name, languageName(name)])]);
    languageField.hidden = spec.languages.length < 2;
    instructionField.hidden = !can(spec, "instruction") && !can(spec, "voice_design");
    instructionField.querySelector("label").textContent = t(voice?.kind === "described" ? "design.describe" : "speak.manner");
    instruction.placeholder = t(voice?.kind === "described" ? "design.example" : "speak.mannerExample");
    emotion.update(spec);
    settings.update(spec);
    tally();
  }

  function body() {
    const made = { model, input: text.value, ...fieldsOf(voiceNow()), ...settings.body(), ...(emotion.element.hidden ? {} : emotion.body()) };
    if (!languageField.hidden && language.value) made.language = language.value;
    if (!instructionField.hidden && instruction.value.trim()) made.instructions = instruction.value.trim();
    if (speed.value !== 1) made.speed = speed.value;
    return made;
  }

  // Everything the form holds: what a draft keeps and what Edit brings back.
  function snapshot(isDraft) {
    const voice = voiceNow(), kept = { ...emotion.state };
    if (isDraft) kept.clip = null; // too large for a draft
    return { text: text.value, voice: voice?.key, model, language: language.value, instruction: instruction.value, emotion: kept, speed: speed.value, settings: settings.state };
  }
  function restore(from) {
    isRestoring = true;
    text.value = from.text ?? "";
    gallery.wanted = from.voice ?? ""; gallery.chosen = null;
    model = from.model ?? "";
    gallery.refresh(); useVoice();
    language.value = [...language.options].some((one) => one.value === from.language) ? from.language : "";
    instruction.value = from.instruction ?? "";
    emotion.state = from.emotion ?? {};
    speed.value = from.speed ?? 1;
    settings.state = from.settings ?? {};
    isRestoring = false;
    tally(); changed();
  }

  // -- the reading --------------------------------------------------------------------------
  const planReading = debounced(showReading, 300);
  async function showReading() {
    count.textContent = t("speak.count", { count: number(text.value.length) });
    readingCall?.abort();
    reading = readingOf = "";
    if (!text.value.trim() || !specNow()) { spoken.hidden = true; return; }
    const control = readingCall = new AbortController();
    const { input, model: name, language: said, normalize, emoji, code, glossary } = body();
    try {
      const { data } = await (await call("/v1/audio/text", { method: "POST", json: { input, model: name, language: said, normalize, emoji, code, glossary }, signal: control.signal })).json();
      if (readingCall !== control) return;
      drawReading(data);
      readingOf = input;
    } catch (error) {
      if (error.name === "AbortError") return;
      spoken.hidden = true;
    }
  }
  function drawReading(parts) {
    reading = parts.map((part) => part.text).join(" ");
    const changes = parts.flatMap((part) => part.changes).filter((one) => one.spoken.trim() !== one.written.trim()), silent = parts.flatMap((part) => part.not_spoken);
    spoken.hidden = !changes.length && !silent.length;
    const lines = parts.map((part) => {
      const line = make("p", {});
      let rest = part.text;
      for (const one of part.changes) {
        const words = one.spoken.trim(), at = words && one.written.trim() !== words ? rest.indexOf(words) : -1;
        if (at < 0) continue;
        line.append(rest.slice(0, at), make("mark", { title: one.written }, words));
        rest = rest.slice(at + words.length);
      }
      line.append(rest);
      return line;
    });
    spoken.replaceChildren(make("h3", {}, t("speak.reading")), ...lines, ...silent.map((one) => make("p", { class: "hint", lang: "en" }, one)));
  }

  // -- speaking -----------------------------------------------------------------------------
  async function begin() {
    problem.clear(); stopSample();
    const wrong = settings.firstWrong();
    if (wrong) { problem.show(wrong); return; }
    if (!text.value.trim()) { problem.show(t("speak.noText")); text.focus(); return; }
    const voice = voiceNow();
    if (!voice) { problem.show(t("speak.noVoice")); return; }
    if (voice.kind === "described" && !instruction.value.trim()) { problem.show(t("speak.noDescription")); instruction.focus(); return; }
    const control = running = new AbortController(), clicked = performance.now();
    const take = { form: snapshot(false), body: body(), model, voice: voice.title, rate: 24000, seed: null, first: null, rtf: null, guards: [], words: [], isWhole: false };
    const words = [];
    let picture = new Spectrogram(24000);
    shown = take;
    showButton();
    try {
      await view.wake();
      if (control.signal.aborted) return;
      view.clear();
      result.hidden = false;
      result.scrollIntoView({ block: "nearest" });
      figures.replaceChildren();
      if (readingOf !== text.value) showReading();
      await speak(take.body, {
        signal: control.signal,
        onstart: ({ rate, id, seed }) => { Object.assign(take, { rate, seed, id }); picture = take.picture = new Spectrogram(rate); view.begin(rate); showButton(); },
        onsamples: (samples) => { if (running !== control) return; take.first ??= (performance.now() - clicked) / 1000; view.add(samples); picture.add(samples); },
        onwords: (found) => { words.push(...found); take.words = written(words, readingOf === take.form.text ? reading : take.form.text); if (running === control) view.addWords(take.words.slice(view.words.length)); },
      }).then((done) => Object.assign(take, done, { isWhole: true }));
    } catch (error) { if (shown === take) problem.show(error); }
    if (shown === take) view.complete(); // else the sound is another's by now
    if (running === control) running = null;
    showButton();
    const samples = view.samples;
    if (shown !== take) return;
    if (!samples.length) {
      result.hidden = true;
      if (take.isWhole) problem.show(take.guards[0]?.message ?? t("speak.silent"));
      return;
    }
    take.length = samples.length / take.rate;
    take.samples = samples;
    drawDetails();
    const { samples: _, picture: __, body: ___, ...plain } = take; // the form has all of the body
    takes = await keepTake({ ...plain, pcm: pcmOf(samples) });
    take.id = plain.id = takes[0].id;
    showTakes();
  }

  function stop() {
    if (running) { running.abort(); running = null; }
    view.stop();
    showButton();
  }

  function drawDetails() {
    if (!shown) return;
    const told = [[t("details.voice"), shown.voice], [t("details.model"), shown.model], [t("details.length"), shown.length ? seconds(shown.length) : "–"], [t("details.first"), seconds(shown.first)], [t("details.pace"), shown.rtf ? t("details.times", { times: number(1 / shown.rtf, 1) }) : "–"], [t("details.seed"), shown.seed ?? "–"]];
    figures.replaceChildren(...told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
    guards.replaceChildren(...(shown.guards ?? []).map((guard) => make("li", {}, guard.message)));
    if (!details.open) return;
    if (!shown.picture && shown.samples) { shown.picture = new Spectrogram(shown.rate); shown.picture.add(shown.samples); }
    if (shown.picture) drawSpectrogram(spectrogram, shown.picture);
  }

  // The sound in the format asked for; it is packed anew, and nothing is spoken again.
  async function deliver(take) {
    if (!take) return;
    problem.clear();
    const wanted = format.value, name = `sonant-${new Date(take.id ?? Date.now()).toISOString().slice(0, 19).replace(/[:T]/g, "-")}.${wanted}`;
    const samples = take.samples ?? samplesOf(take.pcm), wav = wavBytes(samples, take.rate);
    try {
      if (wanted === "wav") save(wav, name);
      else if (wanted === "srt" || wanted === "vtt") save(new Blob([captions(take.words, wanted)], { type: "text/plain" }), name);
      else {
        busy(download, true);
        save(await (await call("/v1/audio/encode", { method: "POST", form: formOf({ audio: wav, response_format: wanted }) })).blob(), name);
      }
    } catch (error) {
      problem.show(error.status === 413 ? t("speak.tooLong") : error);
    } finally { busy(download, false); }
  }

  function open(take, plays) {
    stop(); problem.clear();
    take.samples = samplesOf(take.pcm);
    shown = take;
    result.hidden = false;
    view.load(take.samples, take.rate, take.words ?? []);
    drawDetails();
    if (plays) view.play(0);
  }

  function showTakes() {
    history.hidden = !takes.length;
    kept.textContent = t("history.kept", { count: takes.length, size: size(bytesOf(takes)) });
    list.replaceChildren(...takes.map((take) => {
      const words = take.form.text.trim(), name = words.slice(0, 40);
      return make("li", {},
        iconButton("play", t("history.play", { name }), () => open(take, true), { class: "icon-button sample" }),
        make("div", { class: "what" }, make("p", { class: "line" }, words), make("p", { class: "hint" }, [take.voice, clock(take.length ?? 0), new Date(take.id).toLocaleString(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" }), take.isWhole ? "" : t("history.stopped")].filter(Boolean).join(" · "))),
        iconButton("edit", t("history.edit", { name }), () => { stop(); restore({ ...take.form, settings: { ...take.form.settings, seed: String(take.seed) } }); open(take, false); text.focus(); }),
        iconButton("bin", t("history.remove", { name }), async () => { await dropTake(take.id); takes = takes.filter((one) => one !== take); showTakes(); }));
    }));
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); if (state() === "idle") begin(); else stop(); });
  const onkey = (event) => {
    if (!root.isConnected || root.hidden || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); stop(); begin(); }
    else if (event.key === "Escape") stop();
  };
  document.addEventListener("keydown", onkey);

  if (restored.text === undefined) restored.text = "";
  restore(restored);
  if (!text.value) { text.value = sampleOf(voiceNow()?.languages[0]); changed(); }
  showButton();
  listTakes().then((found) => { takes = found; showTakes(); if (found.length && !shown) open(found[0], false); });

  return {
    shown(wish) {
      if (wish?.voice) { gallery.wanted = wish.voice; gallery.chosen = null; gallery.refresh(); useVoice(); changed(); text.focus(); }
      view.draw();
    },
    refresh() { gallery.refresh(); useVoice(); changed(); },
    hidden() { stopSample(); },
    redraw() { view.draw(); drawDetails(); },
  };
}
