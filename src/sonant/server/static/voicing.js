// The Voices section: record or drop a clip, judge it, keep it, hear and remove stored voices, design one.
import { base64, call, get, post } from "/static/api.js";
import { $, alertUser, can, make, models, trial } from "/static/page.js";
import { Recorder } from "/static/recorder.js";
import { Peaks, drawWave, verdict, wavBytes } from "/static/sound.js";

let clip = null, onvoices = () => {};

const recorder = new Recorder((level, peak, length) => {
  const bar = $("#meter-bar"), shownLevel = Math.max(-60, Math.min(0, level));
  bar.style.width = `${((shownLevel + 60) / 60) * 100}%`;
  bar.className = peak > 0.985 ? "hot" : level < -40 ? "low" : "";
  $("#meter").setAttribute("aria-valuenow", shownLevel.toFixed(0));
  $("#meter").setAttribute("aria-valuetext", `${shownLevel.toFixed(0)} decibels${peak > 0.985 ? ", clipping" : ""}`);
  $("#record-clock").textContent = `${length.toFixed(1)} s`;
});

export function start(changed) {
  onvoices = changed;
  $("#record").addEventListener("click", toggleRecording);
  $("#clip-file").addEventListener("change", (event) => { if (event.target.files[0]) take(event.target.files[0]); });
  const drop = $("#drop");
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  drop.addEventListener("drop", (event) => { if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); });
  $("#voice-form").addEventListener("submit", saveVoice);
  $("#try-voice").addEventListener("click", tryVoice);
  $("#design-form").addEventListener("submit", design);
  return refresh();
}

async function toggleRecording() {
  const button = $("#record");
  try {
    if (!recorder.isRecording) {
      alertUser(null);
      await recorder.start();
      button.textContent = "Stop recording"; button.setAttribute("aria-pressed", "true");
      return;
    }
    button.textContent = "Record"; button.setAttribute("aria-pressed", "false");
    const { samples, rate } = await recorder.stop();
    $("#meter-bar").style.width = "0";
    show({ blob: wavBytes(samples, rate), samples, rate, label: "recording" });
  } catch (error) { alertUser(error); }
}

async function take(file) {
  alertUser(null);
  const context = new OfflineAudioContext(1, 1, 48000);
  let samples = null, rate = 48000;
  try {
    const decoded = await context.decodeAudioData(await file.arrayBuffer());
    rate = decoded.sampleRate;
    samples = new Float32Array(decoded.length);
    for (let channel = 0; channel < decoded.numberOfChannels; channel++) decoded.getChannelData(channel).forEach((value, i) => { samples[i] += value / decoded.numberOfChannels; });
  } catch { /* the server may read what this browser cannot */ }
  show({ blob: file, samples, rate, label: file.name });
}

function show(made) {
  clip = made;
  const audio = $("#clip-audio"), box = $("#verdict"), wave = $("#clip-wave");
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(made.blob); audio.hidden = false;
  wave.hidden = made.samples === null;
  if (made.samples === null) { box.className = "verdict fair"; box.textContent = "This browser cannot read the file; the server will try."; return; }
  made.peaks = new Peaks(made.rate); made.peaks.add(made.samples);
  drawWave(wave, made.peaks);
  const longest = Math.min(...[...models.values()].filter((model) => can(model.spec, "clone")).map((model) => model.spec.max_reference_seconds), 120);
  const judged = verdict(made.samples, made.rate, longest);
  made.grade = judged.grade;
  box.className = `verdict ${judged.grade}`;
  box.replaceChildren(make("strong", {}, `${judged.title}: ${made.label}`), make("ul", {}, ...judged.lines.map((line) => make("li", {}, line))));
}

export function redraw() { if (clip?.peaks) drawWave($("#clip-wave"), clip.peaks); }

async function saveVoice(event) {
  event.preventDefault();
  if (!clip) { alertUser("Record or choose a clip first."); return; }
  const form = new FormData();
  form.set("name", $("#voice-name").value.trim());
  form.set("consent", "confirmed in the studio: the speaker agrees to this use of their voice");
  form.set("audio_sample", clip.blob, clip.label);
  if ($("#transcript").value.trim()) form.set("ref_text", $("#transcript").value.trim());
  if ($("#voice-language").value.trim()) form.set("language", $("#voice-language").value.trim());
  try {
    const { advice } = await (await call("/v1/audio/voices", { method: "POST", form })).json();
    alertUser(advice.length ? `The voice is kept. ${advice.map((remark) => remark.message).join(" ")}` : null);
    $("#voice-name").value = ""; $("#consent").checked = false;
    await refresh(); await onvoices();
  } catch (error) { alertUser(error); }
}

async function tryVoice() {
  if (!clip) { alertUser("Record or choose a clip first."); return; }
  if (![...models.values()].some((model) => can(model.spec, "clone"))) { alertUser("No loaded model can clone a voice. Choose one that can under Speak."); return; }
  trial.clip = { label: clip.label, data: await base64(clip.blob), transcript: $("#transcript").value.trim() };
  await onvoices();
  $("#tab-speak").click();
  if ([...$("#voice").options].some((option) => option.value === "\u0000clip")) $("#voice").value = "\u0000clip";
  $("#text").focus();
}

export async function refresh() {
  const { uploaded_voices: voices } = await get("/v1/audio/voices");
  $("#voices-empty").hidden = voices.length > 0;
  $("#voice-list").replaceChildren(...voices.map((voice) => make("li", {},
    make("p", {}, make("strong", {}, voice.id)),
    make("p", { class: "facts" }, voice.models.length ? `for ${voice.models.join(", ")}` : "no loaded model can speak with it"),
    make("div", { class: "actions" },
      make("button", { type: "button", class: "small", "aria-label": `Hear the clip of ${voice.id}`, onclick: (event) => hear(voice.id, event.target) }, "Hear clip"),
      make("button", { type: "button", class: "small", "aria-label": `Remove the voice ${voice.id}`, onclick: () => remove(voice.id) }, "Remove")))));
  const designers = [...models].filter(([, model]) => can(model.spec, "voice_design")).map(([name]) => name);
  $("#design-form").hidden = !designers.length;
  $("#design-model").replaceChildren(...designers.map((name) => make("option", { value: name }, name)));
}

async function hear(name, button) {
  try {
    const audio = new Audio(URL.createObjectURL(await (await call(`/v1/audio/voices/${encodeURIComponent(name)}/clip`)).blob()));
    button.disabled = true;
    audio.onended = audio.onerror = () => { button.disabled = false; URL.revokeObjectURL(audio.src); };
    await audio.play();
  } catch (error) { button.disabled = false; alertUser(error); }
}

function remove(name) {
  const dialog = $("#delete-dialog");
  $("#delete-name").textContent = `The voice “${name}” and its clip are deleted from this server.`;
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "ok") return;
    try { await call(`/v1/audio/voices/${encodeURIComponent(name)}`, { method: "DELETE" }); await refresh(); await onvoices(); } catch (error) { alertUser(error); }
  };
  dialog.showModal();
}

async function design(event) {
  event.preventDefault();
  const button = event.submitter;
  button.disabled = true;
  try {
    await post("/v1/audio/voices/design", { name: $("#design-name").value.trim(), model: $("#design-model").value, instructions: $("#design-instruction").value.trim() });
    alertUser(null);
    await refresh(); await onvoices();
  } catch (error) { alertUser(error); } finally { button.disabled = false; }
}
