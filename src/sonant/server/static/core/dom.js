// Elements, icons, and small pieces that every page uses.
import { t } from "./i18n.js";

// An element: `onclick` and its like are listeners, true and false are attributes there or not, null is left out.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const PATHS = {
  speak: "M4 10v4M8 6v12M12 3v18M16 7v10M20 10v4",
  clone: "M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM5 11a7 7 0 0 0 14 0M12 18v3",
  design: "M4 20l4-1L19 8a2 2 0 0 0-3-3L5 16zM14 7l3 3",
  cast: "M9 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM3 20a6 6 0 0 1 12 0M16 5.500a3 3 0 0 1 0 5M17.500 14.500A6 6 0 0 1 21 20",
  books: "M4 5.500A2.500 2.500 0 0 1 6.500 3H20v15H6.500A2.500 2.500 0 0 0 4 20.500zM4 20.500A.500.500 0 0 0 4.500 21H20M9 8h6",
  compare: "M9 4v16M15 4v16M4 8h5M4 12h5M4 16h5M15 8h5M15 12h5M15 16h5",
  server: "M4 5h16v5H4zM4 14h16v5H4zM7.500 7.500h.010M7.500 16.500h.010",
  play: "M8 5l11 7-11 7z", pause: "M8 5v14M16 5v14", stop: "M7 7h10v10H7z",
  heart: "M12 20S4 15 4 9.500A4.300 4.300 0 0 1 12 7a4.300 4.300 0 0 1 8 2.500C20 15 12 20 12 20z",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14", edit: "M4 20l4-1L19 8a2 2 0 0 0-3-3L5 16z", bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  plus: "M12 5v14M5 12h14", check: "M5 12.500l4.500 4.500L19 7.500", sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600L19 19M19 5l-1.400 1.400M6.400 17.600L5 19",
  key: "M15 9a4 4 0 1 0-3.500 4L9 15.500V18H6.500v2.500H4V18l6-6", upload: "M12 16V5M7 9l5-5 5 5M5 20h14", close: "M6 6l12 12M18 6L6 18", again: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
};
export function icon(name, filled = false) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24"); svg.setAttribute("aria-hidden", "true"); svg.setAttribute("class", filled || name === "play" || name === "stop" ? "icon full" : "icon");
  path.setAttribute("d", PATHS[name]); svg.append(path);
  return svg;
}

export const iconButton = (name, label, onclick, more = {}) => make("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...more }, icon(name));

let fields = 0;
// A label over its control; `hint` stands below and is read with it.
export function field(label, control, hint) {
  control.id ||= `field-${++fields}`;
  const note = hint ? make("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return make("div", { class: "field" }, make("label", { for: control.id }, label), control, note);
}

export function select(choices, value, onchange) {
  const element = make("select", onchange ? { onchange: () => onchange(element.value) } : {});
  const fill = (list) => element.replaceChildren(...list.map(([key, text]) => make("option", { value: key }, text)));
  fill(choices);
  if (value !== undefined && choices.some(([key]) => key === value)) element.value = value;
  element.fill = (list, keep = element.value) => { fill(list); if (list.some(([key]) => key === keep)) element.value = keep; };
  return element;
}

// A line for what went wrong. What the server says is in English.
export function problemLine() {
  const line = make("p", { class: "problem", role: "alert", hidden: true });
  line.show = (error) => {
    if (error?.name === "AbortError") return;
    line.textContent = error instanceof Error ? error.message : error ?? "";
    line.toggleAttribute("hidden", !line.textContent);
    if (error?.status) line.lang = "en"; else line.removeAttribute("lang");
    if (error?.status === 401) document.dispatchEvent(new CustomEvent("sonant-key"));
  };
  line.clear = () => line.show(null);
  return line;
}

// Asks in a dialog; resolves to true for yes.
export function confirmed(title, text, yes) {
  return new Promise((resolve) => {
    const dialog = make("dialog", { "aria-label": title }, make("form", { method: "dialog" }, make("h2", {}, title), make("p", {}, text),
      make("div", { class: "actions" }, make("button", { value: "yes", class: "danger" }, yes), make("button", { value: "no" }, t("keep")))));
    dialog.addEventListener("close", () => { resolve(dialog.returnValue === "yes"); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A place to drop or choose a file.
export function dropZone(label, accept, take) {
  const input = make("input", { type: "file", accept, onchange: () => { if (input.files[0]) take(input.files[0]); input.value = ""; } });
  const zone = make("label", { class: "drop" }, icon("upload"), make("span", {}, label), input);
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.remove("over"); });
  zone.addEventListener("drop", (event) => { if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]); });
  return zone;
}

export function busy(button, is) { button.disabled = is; button.classList.toggle("busy", is); }

export function debounced(work, wait) {
  let timer = 0;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), wait); };
}
