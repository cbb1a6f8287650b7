// Starts the studio: theme, sections, key, then each section.
import { setKey } from "/static/api.js";
import * as comparing from "/static/comparing.js";
import * as health from "/static/health.js";
import { $, alertUser, models, refreshModels } from "/static/page.js";
import * as speaking from "/static/speaking.js";
import * as voicing from "/static/voicing.js";

const root = document.documentElement;
const stored = localStorage.getItem("sonant-theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
root.dataset.theme = stored ?? (dark.matches ? "dark" : "light");
const redraw = () => { speaking.redraw(); voicing.redraw(); comparing.redraw(); };
dark.addEventListener("change", () => { if (!localStorage.getItem("sonant-theme")) { root.dataset.theme = dark.matches ? "dark" : "light"; redraw(); } });
$("#theme-button").addEventListener("click", () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("sonant-theme", root.dataset.theme);
  redraw();
});

const tabs = [...document.querySelectorAll('[role="tab"]')];
function show(tab, focus) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    $(`#${one.getAttribute("aria-controls")}`).hidden = !chosen;
  }
  if (focus) tab.focus();
  history.replaceState(null, "", `#${tab.id.slice(4)}`);
  redraw();
  if (tab.id === "tab-health") health.refresh();
}
for (const tab of tabs) {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(tab), to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(tabs[(to + tabs.length) % tabs.length], true);
  });
}

$("#key-button").addEventListener("click", () => $("#key-dialog").showModal());
$("#key-dialog").addEventListener("close", () => {
  if ($("#key-dialog").returnValue !== "ok") return;
  setKey($("#key").value);
  location.reload();
});

const refreshAll = async () => { await speaking.refresh(); await comparing.refresh(); await voicing.refresh(); };

const wanted = $(`#tab-${location.hash.slice(1)}`);
if (wanted) show(wanted);
health.start(refreshAll);
try {
  await refreshModels();
  if (!models.size) throw new Error("The server has no model.");
  await speaking.start();
  await comparing.start();
  await voicing.start(refreshAll);
  document.body.dataset.ready = "true";
} catch (error) { alertUser(error); }
