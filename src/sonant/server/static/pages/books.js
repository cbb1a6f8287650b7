// Books: a file becomes an audiobook; chapters, a voice, progress, and what can be downloaded.
import { call, get, hasKey, post, send } from "../core/api.js";
import { busy, confirmed, dropZone, field, icon, iconButton, make, problemLine, select } from "../core/dom.js";
import { clock, languageName, number, size, t } from "../core/i18n.js";
import { SpeedSlider } from "../core/settings.js";
import { BOOK_TYPES, FORMATS, addressOf, fetchFile, listBooks, noShelf, ranges, voiceOf, voiceSelect } from "../core/shelf.js";
import { prefs } from "../core/store.js";

export function mount(root, app) {
  let books = null, book = null, chosen = new Set(), readings = [], timer = 0, isShown = false;
  const problem = problemLine(), asking = problemLine();
  const missing = noShelf();
  const shelf = make("ul", { class: "shelf", id: "shelf" });
  const adding = make("p", { class: "hint", role: "status" });
  const drop = dropZone(t("books.drop"), BOOK_TYPES, add);
  const cover = make("div", { class: "cover" }), head = make("div", {}), chapters = make("ul", { class: "chapters", id: "chapters" });
  const total = make("p", { class: "hint" });
  const voice = voiceSelect(prefs.get("bookVoice", ""), (key) => prefs.set("bookVoice", key));
  const format = select(FORMATS.map((one) => [one, t(`books.format.${one}`)]), prefs.get("bookFormat", "m4b"), (value) => prefs.set("bookFormat", value));
  const speed = new SpeedSlider(() => {});
  speed.input.id = "book-speed"; speed.output.htmlFor = "book-speed"; speed.element.querySelector("label").htmlFor = "book-speed";
  const go = make("button", { type: "submit", class: "primary large", id: "read-book" }, t("books.go"));
  const withCast = make("button", { type: "button", class: "quiet", onclick: () => app.go("cast", { book: book.id }) }, icon("cast"), t("books.withCast"));
  const all = make("input", { type: "checkbox", onchange: () => { chosen = new Set(all.checked ? book.chapters.map((one) => one.number) : []); showChapters(); } });
  const allRow = make("label", { class: "check" }, all, t("books.all"));
  const detail = make("form", { class: "card book", hidden: true, novalidate: true }, make("div", { class: "book-head" }, cover, head), make("h3", {}, t("books.chapters")), allRow, chapters, total,
    make("div", { class: "grid" }, field(t("speak.voice"), voice), field(t("speak.format"), format)), speed.element, asking, make("div", { class: "go split" }, withCast, go));
  const list = make("ul", { class: "readings", id: "readings" });
  const readingPart = make("section", { class: "card", hidden: true, "aria-labelledby": "readings-title" }, make("h2", { id: "readings-title" }, t("books.readings")), list);
  const body = make("div", { class: "stack", hidden: true }, readingPart, make("section", { class: "card", "aria-labelledby": "shelf-title" }, make("h2", { id: "shelf-title" }, t("books.shelf")), shelf, drop, adding), detail);
  root.append(make("div", { class: "narrow" }, make("h2", { class: "title" }, t("books.title")), make("p", { class: "lead" }, t("books.lead")), missing, problem, body));
  missing.hidden = true;

  async function load() {
    try {
      books = await listBooks();
      missing.hidden = books !== null; body.hidden = books === null;
      if (books === null) return;
      showShelf();
      await follow();
    } catch (error) { problem.show(error); }
  }

  async function add(file) {
    problem.clear();
    adding.textContent = t("books.adding", { name: file.name }); adding.classList.add("busy");
    try { const made = await send("/v1/audio/books", { file }); books = await listBooks(); showShelf(); await open(made.id); } catch (error) { problem.show(error); } finally { adding.textContent = ""; adding.classList.remove("busy"); }
  }

  function showShelf() {
    shelf.hidden = !books.length;
    shelf.replaceChildren(...books.map((one) => make("li", { class: one.id === book?.id ? "chosen" : "" },
      make("button", { type: "button", class: "choose", "aria-pressed": String(one.id === book?.id), onclick: () => open(one.id).catch(problem.show) }, make("strong", {}, one.title || one.name), make("span", {}, [one.author, t("books.about", { time: clock(one.seconds) })].filter(Boolean).join(" · "))),
      iconButton("bin", t("books.remove", { name: one.title || one.name }), async () => {
        if (!(await confirmed(t("books.removeTitle"), t("books.removeText", { name: one.title || one.name }), t("remove")))) return;
        try { await call(`/v1/audio/books/${one.id}`, { method: "DELETE" }); if (book?.id === one.id) { book = null; detail.hidden = true; } books = await listBooks(); showShelf(); } catch (error) { problem.show(error); }
      }))));
  }

  async function open(id) {
    book = await get(`/v1/audio/books/${id}`);
    chosen = new Set(book.chapters.filter((one) => one.part === "body").map((one) => one.number));
    if (!chosen.size) chosen = new Set(book.chapters.map((one) => one.number));
    detail.hidden = false;
    head.replaceChildren(make("h2", {}, book.title || book.name), make("p", { class: "hint" }, [book.author, book.language ? languageName(book.language) : "", size(book.bytes)].filter(Boolean).join(" · ")), book.left_out?.length ? make("details", { class: "more" }, make("summary", {}, t("books.leftOut", { count: book.left_out.length })), make("ul", { lang: "en" }, ...book.left_out.map((one) => make("li", {}, one)))) : "");
    cover.replaceChildren(icon("books"));
    if (book.has_cover) addressOf(`/v1/audio/books/${id}/cover`).then((src) => {
      const forget = () => URL.revokeObjectURL(src);
      if (book?.id === id) cover.replaceChildren(make("img", { src, alt: "", onload: forget, onerror: forget })); else forget();
    }, () => {});
    showShelf(); showChapters();
    detail.scrollIntoView({ block: "nearest" });
  }

  function showChapters() {
    const seconds = book.chapters.filter((one) => chosen.has(one.number)).reduce((sum, one) => sum + one.seconds, 0);
    all.checked = chosen.size === book.chapters.length; all.indeterminate = chosen.size > 0 && !all.checked;
    allRow.hidden = book.chapters.length < 2;
    chapters.replaceChildren(...book.chapters.map((one) => make("li", {}, make("label", { class: "check" },
      tick(one), make("span", { class: "name" }, one.title || t("books.chapter", { n: one.number })), make("span", { class: "hint" }, clock(one.seconds))))));
    total.textContent = t("books.total", { chapters: chosen.size, time: clock(seconds) });
    go.disabled = !chosen.size;
  }
  function tick(one) {
    const box = make("input", { type: "checkbox", onchange: () => { if (box.checked) chosen.add(one.number); else chosen.delete(one.number); showChapters(); [...chapters.querySelectorAll("input")][book.chapters.indexOf(one)].focus(); } });
    box.checked = chosen.has(one.number);
    return box;
  }

  detail.addEventListener("submit", async (event) => {
    event.preventDefault();
    asking.clear();
    const speaker = voiceOf(voice.value);
    if (!speaker) { asking.show(t("speak.noVoice")); return; }
    busy(go, true);
    try {
      await post("/v1/audio/readings", { book: book.id, chapters: ranges(chosen), format: format.value, voice: speaker.id, model: speaker.models[0], ...(speed.value !== 1 ? { speed: speed.value } : {}) });
      await follow();
      readingPart.scrollIntoView({ block: "start" });
    } catch (error) { asking.show(error); } finally { busy(go, false); }
  });

  // -- readings -----------------------------------------------------------------------------
  const players = new Map(); // id -> audio element: it plays on while the list is drawn anew
  const fetching = new Set(); // ids whose sound is on its way
  const playerOf = (one, src) => { const audio = make("audio", { controls: true, preload: "none", "aria-label": one.title, "data-focus": `play ${one.id}`, src }); players.set(one.id, audio); return audio; };
  function dropPlayer(id) {
    const audio = players.get(id);
    if (!audio) return;
    players.delete(id);
    audio.pause();
    URL.revokeObjectURL(audio.src);
  }
  // Where a key is asked for, an audiobook can only be fetched as a whole: not before somebody wants to hear it.
  async function hear(one, sound) {
    if (fetching.has(one.id)) return;
    fetching.add(one.id); redraw();
    try {
      const src = await addressOf(sound.url);
      if (!fetching.has(one.id)) { URL.revokeObjectURL(src); return; } // removed meanwhile
      const audio = playerOf(one, src);
      if (isShown) audio.play().catch(problem.show);
    } catch (error) { problem.show(error); } finally { fetching.delete(one.id); redraw(); }
  }
  async function follow() {
    clearTimeout(timer);
    try { readings = (await get("/v1/audio/readings")).data; showReadings(); } catch (error) { problem.show(error); }
    const works = readings.some((one) => ["queued", "running"].includes(one.status));
    if (isShown) timer = setTimeout(follow, works ? 1500 : 15000);
  }

  let drawn = "";
  const redraw = () => { drawn = ""; showReadings(); };
  function showReadings() {
    for (const id of [...players.keys(), ...fetching]) if (!readings.some((one) => one.id === id && one.status === "completed")) { fetching.delete(id); dropPlayer(id); }
    readingPart.hidden = !readings.length;
    const state = JSON.stringify(readings);
    if (state === drawn) return;
    drawn = state;
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    list.replaceChildren(...readings.map(drawReading));
    if (focused) list.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  }

  function drawReading(one) {
    const { progress, status } = one, works = status === "queued" || status === "running";
    const act = (name, key, work) => make("button", { type: "button", class: "small", "data-focus": `${key} ${one.id}`, onclick: async () => { try { await work(); } catch (error) { problem.show(error); } await follow(); } }, t(name));
    const ask = (verb) => post(`/v1/audio/readings/${one.id}/${verb}`);
    const left = progress.seconds_left !== null && progress.seconds_left !== undefined && works ? t("books.left", { time: clock(progress.seconds_left) }) : "";
    const parts = [t(`books.status.${status}`), status === "completed" ? "" : t("books.progress", { share: number(progress.share * 100) }), t("books.spoken", { time: clock(progress.seconds) }), left];
    const bar = make("progress", { max: "1", value: String(progress.share), "aria-label": t("books.progressOf", { name: one.title }) });
    const sound = one.files.find((file) => file.media_type.startsWith("audio/"));
    const isHeard = sound && status === "completed";
    if (isHeard && !hasKey() && !players.has(one.id)) playerOf(one, sound.url);
    const play = isHeard && !players.has(one.id) ? make("button", { type: "button", class: fetching.has(one.id) ? "small busy" : "small", "data-focus": `play ${one.id}`, "aria-label": `${t("play")}: ${one.title}`, onclick: () => hear(one, sound) }, icon("play"), t("play")) : null;
    return make("li", { "data-status": status }, make("strong", {}, one.title), make("p", { class: "hint" }, parts.filter(Boolean).join(" · ")), status === "completed" ? null : bar,
      progress.line && works ? make("p", { class: "line saying" }, progress.line) : null,
      one.error ? make("p", { class: "problem", lang: "en" }, one.error.message) : null,
      one.failed ? make("details", { class: "more" }, make("summary", {}, t("books.failed", { count: one.failed })), make("ul", { lang: "en" }, ...one.failures.map((fail) => make("li", {}, `${fail.text} – ${fail.reason}`)))) : null,
      status === "completed" ? players.get(one.id) : null,
      make("div", { class: "actions" }, play,
        ...(status === "completed" ? one.files.map((file) => make("button", { type: "button", class: "small", "data-focus": `${file.name} ${one.id}`, onclick: () => fetchFile(file).catch(problem.show) }, icon("download"), `${file.name} (${size(file.bytes)})`)) : []),
        works ? act("books.cancel", "cancel", () => ask("cancel")) : null,
        ["cancelled", "failed"].includes(status) ? act("books.resume", "resume", () => ask("resume")) : null,
        works ? null : act("remove", "remove", async () => { if (await confirmed(t("books.removeReading"), t("books.removeReadingText", { name: one.title }), t("remove"))) { await call(`/v1/audio/readings/${one.id}`, { method: "DELETE" }); } })));
  }

  return {
    shown() { isShown = true; load(); },
    hidden() { isShown = false; clearTimeout(timer); for (const audio of players.values()) audio.pause(); },
    refresh() { voice.refresh(); },
  };
}
