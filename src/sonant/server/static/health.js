// The Health section, and the line at the top of the page.
import { call, get } from "/static/api.js";
import { $, alertUser, factor, make, refreshModels, seconds } from "/static/page.js";

const size = (bytes) => (bytes ? (bytes > 1e9 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.round(bytes / 2 ** 20)} MiB`) : "–");
let changed = async () => {}, timer = 0;

export function start(onchange) {
  changed = onchange;
  refresh();
}

export async function refresh() {
  clearTimeout(timer);
  try {
    if (!document.hidden) show(await get("/v1/status"));
  } catch (error) {
    if (error.status === 401) alertUser(error);
    setState("bad", error.status ? error.message : "The server does not answer");
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, $("#panel-health").hidden ? 4000 : 1000);
}

function setState(kind, text) {
  if ($("#state-text").textContent !== text) $("#state-text").textContent = text;
  $("#state").className = `state ${kind}`;
}

function show(status) {
  const speaking = status.models.reduce((sum, model) => sum + model.running, 0), waiting = status.models.reduce((sum, model) => sum + model.waiting, 0);
  if (status.problem) setState("bad", status.problem);
  else if (!status.ready) setState("warn", "Loading the model …");
  else if (waiting) setState("warn", `Busy: ${speaking} speaking, ${waiting} waiting`);
  else setState("good", speaking ? "Speaking" : "Ready");
  if ($("#panel-health").hidden) return;
  const figures = [["State", status.ready ? "ready" : "not ready"], ["Version", status.version], ["Memory", size(status.resident_bytes)], ["Speaking", speaking], ["Waiting", waiting]];
  $("#health-figures").replaceChildren(...figures.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
  const focused = document.activeElement?.dataset?.model;
  $("#models-table tbody").replaceChildren(...status.models.map((model) => make("tr", {}, make("th", { scope: "row" }, model.id), make("td", {}, model.state),
    make("td", {}, model.slots ? `${model.running} of ${model.slots}` : "–"), make("td", {}, model.queue_limit ? `${model.waiting} of ${model.queue_limit}` : "–"), make("td", {}, size(model.bytes)),
    make("td", {}, make("button", { type: "button", class: "small", "data-model": model.id, disabled: model.state === "loading", "aria-label": `${model.state === "loaded" ? "Unload" : "Load"} ${model.id}`, onclick: () => toggle(model) }, model.state === "loaded" ? "Unload" : "Load")))));
  if (focused) $(`#models-table [data-model="${CSS.escape(focused)}"]`)?.focus();
  $("#recent-table tbody").replaceChildren(...[...status.running, ...status.recent].map((record) => make("tr", {},
    make("td", {}, new Date(record.started_at * 1000).toLocaleTimeString()), make("td", {}, record.model), make("td", {}, record.voice || "–"), make("td", {}, record.outcome.replaceAll("_", " ")),
    make("td", {}, seconds(record.first_audio)), make("td", {}, factor(record.rtf)), make("td", {}, `${record.audio_seconds.toFixed(1)} s`))));
}

async function toggle(model) {
  try {
    alertUser(null);
    await call(`/v1/models/${encodeURIComponent(model.id)}/${model.state === "loaded" ? "unload" : "load"}`, { method: "POST" });
    await refreshModels();
    await changed();
  } catch (error) { alertUser(error); }
}
