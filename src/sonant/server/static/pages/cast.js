// Cast: who speaks which role of a script or a book; heard line by line, then recorded as a whole.
import { get, post, send, speak } from "../core/api.js";
import { can, specOf } from "../core/catalogue.js";
import { busy, debounced, dropZone, field, icon, make, problemLine, select } from "../core/dom.js";
import { number, t } from "../core/i18n.js";
import { SpeedSlider, rowOf } from "../core/settings.js";
import { BOOK_TYPES, FORMATS, listBooks, noShelf, voiceOf, voiceSelect } from "../core/shelf.js";
import { SoundView } from "../core/soundview.js";
import { prefs } from "../core/store.js";

const RESERVED = ["narrator", "quoted"];

export function mount(root, app) {
  let books = null, book = null, cast = null, sayings = null, previewCall = null;
  const problem = problemLine(), recording = problemLine();
  const missing = noShelf(); missing.hidden = true;
  const script = make("textarea", { rows: "8", id: "script", placeholder: t("cast.example") });
  const scriptName = make("input", { type: "text", maxlength: "100", placeholder: t("cast.nameExample") });
  const take = make("button", { type: "submit", class: "primary", id: "take-script" }, t("cast.take"));
  const scriptForm = make("form", { class: "stack", novalidate: true }, field(t("cast.source"), script, t("cast.scriptHint")), field(t("cast.name"), scriptName), make("div", { class: "go" }, take));
  const chooser = select([], "", (id) => { if (id) open(id).catch(problem.show); });
  const chooserField = field(t("cast.fromShelf"), chooser);
  const writing = make("details", { class: "more", open: true }, make("summary", {}, t("cast.script")), scriptForm, dropZone(t("books.drop"), BOOK_TYPES, (file) => add({ file })));
  const source = make("section", { class: "card", "aria-label": t("cast.source") }, chooserField, writing, problem);
  const roles = make("ul", { class: "roles", id: "roles" });
  const heard = new SoundView({ label: t("cast.line"), compact: true });
  heard.element.hidden = true;
  const quotes = make("input", { type: "checkbox", onchange: () => { cast.quotes = quotes.checked; changed(); } });
  const newRole = make("input", { type: "text", maxlength: "60", placeholder: t("cast.newRole"), "aria-label": t("cast.newRole") });
  const rolePart = make("section", { class: "card", hidden: true, "aria-labelledby": "roles-title" }, make("h2", { id: "roles-title" }, t("cast.roles")), make("label", { class: "check" }, quotes, t("cast.quotes")), heard.element, roles, make("form", { class: "row add", novalidate: true, onsubmit: addRole }, newRole, make("button", { type: "submit", class: "small" }, t("cast.add"))));
  const lines = make("ol", { class: "lines", id: "lines", tabindex: "0", "aria-label": t("cast.preview") }), linesNote = make("p", { class: "hint" });
  const preview = make("details", { class: "card more", hidden: true }, make("summary", {}, t("cast.preview")), linesNote, lines);
  preview.addEventListener("toggle", () => { if (preview.open) showLines(); });
  const format = select(FORMATS.map((one) => [one, t(`books.format.${one}`)]), prefs.get("bookFormat", "m4b"), (value) => prefs.set("bookFormat", value));
  const go = make("button", { type: "submit", class: "primary large", id: "record-cast" }, t("cast.go"));
  const finish = make("form", { class: "card", hidden: true, novalidate: true }, field(t("speak.format"), format), recording, make("div", { class: "go" }, go));
  const body = make("div", { class: "stack", hidden: true }, source, rolePart, preview, finish);
  root.append(make("div", { class: "narrow" }, make("h2", { class: "title" }, t("cast.title")), make("p", { class: "lead" }, t("cast.lead")), missing, body));

  async function load(wish) {
    problem.clear();
    try {
      books = await listBooks();
      missing.hidden = books !== null; body.hidden = books === null;
      if (books === null) return;
      chooser.fill([["", t("cast.choose")], ...books.map((one) => [one.id, one.title || one.name])], wish?.book ?? book?.id ?? "");
      chooserField.hidden = !books.length;
      if (wish?.book) await open(wish.book);
    } catch (error) { problem.show(error); }
  }

  async function add(values) {
    problem.clear();
    busy(take, true);
    try { const made = await send("/v1/audio/books", values); await load({ book: made.id }); } catch (error) { problem.show(error); } finally { busy(take, false); }
  }
  scriptForm.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!script.value.trim()) { problem.show(t("speak.noText")); script.focus(); return; }
    const name = `${scriptName.value.trim() || t("cast.untitled")}.txt`;
    add({ file: new File([script.value], name, { type: "text/plain" }), name }); // as a file: a text field may have 1 MiB at most
  });

  const keep = () => prefs.set(`cast-${book.id}`, cast);
  const changed = debounced(() => { keep(); if (preview.open) showLines(); }, 250);

  async function open(id) {
    book = await get(`/v1/audio/books/${id}`);
    const starter = (await get(`/v1/audio/books/${id}/cast`)).cast;
    cast = prefs.get(`cast-${id}`) ?? starter;
    for (const name of Object.keys(starter.roles)) cast.roles[name] ??= starter.roles[name];
    quotes.checked = cast.quotes !== false;
    chooser.value = id;
    writing.open = false;
    rolePart.hidden = preview.hidden = finish.hidden = false;
    showRoles();
    if (preview.open) showLines();
    rolePart.scrollIntoView({ block: "nearest" });
  }

  const roleName = (name) => (RESERVED.includes(name) ? t(`cast.${name}`) : name);
  function showRoles() {
    const found = new Map(book.roles.map((role) => [role.name, role]));
    const names = [...new Set([...book.roles.map((role) => role.name), ...Object.keys(cast.roles)])];
    roles.replaceChildren(...names.map((name) => drawRole(name, found.get(name))));
  }

  // One whose lines were not found by rule: from now on `Name: ...` is its line.
  function addRole(event) {
    event.preventDefault();
    const name = newRole.value.trim();
    if (!name || cast.roles[name]) { newRole.focus(); return; }
    cast.roles[name] = {};
    newRole.value = "";
    changed();
    showRoles();
  }

  function drawRole(name, found) {
    const role = cast.roles[name] ??= {};
    const speaker = () => voiceOf(`preset:${role.voice}`) ?? voiceOf(`stored:${role.voice}`);
    const choose = voiceSelect(speaker()?.key ?? "", (key) => { const voice = voiceOf(key); if (voice) Object.assign(role, { voice: voice.id, model: voice.models[0] }); else { delete role.voice; delete role.model; } showMore(); changed(); }, name === "narrator" ? t("cast.standard") : t("cast.asNarrator"));
    choose.setAttribute("aria-label", t("cast.voiceOf", { name: roleName(name) }));
    const hear = make("button", { type: "button", class: "icon-button sample", "aria-label": t("cast.hear", { name: roleName(name) }), onclick: () => say(role, name, found?.sample, hear) }, icon("play"));
    const gainRow = rowOf("gain") ?? { least: -30, most: 30 };
    const gain = make("input", { type: "range", min: String(Math.max(-12, gainRow.least)), max: String(Math.min(12, gainRow.most)), step: "1", value: String(role.gain ?? 0), "aria-label": t("cast.gainOf", { name: roleName(name) }) });
    const gainOut = make("output", {}, `${number(role.gain ?? 0)} dB`);
    gain.addEventListener("input", () => { role.gain = Number(gain.value); if (!role.gain) delete role.gain; gainOut.textContent = `${number(Number(gain.value))} dB`; changed(); });
    const speed = new SpeedSlider(() => { if (speed.value === 1) delete role.speed; else role.speed = speed.value; changed(); });
    speed.input.removeAttribute("id"); speed.output.removeAttribute("for"); speed.input.setAttribute("aria-label", t("cast.speedOf", { name: roleName(name) }));
    const caption = speed.element.querySelector("label"); caption.replaceWith(make("span", {}, caption.textContent));
    speed.value = role.speed ?? 1;
    const manner = make("input", { type: "text", value: role.instruction ?? "", oninput: () => { if (manner.value.trim()) role.instruction = manner.value.trim(); else delete role.instruction; changed(); } });
    const mannerField = field(t("speak.manner"), manner);
    const showMore = () => { const spec = specOf(role.model ?? speaker()?.models[0]); mannerField.hidden = !can(spec, "instruction"); };
    showMore();
    return make("li", { "data-role": name }, hear, make("div", { class: "what" }, make("strong", {}, roleName(name)), make("p", { class: "hint" }, found ? t("cast.lines", { lines: found.lines }) : t("cast.noLines")), found?.sample ? make("p", { class: "line" }, found.sample) : null), choose,
      make("details", { class: "more" }, make("summary", {}, t("cast.more")), make("div", { class: "slider" }, make("span", {}, t("cast.gain")), gain, gainOut), speed.element, mannerField));
  }

  async function say(role, name, sample, button) {
    if (sayings) { sayings.abort(); sayings = null; heard.stop(); return; }
    const base = { ...cast.roles.narrator, ...role }, control = sayings = new AbortController();
    problem.clear();
    button.classList.add("busy");
    try {
      await heard.wake();
      heard.element.hidden = false;
      const json = { input: sample || name, seed: 0 };
      for (const key of ["voice", "model", "speed", "language"]) if (base[key] !== undefined) json[key] = base[key];
      if (base.instruction) json.instructions = base.instruction;
      await speak(json, { signal: control.signal, onstart: ({ rate }) => heard.begin(rate), onsamples: (samples) => heard.add(samples) });
      heard.complete();
    } catch (error) { heard.complete(); problem.show(error); }
    button.classList.remove("busy");
    if (sayings === control) sayings = null;
  }

  async function showLines() {
    previewCall?.abort();
    const control = previewCall = new AbortController();
    try {
      const found = await post(`/v1/audio/books/${book.id}/lines`, { cast, offset: 0, limit: 200 }, control.signal);
      linesNote.textContent = t("cast.shown", { shown: found.data.length, total: found.total });
      lines.replaceChildren(...found.data.map((line) => make("li", { class: line.role === "narrator" ? "told" : "" }, make("span", { class: "who" }, roleName(line.role) + (line.emotion ? ` (${line.emotion})` : "")), make("span", {}, line.text))));
    } catch (error) { if (error.name !== "AbortError") { linesNote.textContent = error.message; lines.replaceChildren(); } }
  }

  finish.addEventListener("submit", async (event) => {
    event.preventDefault();
    recording.clear();
    busy(go, true);
    try { await post("/v1/audio/readings", { book: book.id, cast, format: format.value }); app.go("books"); } catch (error) { recording.show(error); } finally { busy(go, false); }
  });

  return { shown(wish) { load(wish); }, hidden() { heard.stop(); sayings?.abort(); sayings = null; }, refresh() { if (cast) showRoles(); }, redraw() { heard.draw(); } };
}
