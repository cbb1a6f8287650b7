// The Speak section: settings, live segments, streamed playback, pictures of the sound, history.
import { base64, call, get, speak } from "/static/api.js";
import { $, alertUser, bindSlider, can, factor, fillModels, fillVoices, lacksVoice, make, models, seconds, voiceFields } from "/static/page.js";
import { Player } from "/static/player.js";
import { Peaks, Spectrogram, drawSpectrogram, drawWave, wavBytes } from "/static/sound.js";

const player = new Player();
const history = [];
let emotionClip = null, spec = null, running = null, shown = null, segmentTimer = 0, segmentCall = null, drawn = 0, number = 0;

export async function start() {
  for (const input of [$("#speed"), $("#emotion-strength")]) bindSlider(input);
  $("#model").addEventListener("change", () => useModel().catch(alertUser));
  for (const id of ["#text", "#voice", "#language"]) $(id).addEventListener("input", planSegments);
  $("#speak-form").addEventListener("submit", (event) => { event.preventDefault(); begin(requestBody()); });
  $("#stop").addEventListener("click", stop);
  $("#emotion-clip").addEventListener("change", () => takeEmotion($("#emotion-clip").files[0]).catch(alertUser));
  $("#emotion-clip-none").addEventListener("click", () => { $("#emotion-clip").value = ""; takeEmotion(null); $("#emotion-clip").focus(); });
  $("#play").addEventListener("click", () => (player.playing ? player.pause() : player.play()));
  $("#download").addEventListener("click", () => download(shown));
  document.addEventListener("keydown", (event) => {
    if ($("#panel-speak").hidden || $("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); begin(requestBody()); }
    if (event.key === "Escape") stop();
  });
  bindSeeking($("#waveform"));
  player.onchange = showPlayer;
  new ResizeObserver(() => draw(true)).observe($("#waveform"));
  requestAnimationFrame(frame);
  fillModels($("#model"));
  await useModel();
}

export async function refresh() { fillModels($("#model")); await useModel(); }
export const redraw = () => draw(true);

async function useModel() {
  const name = $("#model").value;
  $("#model-note").textContent = models.get(name)?.spec ? "" : `Loading ${name} …`;
  $("#speak").disabled = true;
  try {
    spec = await fillVoices($("#voice"), name);
  } finally { $("#speak").disabled = false; }
  $("#model-note").textContent = [spec.note || models.get(name).about, spec.licence && `Licence: ${spec.licence}`].filter(Boolean).join(" · ");
  const language = $("#language").value;
  $("#language").replaceChildren(make("option", { value: "" }, "auto"), ...spec.languages.map((one) => make("option", { value: one }, one)));
  if (spec.languages.includes(language)) $("#language").value = language;
  $("#language-field").hidden = spec.languages.length < 2;
  $("#instruction-field").hidden = !can(spec, "instruction") && !can(spec, "voice_design");
  $("#emotion-field").hidden = !can(spec, "emotion_vector");
  $("#emotion-text-field").hidden = !can(spec, "emotion_text");
  $("#emotion-clip-field").hidden = !can(spec, "emotion_audio");
  $("#speed-field").hidden = !can(spec, "speed");
  const emotions = spec.emotions ?? [];
  if (emotions.length && !$("#emotions").children.length) {
    $("#emotions").replaceChildren(...emotions.map((emotion) => make("label", { class: "slider" }, make("span", {}, emotion),
      make("input", { type: "range", min: "0", max: "1", step: "0.05", value: "0", "data-emotion": emotion }), make("output"))));
    for (const input of $("#emotions").querySelectorAll("input")) bindSlider(input);
  }
  $("#sampling").replaceChildren(...Object.entries(spec.sampling).map(([setting, value]) => make("label", {}, setting.replaceAll("_", " "),
    typeof value === "boolean"
      ? make("select", { "data-setting": setting }, make("option", { value: "" }, `default (${value ? "on" : "off"})`), make("option", { value: "true" }, "on"), make("option", { value: "false" }, "off"))
      : make("input", { type: "number", step: "any", placeholder: String(value ?? "default"), "data-setting": setting }))));
  planSegments();
}

async function takeEmotion(file) {
  emotionClip = file ? await base64(file) : null;
  $("#emotion-clip-none").hidden = !file;
}

function requestBody() {
  const body = { model: $("#model").value, input: $("#text").value, ...voiceFields($("#voice").value) };
  if ($("#language").value) body.language = $("#language").value;
  if (!$("#instruction-field").hidden && $("#instruction").value.trim()) body.instructions = $("#instruction").value.trim();
  if (!$("#speed-field").hidden && Number($("#speed").value) !== 1) body.speed = Number($("#speed").value);
  if ($("#seed").value !== "") body.seed = Number($("#seed").value);
  if (!$("#emotion-text-field").hidden && $("#emotion-text").value.trim()) body.emotion_text = $("#emotion-text").value.trim();
  if (!$("#emotion-clip-field").hidden && emotionClip) body.emotion_audio = emotionClip;
  if (!$("#emotion-field").hidden) {
    const moods = Object.fromEntries([...$("#emotions").querySelectorAll("input")].map((input) => [input.dataset.emotion, Number(input.value)]).filter(([, value]) => value > 0));
    if (Object.keys(moods).length) body.emotion_vector = moods;
    if ((body.emotion_vector || body.emotion_text || body.emotion_audio) && Number($("#emotion-strength").value) !== 1) body.emotion_strength = Number($("#emotion-strength").value);
  }
  const sampling = {};
  for (const input of $("#sampling").querySelectorAll("[data-setting]")) {
    if (input.value !== "") sampling[input.dataset.setting] = input.tagName === "SELECT" ? input.value === "true" : Number(input.value);
  }
  if (Object.keys(sampling).length) body.sampling = sampling;
  return body;
}

function planSegments() {
  const text = $("#text").value;
  $("#text-count").textContent = `${text.length.toLocaleString("en")} characters`;
  clearTimeout(segmentTimer);
  segmentTimer = setTimeout(showSegments, 350);
}

async function showSegments() {
  const { input, model, language, normalize, glossary } = requestBody();
  segmentCall?.abort();
  segmentCall = new AbortController();
  if (!input.trim()) { $("#segments").replaceChildren(); $("#segments-count").textContent = ""; return; }
  try {
    const answer = await call("/v1/audio/text", { method: "POST", json: { input, model, language, normalize, glossary }, signal: segmentCall.signal });
    const { data } = await answer.json();
    $("#segments").replaceChildren(...data.flatMap((part) => {
      const rules = [...part.changes.map((one) => `${one.rule}: ${one.written} → ${one.spoken}`), ...part.not_spoken];
      return part.sentences.map((sentence) => make("li", { title: rules.join("\n") }, sentence));
    }));
    $("#segments-count").textContent = `(${$("#segments").children.length})`;
  } catch (error) {
    if (error.name === "AbortError") return;
    $("#segments").replaceChildren();
    $("#segments-count").textContent = `(${error.message})`;
  }
}

async function begin(body) {
  stop();
  alertUser(null);
  if (body.model === $("#model").value && lacksVoice(spec, body.voice || body.ref_audio)) return;
  const control = new AbortController();
  running = control;
  $("#stop").disabled = false;
  const item = { number: ++number, body, rate: 24000, seed: null, first: null, rtf: null, guards: [], state: "speaking" };
  const clicked = performance.now();
  try {
    await player.wake();
    player.reset(24000);
    prepare(item);
    await speak(body, {
      signal: control.signal,
      onstart: ({ rate, id, seed, voice }) => { Object.assign(item, { rate, id, seed, voice }); player.reset(rate); prepare(item); player.begin(); },
      onsamples: (samples) => {
        if (running !== control) return;
        item.first ??= (performance.now() - clicked) / 1000;
        item.peaks.add(samples); item.picture.add(samples); player.add(samples);
        showFigures(item);
      },
    });
    item.state = "done";
    player.complete();
    const record = await get(`/v1/requests/${item.id}`);
    Object.assign(item, { rtf: record.rtf, guards: record.guards });
  } catch (error) {
    item.state = error.name === "AbortError" ? "stopped" : "failed";
    if (item.state === "stopped" && item.id) player.isComplete = true;
    alertUser(error);
  }
  if (running === control) { running = null; $("#stop").disabled = true; }
  if (shown === item) { item.samples = player.samples(); showFigures(item); showPlayer(); draw(true); }
  if (item.samples?.length) { history.unshift(item); history.splice(30); showHistory(); }
}

function prepare(item) {
  item.peaks = new Peaks(item.rate); item.picture = new Spectrogram(item.rate);
  shown = item;
  showFigures(item); draw(true);
}

export function stop() {
  if (running) { running.abort(); running = null; $("#stop").disabled = true; player.stop(); showPlayer(); }
  else if (player.playing) player.pause();
}

function showItem(item, play) {
  stop();
  player.reset(item.rate);
  player.pieces = [item.samples]; player.length = item.samples.length; player.isComplete = true;
  shown = item;
  showFigures(item); showPlayer(); draw(true);
  if (play) player.play(0);
}

function showFigures(item) {
  $("#fig-first").textContent = seconds(item.first);
  $("#fig-rtf").textContent = factor(item.rtf);
  $("#fig-length").textContent = player.length ? `${player.seconds.toFixed(1)} s` : "–";
  $("#fig-seed").textContent = item.seed ?? "–";
  $("#guards").replaceChildren(...item.guards.map((guard) => make("li", {}, guard.message)));
}

function showPlayer() {
  const there = player.length > 0;
  $("#play").disabled = !there; $("#download").disabled = !there;
  $("#play").textContent = player.playing ? "Pause" : "Play";
  drawn = 0;
}

function frame(now) {
  if (!$("#panel-speak").hidden && (player.playing || running) && now - drawn > 60) { draw(Boolean(running)); drawn = now; }
  requestAnimationFrame(frame);
}

let pictured = 0;
function draw(all) {
  if (!shown || $("#panel-speak").hidden) return;
  const place = player.position, total = player.seconds;
  drawWave($("#waveform"), shown.peaks, total ? place / total : null);
  if (all && (!running || performance.now() - pictured > 250)) { drawSpectrogram($("#spectrogram"), shown.picture); pictured = performance.now(); }
  $("#clock").textContent = `${place.toFixed(1)} / ${total.toFixed(1)} s`;
  const canvas = $("#waveform");
  canvas.setAttribute("aria-valuemax", total.toFixed(1)); canvas.setAttribute("aria-valuenow", place.toFixed(1));
  canvas.setAttribute("aria-valuetext", `${place.toFixed(1)} of ${total.toFixed(1)} seconds`);
}

function bindSeeking(canvas) {
  canvas.addEventListener("pointerdown", (event) => {
    const box = canvas.getBoundingClientRect();
    player.seek(((event.clientX - box.left) / box.width) * player.seconds); draw(false);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -5, PageUp: 5 }[event.key];
    if (step) player.seek(player.position + step);
    else if (event.key === "Home") player.seek(0);
    else if (event.key === "End") player.seek(player.seconds);
    else if (event.key === " ") $("#play").click();
    else return;
    event.preventDefault(); draw(false);
  });
}

function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function download(item) {
  if (!item) return;
  const format = $("#format").value, name = `sonant-${item.number}.${format}`;
  if (format === "wav" || item.state !== "done") { save(wavBytes(item.samples ?? player.samples(), item.rate), name.replace(/[^.]*$/, "wav")); return; }
  try {
    // Said once more with the same seed: the same sound, in the other format.
    const answer = await call("/v1/audio/speech", { method: "POST", json: { ...item.body, seed: item.seed, response_format: format, stream: false } });
    save(await answer.blob(), name);
  } catch (error) { alertUser(error); }
}

function showHistory() {
  $("#history-empty").hidden = history.length > 0;
  $("#history").replaceChildren(...history.map((item) => {
    const words = item.body.input.trim(), name = words.slice(0, 40);
    return make("li", {},
      make("p", { class: "words" }, words),
      make("p", { class: "facts" }, `${item.body.model} · ${item.voice || "no voice"} · seed ${item.seed} · ${(item.samples.length / item.rate).toFixed(1)} s · first audio ${seconds(item.first)} · RTF ${factor(item.rtf)}${item.state === "stopped" ? " · stopped" : ""}`),
      make("div", { class: "actions" },
        make("button", { type: "button", class: "small", "aria-label": `Play: ${name}`, onclick: () => showItem(item, true) }, "Play"),
        make("button", { type: "button", class: "small", "aria-label": `Download: ${name}`, onclick: () => download(item) }, "Download"),
        make("button", { type: "button", class: "small", "aria-label": `Replay with the same settings and seed: ${name}`, onclick: () => begin({ ...item.body, seed: item.seed }) }, "Replay"),
        make("button", { type: "button", class: "small", "aria-label": `Edit the text again: ${name}`, onclick: () => { $("#text").value = item.body.input; $("#seed").value = item.seed; planSegments(); $("#text").focus(); } }, "Edit")));
  }));
}
