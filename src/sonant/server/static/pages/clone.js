// Clone: a clip by microphone or file, what the doctor says of it, what it says, whose voice it is, and a voice is kept.
import { base64, call, fromBase64, send, speak } from "../core/api.js";
import { catalogue, modelsThat, titleOf } from "../core/catalogue.js";
import { busy, confirmed, dropZone, field, icon, iconButton, make, problemLine, select } from "../core/dom.js";
import { playSample, stopSample } from "../core/gallery.js";
import { READABLE, language as tongue, languageName, number, readings, sampleOf, seconds, t } from "../core/i18n.js";
import { Recorder } from "../core/recorder.js";
import { decoded, wavBytes } from "../core/sound.js";
import { SoundView } from "../core/soundview.js";

export const NAME = /^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$/;
// A name as files want it, from one as people write it.
export const plainName = (text) => text.trim().toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "").replace(/\s+/g, "-").replace(/[^a-z0-9._-]/g, "").replace(/^[._-]+|[._-]+$/g, "").slice(0, 64);

export function mount(root, app) {
  let clip = null, before = null, sentence = 0, checking = null, quiet = -100, going = null, isTurning = false;
  const problem = problemLine(), saving = problemLine();

  // -- record or choose ---------------------------------------------------------------------
  const words = make("blockquote", { class: "to-read" });
  const readIn = select(READABLE.map((code) => [code, languageName(code)]), READABLE.includes(tongue) ? tongue : "en", () => { sentence = 0; showSentence(); });
  readIn.setAttribute("aria-label", t("clone.readIn"));
  const other = make("button", { type: "button", class: "quiet small", onclick: () => { sentence++; showSentence(); } }, t("clone.other"));
  const showSentence = () => { const all = readings(readIn.value); words.textContent = all[sentence % all.length]; words.lang = readIn.value; other.hidden = all.length < 2; };
  showSentence();
  const bar = make("div", { class: "bar" });
  const meter = make("div", { class: "meter", role: "meter", "aria-label": t("clone.level"), "aria-valuemin": "-60", "aria-valuemax": "0", "aria-valuenow": "-60" }, bar);
  const room = make("p", { class: "hint room", role: "status" }), length = make("span", { class: "clock" }, "0:00");
  const record = make("button", { type: "button", class: "record", id: "record", "aria-pressed": "false", onclick: toggle }, make("span", { class: "dot" }), make("span", {}, t("clone.record")));
  const recorder = new Recorder((level, peak, lasts) => {
    const shown = Math.max(-60, Math.min(0, level));
    quiet = Math.min(quiet === -100 ? 0 : quiet + 0.2, level);
    bar.style.width = `${((shown + 60) / 60) * 100}%`;
    bar.className = peak > 0.985 ? "bar hot" : level < -45 ? "bar low" : "bar";
    meter.setAttribute("aria-valuenow", shown.toFixed(0));
    length.textContent = seconds(lasts);
    const told = peak > 0.985 ? t("clone.tooLoud") : lasts > 1.5 && quiet > -45 ? t("clone.noisy", { level: quiet.toFixed(0) }) : lasts < 5 ? t("clone.goOn") : lasts > 20 ? t("clone.enough") : t("clone.fine");
    if (room.textContent !== told) room.textContent = told;
  });
  async function toggle() {
    if (isTurning) return; // the browser still asks for the microphone
    isTurning = true;
    problem.clear();
    try {
      if (!recorder.isRecording) {
        stopSample(); quiet = -100;
        if (!(await recorder.start())) return;
        record.classList.add("on"); record.setAttribute("aria-pressed", "true"); record.lastChild.textContent = t("clone.stop");
        return;
      }
      record.classList.remove("on"); record.setAttribute("aria-pressed", "false"); record.lastChild.textContent = t("clone.record");
      const { samples, rate } = await recorder.stop();
      bar.style.width = "0"; room.textContent = "";
      transcript.value = words.textContent; // it was read from the page
      voiceLanguage.value = readIn.value;
      take({ blob: wavBytes(samples, rate), samples, rate, name: t("clone.recording") });
    } catch (error) { problem.show(error.name === "NotAllowedError" ? t("record.denied") : error.name === "NotFoundError" ? t("record.none") : error); } finally { isTurning = false; }
  }
  async function choose(file) {
    problem.clear();
    const sound = await decoded(file);
    transcript.value = "";
    take({ blob: file, samples: sound?.samples ?? null, rate: sound?.rate ?? 0, name: file.name });
  }

  // -- what the doctor says -----------------------------------------------------------------
  const view = new SoundView({ label: t("clone.clip") });
  const verdict = make("div", { class: "verdict", role: "status" });
  const clipPart = make("section", { class: "card", hidden: true, "aria-label": t("clone.clip") }, make("h2", {}, t("clone.clip")), view.element, verdict);

  function take(made) {
    clip = made; before = null;
    clipPart.hidden = savePart.hidden = false;
    done.hidden = true;
    view.element.hidden = made.samples === null;
    if (made.samples) view.load(made.samples, made.rate);
    examine();
  }

  async function examine(mend = false) {
    checking?.abort();
    const control = checking = new AbortController();
    verdict.className = "verdict";
    verdict.replaceChildren(make("p", { class: "hint busy" }, t("clone.checking")));
    try {
      const found = await send("/v1/audio/voices/check", { audio_sample: asFile(clip), ref_text: transcript.value, language: voiceLanguage.value, mend: mend ? "true" : "" }, control.signal);
      if (mend) {
        before = clip;
        const blob = new Blob([fromBase64(found.mended.audio)], { type: "audio/wav" });
        clip = { ...(await decoded(blob)), blob, name: clip.name, done: found.mended.done };
        view.load(clip.samples, clip.rate);
        showVerdict(found.mended);
      } else showVerdict(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      verdict.replaceChildren();
      problem.show(error);
    }
  }
  const asFile = (one) => new File([one.blob], one.blob.type === "audio/wav" ? "clip.wav" : one.name);

  function showVerdict(found) {
    const grade = found.is_hopeless ? "bad" : found.is_good ? "good" : "fair";
    clip.grade = grade;
    verdict.className = `verdict ${grade}`;
    const figures = found.measurement;
    const isMendable = grade === "fair" || found.advice.length > 0;
    verdict.replaceChildren(...[
      make("strong", {}, t(`clone.${grade}`)), make("p", { class: "hint" }, [seconds(figures.seconds), figures.loudness === null ? null : `${number(figures.loudness)} LUFS`, `${number(figures.sample_rate)} Hz`].filter(Boolean).join(" · ")),
      make("ul", { lang: "en" }, ...found.advice.map((remark) => make("li", { class: remark.is_problem ? "wrong" : "" }, remark.message))),
      clip.done?.length ? make("ul", { class: "done", lang: "en" }, ...clip.done.map((one) => make("li", {}, one))) : clip.done ? make("p", {}, t("clone.nothingToFix")) : null,
      make("div", { class: "actions" },
        !before && isMendable && !found.is_hopeless ? make("button", { type: "button", id: "mend", onclick: () => examine(true) }, t("clone.fix")) : null,
        before ? make("button", { type: "button", id: "unmend", onclick: () => take(before) }, t("clone.undo")) : null,
        make("button", { type: "button", class: "quiet", onclick: () => { clip = null; clipPart.hidden = savePart.hidden = true; record.focus(); } }, t("clone.again"))),
    ].filter(Boolean));
  }

  // -- words, name, consent -----------------------------------------------------------------
  const transcript = make("textarea", { rows: "2", placeholder: t("clone.transcriptExample") });
  const listen = make("button", { type: "button", class: "small", id: "transcribe", hidden: true, onclick: transcribe }, t("clone.listen"));
  app.watch((status) => { listen.hidden = !status.can_transcribe; });
  const name = make("input", { type: "text", maxlength: "64", placeholder: "ann", autocomplete: "off", oninput: () => { const plain = plainName(name.value); asName.textContent = plain && plain !== name.value ? t("clone.keptAs", { name: plain }) : ""; } });
  const asName = make("p", { class: "hint" });
  const voiceLanguage = select([["", t("speak.anyLanguage")], ...["en", "de", "fr", "es", "it", "pt", "ru", "ja", "zh", "ko"].map((code) => [code, languageName(code)])], "");
  const consent = make("input", { type: "checkbox", id: "consent" });
  const saveButton = make("button", { type: "submit", class: "primary large", id: "save-voice" }, t("clone.save"));
  const tryText = make("input", { type: "text", "aria-label": t("clone.tryText") });
  const tryModel = select([], ""); tryModel.setAttribute("aria-label", t("speak.model"));
  const tryButton = make("button", { type: "button", id: "try-voice", onclick: attempt }, t("clone.try"));
  const tried = new SoundView({ label: t("clone.tried"), compact: true });
  tried.element.hidden = true;
  const tryPart = make("div", { class: "try" }, make("h3", {}, t("clone.tryTitle")), make("div", { class: "row" }, tryText, tryModel, tryButton), tried.element);
  const noCloner = make("p", { class: "notice", hidden: true }, t("clone.noModel"));
  const savePart = make("form", { class: "card", hidden: true, novalidate: true, "aria-label": t("clone.who") },
    make("h2", {}, t("clone.who")), field(t("clone.transcript"), transcript, t("clone.transcriptHint")), listen,
    make("div", { class: "grid" }, make("div", {}, field(t("clone.name"), name), asName), field(t("clone.language"), voiceLanguage)),
    tryPart,
    make("label", { class: "check consent" }, consent, t("clone.consent")), saving, make("div", { class: "go" }, saveButton));
  const done = make("section", { class: "card done", role: "status", hidden: true });

  async function transcribe() {
    busy(listen, true); saving.clear();
    try {
      const found = await send("/v1/audio/voices/check", { audio_sample: asFile(clip), language: voiceLanguage.value, transcribe: "true" });
      transcript.value = found.heard ?? "";
      transcript.focus();
    } catch (error) { saving.show(error); } finally { busy(listen, false); }
  }

  // The clip speaks a sentence before anything is kept.
  async function attempt() {
    if (going) { going.abort(); going = null; return; }
    saving.clear();
    if (!modelsThat("clone").length) { saving.show(t("clone.noModel")); return; }
    const control = going = new AbortController();
    tryButton.textContent = t("stop");
    try {
      await tried.wake();
      tried.element.hidden = false;
      const body = { model: tryModel.value, input: tryText.value.trim() || sampleOf(voiceLanguage.value), ref_audio: await base64(clip.blob), ...(transcript.value.trim() ? { ref_text: transcript.value.trim() } : {}), seed: 7 };
      await speak(body, { signal: control.signal, onstart: ({ rate }) => tried.begin(rate), onsamples: (samples) => tried.add(samples) });
      tried.complete();
    } catch (error) { tried.complete(); saving.show(error); if (!tried.samples.length) tried.element.hidden = true; }
    going = null;
    tryButton.textContent = t("clone.try");
  }

  savePart.addEventListener("submit", async (event) => {
    event.preventDefault();
    saving.clear();
    const plain = plainName(name.value);
    if (clip.grade === "bad") { saving.show(t("clone.bad")); return; }
    if (!NAME.test(plain)) { saving.show(t("clone.noName")); name.focus(); return; }
    if (!consent.checked) { saving.show(t("clone.noConsent")); consent.focus(); return; }
    busy(saveButton, true);
    try {
      await send("/v1/audio/voices", { name: plain, consent: "confirmed in the studio: the speaker agrees to this use of their voice", audio_sample: asFile(clip), ref_text: transcript.value.trim(), language: voiceLanguage.value });
      confirmKept(plain);
      name.value = ""; asName.textContent = ""; consent.checked = false;
      clipPart.hidden = savePart.hidden = true;
      await app.refresh();
    } catch (error) { saving.show(error); } finally { busy(saveButton, false); }
  });

  function confirmKept(plain) {
    const canSpeak = modelsThat("clone").length > 0;
    done.replaceChildren(make("span", { class: "tick" }, icon("check")), make("h2", {}, t("clone.kept", { name: plain })), make("p", {}, t(canSpeak ? "clone.keptText" : "clone.keptNoModel")),
      make("div", { class: "actions" }, canSpeak ? make("button", { type: "button", class: "primary", id: "speak-with", onclick: () => app.go("speak", { voice: `stored:${plain}` }) }, t("clone.speakWith", { name: plain })) : null));
    done.hidden = false;
    done.scrollIntoView({ block: "center" });
  }

  // -- the stored ones ----------------------------------------------------------------------
  const list = make("ul", { class: "stored", id: "stored" });
  const stored = make("section", { class: "card", "aria-label": t("clone.stored") }, make("h2", {}, t("clone.stored")), list);
  function showStored() {
    stored.hidden = !catalogue.stored.length;
    list.replaceChildren(...catalogue.stored.map((voice) => make("li", {},
      make("button", { type: "button", class: "icon-button sample", "aria-label": t("gallery.hear", { name: voice.id }), onclick: (event) => playSample({ key: `stored:${voice.id}`, id: voice.id, kind: "stored" }, event.currentTarget, problem.show) }, icon("play")),
      make("div", { class: "what" }, make("strong", {}, voice.id), make("p", { class: "hint" }, voice.models.length ? t("clone.spokenBy", { models: voice.models.map(titleOf).join(", ") }) : t("clone.spokenByNone"))),
      iconButton("bin", t("clone.remove", { name: voice.id }), async () => {
        if (!(await confirmed(t("clone.removeTitle"), t("clone.removeText", { name: voice.id }), t("remove")))) return;
        try { await call(`/v1/audio/voices/${encodeURIComponent(voice.id)}`, { method: "DELETE" }); await app.refresh(); } catch (error) { app.say(error.message); }
      }))));
  }
  function refresh() {
    const cloners = modelsThat("clone");
    tryModel.fill(cloners.map((one) => [one, titleOf(one)])); tryModel.hidden = cloners.length < 2;
    noCloner.hidden = cloners.length > 0; tryPart.hidden = !cloners.length;
    tryText.value ||= sampleOf(tongue);
    showStored();
  }

  root.append(make("div", { class: "narrow" }, make("h2", { class: "title" }, t("clone.title")), make("p", { class: "lead" }, t("clone.lead")), noCloner, done,
    make("section", { class: "card start" },
      make("div", { class: "title-row" }, make("h2", {}, t("clone.read")), readIn, other), words,
      make("div", { class: "recording" }, record, make("div", { class: "levels" }, meter, make("div", { class: "title-row" }, room, length))),
      dropZone(t("clone.drop"), "audio/*,video/webm", choose), problem),
    clipPart, savePart, stored));
  refresh();
  return { refresh, redraw() { view.draw(); tried.draw(); }, hidden() { stopSample(); view.stop(); tried.stop(); if (recorder.isRecording) toggle(); else recorder.leave(); } };
}
