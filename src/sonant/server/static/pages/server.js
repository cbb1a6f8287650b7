// Server: is it well, which models are in memory, who waits, which key is used, and what was asked of it lately.
import { hasKey, post, setKey } from "../core/api.js";
import { catalogue, titleOf } from "../core/catalogue.js";
import { languageName, number, seconds, size, t } from "../core/i18n.js";
import { make, problemLine } from "../core/dom.js";

const ABLE = ["clone", "preset_voice", "voice_mixing", "voice_design", "instruction", "emotion_vector", "emotion_audio", "emotion_text", "voice_conversion", "pronunciation"];

export function mount(root, app) {
  const problem = problemLine();
  const figures = make("dl", { class: "figures large" }), memory = make("div", { class: "memory" });
  const models = make("ul", { class: "models", id: "models" });
  const keyText = make("p", {}), keyButton = make("button", { type: "button", id: "key-button", onclick: () => app.askKey() }, t("key.enter"));
  const forget = make("button", { type: "button", class: "quiet", onclick: () => { setKey(""); location.reload(); } }, t("key.forget"));
  const recent = make("tbody", {}), none = make("p", { class: "hint" }, t("server.noRequests"));
  const table = make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": t("server.requests") }, make("table", { id: "requests" }, make("thead", {}, make("tr", {}, ...["time", "voice", "model", "outcome", "first", "length"].map((name) => make("th", { scope: "col" }, t(`server.col.${name}`))))), recent));
  root.append(make("div", { class: "narrow wide" }, make("h2", { class: "title" }, t("server.title")), problem,
    make("section", { class: "card", "aria-label": t("server.now") }, figures, memory),
    make("section", { class: "card", "aria-labelledby": "models-title" }, make("h2", { id: "models-title" }, t("server.models")), models),
    make("section", { class: "card", "aria-labelledby": "keys-title" }, make("h2", { id: "keys-title" }, t("server.keys")), keyText, make("div", { class: "actions" }, keyButton, forget)),
    make("section", { class: "card", "aria-labelledby": "requests-title" }, make("h2", { id: "requests-title" }, t("server.requests")), none, table),
    make("p", { class: "hint" }, make("a", { href: "/docs" }, t("server.api")))));

  // What a model can do, in a person's words.
  function about(id) {
    const spec = catalogue.models.get(id)?.spec;
    if (!spec) return "";
    const able = ABLE.filter((one) => spec.capabilities.includes(one)).map((one) => t(`able.${one}`));
    const tongues = spec.languages.length > 3 ? t("voice.languages", { count: spec.languages.length }) : spec.languages.map(languageName).join(", ");
    return [tongues, ...able].filter(Boolean).join(" · ");
  }

  const busyModels = new Set();
  let drawn = "";
  function show(status) {
    if (root.hidden) return;
    const speaking = status.models.reduce((sum, model) => sum + model.running, 0), waiting = status.models.reduce((sum, model) => sum + model.waiting, 0);
    const told = [[t("server.state"), t(status.ready ? "server.ready" : "server.notReady")], [t("server.speaking"), speaking], [t("server.waiting"), waiting], [t("server.memory"), size(status.resident_bytes)], [t("server.version"), status.version]];
    figures.replaceChildren(...told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
    const used = status.models.reduce((sum, model) => sum + model.bytes, 0);
    memory.hidden = !status.memory_limit;
    if (status.memory_limit) {
      const bar = make("progress", { max: String(status.memory_limit), value: String(used), "aria-label": t("server.modelMemory") });
      memory.replaceChildren(make("p", { class: "hint" }, t("server.ofLimit", { used: size(used), limit: size(status.memory_limit) })), bar);
    }
    if (status.problem) problem.show(status.problem);
    const state = JSON.stringify([status.models, [...busyModels]]);
    if (state !== drawn) {
      drawn = state;
      const focused = models.contains(document.activeElement) ? document.activeElement.dataset.model : null;
      models.replaceChildren(...status.models.map((model) => {
        const isIn = model.state === "loaded", isBusy = model.state === "loading" || busyModels.has(model.id);
        const spec = catalogue.models.get(model.id)?.spec;
        const queue = isIn ? t("server.queue", { running: model.running, slots: model.slots, waiting: model.waiting, limit: model.queue_limit }) : "";
        return make("li", {}, make("div", { class: "what" }, make("strong", {}, titleOf(model.id)), make("p", { class: "hint" }, about(model.id)),
          make("p", { class: "hint" }, [t(`server.${isBusy ? "loading" : isIn ? "loaded" : "unloaded"}`), isIn ? size(model.bytes) : "", queue].filter(Boolean).join(" · ")),
          spec && (spec.licence || spec.note) ? make("details", { class: "more" }, make("summary", {}, t("details.title")), make("p", { class: "hint", lang: "en" }, [spec.note, catalogue.models.get(model.id).about, spec.licence].filter(Boolean).join(" · "))) : null),
          make("button", { type: "button", class: isBusy ? "busy" : "", "data-model": model.id, disabled: isBusy, "aria-label": t(isIn ? "server.unloadName" : "server.loadName", { name: titleOf(model.id) }), onclick: () => toggle(model.id, isIn) }, t(isIn ? "server.unload" : "server.load")));
      }));
      if (focused) models.querySelector(`[data-model="${CSS.escape(focused)}"]`)?.focus();
    }
    const { is_asked: isAsked, rights } = status.key;
    keyText.textContent = isAsked ? t("key.rights", { rights: rights.map((right) => t(`right.${right}`)).join(", ") }) : t("key.none");
    keyButton.hidden = !isAsked; forget.hidden = !hasKey();
    const all = [...status.running, ...status.recent];
    none.hidden = all.length > 0; table.hidden = !all.length;
    recent.replaceChildren(...all.map((record) => make("tr", {}, make("td", {}, new Date(record.started_at * 1000).toLocaleTimeString(document.documentElement.lang)), make("td", {}, record.voice || "–"), make("td", {}, titleOf(record.model)),
      make("td", {}, record.outcome === "ok" ? t("server.ok") : record.outcome === "running" ? t("server.running") : record.outcome === "client_gone" || record.outcome === "cancelled" ? t("server.stopped") : record.outcome.replaceAll("_", " ")),
      make("td", {}, seconds(record.first_audio)), make("td", {}, `${number(record.audio_seconds, 1)} s`))));
  }

  async function toggle(id, isIn) {
    problem.clear();
    busyModels.add(id); if (app.status) show(app.status);
    try { await post(`/v1/models/${encodeURIComponent(id)}/${isIn ? "unload" : "load"}`); await app.refresh(); } catch (error) { problem.show(error); }
    busyModels.delete(id);
    await app.look();
  }

  app.watch(show);
  return { shown() { drawn = ""; if (app.status) show(app.status); app.look(); } };
}
