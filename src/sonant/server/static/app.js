// The studio's frame: header, pages by their address (#speak, #clone, ...), theme, language, key, and the server's state.
import { get, hasKey, setKey } from "./core/api.js";
import { refreshCatalogue } from "./core/catalogue.js";
import { icon, make, problemLine, select } from "./core/dom.js";
import { LANGUAGES, language, t, useLanguage } from "./core/i18n.js";
import { redrawAll } from "./core/soundview.js";
import { prefs } from "./core/store.js";

const PAGES = ["speak", "clone", "design", "cast", "books", "compare", "server"];
const root = document.documentElement, main = document.querySelector("#main");
const opened = new Map(); // name -> {element, page}
const opening = new Map(); // name -> a promise of it
const watchers = new Set();
let current = null, timer = 0;

// -- theme ------------------------------------------------------------------------------------
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => prefs.get("theme") ?? (dark.matches ? "dark" : "light");
function dress() { root.dataset.theme = theme(); redraw(); }
function redraw() { redrawAll(); for (const { page } of opened.values()) page.redraw?.(); }
dark.addEventListener("change", dress);

// -- what pages may do ------------------------------------------------------------------------
export const app = {
  status: null,
  go(name, wish) { if (wish) wishes.set(name, wish); if (location.hash === `#${name}`) show(name).catch(problem.show); else location.hash = name; },
  async refresh() { await refreshCatalogue(); for (const { page } of opened.values()) page.refresh?.(); },
  watch(work) { watchers.add(work); if (this.status) work(this.status); },
  say(message) { note.textContent = message; note.hidden = false; clearTimeout(noteTimer); noteTimer = setTimeout(() => { note.hidden = true; }, 7000); },
  look: () => look(),
};
const wishes = new Map();
let noteTimer = 0;

// -- the frame --------------------------------------------------------------------------------
const note = make("p", { class: "note", role: "status", hidden: true });
const problem = problemLine();
const stateText = make("span", { role: "status" }, t("state.connecting"));
const state = make("a", { class: "state", href: "#server" }, make("span", { class: "dot", "aria-hidden": "true" }), stateText);
const links = new Map(PAGES.map((name) => [name, make("a", { href: `#${name}` }, icon(name), make("span", {}, t(`nav.${name}`)))]));
const tongue = select(Object.entries(LANGUAGES), language, useLanguage);
tongue.setAttribute("aria-label", t("language")); tongue.id = "tongue";
document.querySelector("#top").append(
  make("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); main.focus(); } }, t("skip")),
  make("h1", { class: "brand" }, make("img", { src: "/static/icon.svg", alt: "", width: "30", height: "30" }), make("span", {}, "Sonant")),
  make("nav", { "aria-label": t("nav") }, ...links.values()),
  make("div", { class: "tools" }, state, tongue, make("button", { type: "button", class: "icon-button", id: "theme", "aria-label": t("theme"), title: t("theme"), onclick: () => { prefs.set("theme", theme() === "dark" ? "light" : "dark"); dress(); } }, icon("sun"))));
main.append(problem, note);

// -- pages ------------------------------------------------------------------------------------
async function show(name) {
  if (current !== name) { opened.get(current)?.page.hidden?.(); problem.clear(); }
  current = name;
  document.title = `${t(`nav.${name}`)} · Sonant`;
  for (const [one, link] of links) { if (one === name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current"); }
  links.get(name).scrollIntoView?.({ block: "nearest", inline: "nearest" });
  for (const [one, { element }] of opened) element.hidden = one !== name;
  if (!opened.has(name)) {
    if (!opening.has(name)) opening.set(name, open(name).finally(() => opening.delete(name)));
    await opening.get(name);
    problem.clear();
  }
  if (current !== name) return;
  opened.get(name).page.shown?.(wishes.get(name));
  wishes.delete(name);
  scrollTo(0, 0);
}
async function open(name) {
  const { mount } = await import(`./pages/${name}.js`);
  const element = make("section", { class: "page", id: `page-${name}`, "aria-label": t(`nav.${name}`), hidden: current !== name });
  main.append(element);
  try { opened.set(name, { element, page: mount(element, app) }); } catch (error) { element.remove(); throw error; }
  element.dataset.ready = "true";
}
const asked = () => (PAGES.includes(location.hash.slice(1)) ? location.hash.slice(1) : "speak");
addEventListener("hashchange", () => { if (isKnown) show(asked()).catch(problem.show); });

// The page that the address names, as soon as the models are known. What fails is tried again at the next look at the server.
let isKnown = false, beginning = null;
async function start() {
  if (!isKnown) { await refreshCatalogue(); isKnown = true; }
  await show(asked());
  document.body.dataset.ready = "true";
}
function begin() { beginning ??= start().catch(again).finally(() => { beginning = null; }); return beginning; }
const again = (error) => { if (problem.textContent !== error.message) problem.show(error); }; // the same is not read aloud at every try

// -- the key ----------------------------------------------------------------------------------
document.addEventListener("sonant-key", askKey);
export function askKey() {
  if (document.querySelector("dialog[open]")) return;
  const input = make("input", { type: "password", autocomplete: "off", id: "key", "aria-label": t("key.title") });
  const dialog = make("dialog", { "aria-label": t("key.title"), id: "key-dialog" }, make("form", { method: "dialog" }, make("h2", {}, t("key.title")), make("p", { class: "hint" }, t("key.hint")), input,
    make("div", { class: "actions" }, make("button", { value: "ok", class: "primary" }, t("key.use")), make("button", { value: "no", formnovalidate: true }, t("cancel")))));
  dialog.addEventListener("close", () => { dialog.remove(); if (dialog.returnValue === "ok") { setKey(input.value); location.reload(); } });
  document.body.append(dialog);
  dialog.showModal();
}
app.askKey = askKey;

// -- the server's state -----------------------------------------------------------------------
function tell(kind, text) { if (stateText.textContent !== text) stateText.textContent = text; state.className = `state ${kind}`; state.title = text; }
async function look() {
  clearTimeout(timer);
  try {
    if (!document.hidden) {
      const status = app.status = await get("/v1/status");
      const speaking = status.models.reduce((sum, model) => sum + model.running, 0), waiting = status.models.reduce((sum, model) => sum + model.waiting, 0);
      if (status.problem) tell("bad", t("state.problem"));
      else if (!status.ready) tell("warn", t("state.loading"));
      else if (waiting) tell("warn", t("state.busy", { speaking, waiting }));
      else tell("good", t(speaking ? "state.speaking" : "state.ready"));
      for (const work of watchers) work(status);
      if (!opened.has(current)) begin();
    }
  } catch (error) { tell("bad", t(error.status === 401 ? "state.key" : "state.gone")); if (error.status === 401 && !hasKey()) problem.show(error); }
  timer = setTimeout(look, current === "server" ? 1500 : 5000);
}

dress();
look();
await begin();
