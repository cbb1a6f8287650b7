// Books and readings of the server, and the voice that a list offers: what Books and Cast share.
import { call, get, hasKey } from "./api.js";
import { aboutVoice, catalogue } from "./catalogue.js";
import { make, save, select } from "./dom.js";
import { t } from "./i18n.js";

// The books, or null where the server has no such route.
export async function listBooks() {
  try { return (await get("/v1/audio/books")).data; } catch (error) { if (error.status === 404 || error.status === 405) return null; throw error; }
}

export const noShelf = () => make("p", { class: "notice" }, t("books.noRoute"));
export const FORMATS = ["m4b", "mp3", "opus", "flac", "wav"];
export const BOOK_TYPES = ".epub,.docx,.pdf,.txt,.md,.html,.htm,.srt,.vtt";

export function voiceSelect(value, onchange, standard) {
  const choices = () => [...(standard ? [["", standard]] : []), ...catalogue.voices.filter((voice) => ["preset", "stored"].includes(voice.kind)).map((voice) => [voice.key, `${voice.title}${aboutVoice(voice) ? ` (${aboutVoice(voice)})` : ""}`])];
  const element = select(choices(), value, onchange);
  element.refresh = () => element.fill(choices());
  return element;
}
export const voiceOf = (key) => catalogue.voices.find((voice) => voice.key === key) ?? null;

// A file of the server as an address that this page may use, to be revoked when done with; with a key it is fetched first.
export async function addressOf(url) { return hasKey() ? URL.createObjectURL(await (await call(url)).blob()) : url; }
export async function fetchFile(file) {
  if (hasKey()) save(await (await call(file.url)).blob(), file.name);
  else make("a", { href: file.url, download: file.name }).click();
}

// Chapter numbers as "1,3-5".
export function ranges(numbers) {
  const parts = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && number === last[1] + 1) last[1] = number; else parts.push([number, number]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(",");
}
