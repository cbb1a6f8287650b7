// Words of the interface in the user's language. Every key is in every file; a test holds them together.
export const LANGUAGES = { en: "English", de: "Deutsch", fr: "Français", es: "Español", ja: "日本語", zh: "中文" };
const STORED = "sonant-language";

function chosen() {
  let asked = null;
  try { asked = localStorage.getItem(STORED); } catch { /* no storage */ }
  const wanted = [asked, ...navigator.languages].filter(Boolean).map((one) => one.slice(0, 2).toLowerCase());
  return wanted.find((one) => one in LANGUAGES) ?? "en";
}

export const language = chosen();
export function useLanguage(code) { localStorage.setItem(STORED, code); location.reload(); }

const words = await (await fetch(`/static/i18n/${language}.json`)).json();
document.documentElement.lang = language;

// The words of a key, with {names} filled in.
export function t(key, values = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
export const has = (key) => key in words;

export const number = (value, digits = 0) => value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const seconds = (value) => (value === null || value === undefined ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : `${number(value, 1)} s`);
export const clock = (value) => {
  const whole = Math.max(0, Math.round(value)), hours = Math.floor(whole / 3600), rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(Math.floor(whole / 60) % 60).padStart(2, "0")}:${rest}` : `${Math.floor(whole / 60)}:${rest}`;
};
export const size = (bytes) => (!bytes ? "–" : bytes < 2 ** 20 ? `${number(Math.ceil(bytes / 1024))} KiB` : bytes >= 2 ** 30 ? `${number(bytes / 2 ** 30, 1)} GiB` : `${number(bytes / 2 ** 20, bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`);

// Models name languages in English; codes let the browser name them in the user's own.
const CODES = {
  english: "en", german: "de", french: "fr", spanish: "es", japanese: "ja", chinese: "zh", italian: "it", portuguese: "pt", russian: "ru", korean: "ko", hindi: "hi",
  cantonese: "yue", arabic: "ar", dutch: "nl", polish: "pl", turkish: "tr", vietnamese: "vi", thai: "th", indonesian: "id", greek: "el", swedish: "sv", danish: "da", finnish: "fi", hebrew: "he", malay: "ms", norwegian: "no", swahili: "sw",
};
export const codeOf = (name) => CODES[name?.toLowerCase()] ?? name?.toLowerCase() ?? "";
const names = new Intl.DisplayNames([language], { type: "language" });
export function languageName(name) {
  try { return names.of(codeOf(name)); } catch { return name; }
}

// What a voice says when it is tried, and what a person reads for a new one.
const SENTENCES = {
  en: ["Good morning. This is what I sound like when I read to you.", "The rainbow is a division of white light into many beautiful colours. It takes the shape of a long round arch, with its path high above, and its two ends beyond the horizon.", "On Sundays we walk along the river, past the old mill, and sit on the wall until the sun goes down. Nobody talks much, and nobody minds."],
  de: ["Guten Morgen. So klinge ich, wenn ich dir etwas vorlese.", "Sonntags gehen wir am Fluss entlang, an der alten Mühle vorbei, und sitzen auf der Mauer, bis die Sonne untergeht. Niemand redet viel, und niemanden stört es."],
  fr: ["Bonjour. Voilà comment je parle quand je lis pour vous.", "Le dimanche, nous marchons le long de la rivière, derrière le vieux moulin, et nous restons assis sur le mur jusqu'au coucher du soleil. Personne ne parle beaucoup."],
  es: ["Buenos días. Así sueno cuando leo para ti.", "Los domingos caminamos junto al río, más allá del viejo molino, y nos sentamos en el muro hasta que se pone el sol. Nadie habla mucho, y a nadie le importa."],
  ja: ["おはようございます。わたしはこんな声で読みます。", "日曜日には川沿いを歩いて、古い水車小屋を過ぎ、日が沈むまで石垣に座っています。だれもあまり話しませんが、それでいいのです。"],
  zh: ["早上好。这就是我朗读时的声音。", "星期天我们沿着河边散步，经过老磨坊，坐在石墙上一直到太阳落山。大家话都不多，谁也不在意。"],
  it: ["Buongiorno. Ecco come suono quando leggo per te."], pt: ["Bom dia. É assim que eu soo quando leio para você."], ru: ["Доброе утро. Вот так звучит мой голос."], ko: ["안녕하세요. 제가 읽을 때는 이런 목소리입니다."], hi: ["सुप्रभात। मैं पढ़ते समय ऐसा सुनाई देता हूँ।"],
};
export const sampleOf = (name) => (SENTENCES[codeOf(name)] ?? SENTENCES.en)[0];
export const readings = (code) => (SENTENCES[code] ?? SENTENCES.en).slice(1);
export const READABLE = Object.keys(SENTENCES).filter((code) => SENTENCES[code].length > 1);
