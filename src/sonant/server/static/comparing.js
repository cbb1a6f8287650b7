// The Compare section: the same text twice, side by side; blind when asked for.
import { speak } from "/static/api.js";
import { $, alertUser, bindSlider, can, factor, fillModels, fillVoices, lacksVoice, models, seconds, voiceFields } from "/static/page.js";
import { Peaks, drawWave, joined, wavBytes } from "/static/sound.js";

const tally = { A: 0, B: 0, same: 0 };
let results = null;

const sides = () => ["a", "b"].map((name) => $(`#side-${name}`));

export async function start() {
  for (const side of sides()) {
    fillModels($(".side-model", side));
    bindSlider($(".side-speed", side));
    $(".side-model", side).addEventListener("change", () => useModel(side).catch(alertUser));
    await useModel(side);
  }
  $("#compare-form").addEventListener("submit", compare);
  for (const button of document.querySelectorAll(".choose")) button.addEventListener("click", () => choose(Number(button.dataset.choice)));
}

export async function refresh() { for (const side of sides()) { fillModels($(".side-model", side)); await useModel(side); } }

export function redraw() { results?.forEach((result, place) => drawWave($("canvas", slot(place)), result.peaks)); }

async function useModel(side) {
  const spec = await fillVoices($(".side-voice", side), $(".side-model", side).value);
  $(".side-instruction-field", side).hidden = !can(spec, "instruction") && !can(spec, "voice_design");
  $(".side-speed-field", side).hidden = !can(spec, "speed");
}

const slot = (place) => document.querySelectorAll("#compare-result > .card")[place];

function body(side) {
  const made = { model: $(".side-model", side).value, input: $("#compare-text").value, ...voiceFields($(".side-voice", side).value) };
  if ($(".side-seed", side).value !== "") made.seed = Number($(".side-seed", side).value);
  if (!$(".side-instruction-field", side).hidden && $(".side-instruction", side).value.trim()) made.instructions = $(".side-instruction", side).value.trim();
  if (!$(".side-speed-field", side).hidden && Number($(".side-speed", side).value) !== 1) made.speed = Number($(".side-speed", side).value);
  return made;
}

async function one(side, name) {
  const began = performance.now(), pieces = [], result = { name, body: body(side), first: null };
  await speak(result.body, {
    onstart: ({ rate, seed, voice }) => Object.assign(result, { rate, seed, voice }),
    onsamples: (samples) => { result.first ??= (performance.now() - began) / 1000; pieces.push(samples); },
  });
  const samples = joined(pieces);
  result.seconds = samples.length / result.rate;
  result.factor = (performance.now() - began) / 1000 / result.seconds;
  result.peaks = new Peaks(result.rate); result.peaks.add(samples);
  result.blob = wavBytes(samples, result.rate);
  return result;
}

async function compare(event) {
  event.preventDefault();
  const button = $("#compare"), [a, b] = sides();
  alertUser(null);
  if ([a, b].some((side) => lacksVoice(models.get($(".side-model", side).value)?.spec, $(".side-voice", side).value))) return;
  button.disabled = true;
  try {
    // One after the other, so that neither figure suffers from the other's work.
    results = [await one(a, "A"), await one(b, "B")];
    if ($("#blind").checked && crypto.getRandomValues(new Uint8Array(1))[0] % 2) results.reverse();
    $("#compare-result").hidden = $("#compare-extra").hidden = false;
    results.forEach((result, place) => {
      const card = slot(place), audio = $("audio", card);
      URL.revokeObjectURL(audio.src);
      audio.src = URL.createObjectURL(result.blob);
      drawWave($("canvas", card), result.peaks);
      $(".reveal", card).textContent = $("#blind").checked ? "Hidden until you have chosen." : told(result);
    });
    for (const choice of document.querySelectorAll(".choose")) choice.disabled = false;
    $("audio", slot(0)).focus();
  } catch (error) { alertUser(error); } finally { button.disabled = false; }
}

const told = (result) => `${result.name}: ${result.body.model}, ${result.voice || "no voice"}, seed ${result.seed}. ${result.seconds.toFixed(1)} s, first audio ${seconds(result.first)}, RTF ${factor(result.factor)}.`;

function choose(place) {
  if (!results) return;
  const winner = place < 0 ? "same" : results[place].name;
  tally[winner]++;
  results.forEach((result, at) => { $(".reveal", slot(at)).textContent = told(result); });
  for (const choice of document.querySelectorAll(".choose")) choice.disabled = true;
  $("#tally").textContent = `${winner === "same" ? "No difference heard" : `You chose ${winner}`}. So far A ${tally.A}, B ${tally.B}, no difference ${tally.same}.`;
}
