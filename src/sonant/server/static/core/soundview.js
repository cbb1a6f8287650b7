// A sound on the page: its words, lit while they are said, its waveform with a play head, play and seek.
import { iconButton, icon, make } from "./dom.js";
import { clock, t } from "./i18n.js";
import { Player } from "./player.js";
import { Peaks, drawWave } from "./sound.js";

const views = new Set();
export const redrawAll = () => { for (const view of views) view.draw(); };

export class SoundView {
  constructor({ label, hasWords = false, compact = false, onchange = () => {} }) {
    this.player = new Player(); this.words = []; this.spans = []; this.peaks = new Peaks(24000); this.lit = -1;
    this.player.onchange = () => { this.#show(); onchange(); };
    this.text = make("div", { class: "words", role: "group", "aria-label": t("sound.words"), tabindex: "0", hidden: !hasWords });
    this.canvas = make("canvas", { class: "wave", role: "slider", tabindex: "0", "aria-label": t("sound.position", { label }), "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0" });
    this.button = iconButton("play", t("play"), () => this.toggle(), { class: "icon-button round", disabled: true });
    this.name = label;
    this.time = make("span", { class: "clock" }, "0:00");
    this.element = make("div", { class: compact ? "sound compact" : "sound" }, this.text, make("div", { class: "transport" }, this.button, this.canvas, this.time));
    this.#bindSeeking();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.canvas);
    views.add(this);
    this.#show();
  }

  get playing() { return this.player.playing; }
  get samples() { return this.player.samples(); }
  get rate() { return this.player.rate; }

  // A sound that will come piece by piece; call from a click.
  async wake() { await this.player.wake(); }
  begin(rate) { this.player.reset(rate); this.peaks = new Peaks(rate); this.setWords([]); this.player.begin(); }
  add(samples) { this.peaks.add(samples); this.player.add(samples); this.#run(); }
  complete() { this.player.complete(); this.draw(); }

  load(samples, rate, words = []) {
    this.peaks = new Peaks(rate); this.peaks.add(samples);
    this.player.load(samples, rate); this.setWords(words); this.draw();
  }

  clear() { this.player.reset(24000); this.peaks = new Peaks(24000); this.setWords([]); this.#show(); this.draw(); }

  setWords(words) { this.words = []; this.spans = []; this.lit = -1; this.text.replaceChildren(); this.addWords(words); }

  addWords(words) {
    for (const word of words) {
      const span = make("span", { onclick: () => { this.player.seek(word.start); if (!this.playing) this.player.play(word.start); } }, word.written);
      this.words.push(word); this.spans.push(span); this.text.append(span);
    }
  }

  async play(from) { await this.player.play(from); }
  toggle() { if (this.playing) this.player.pause(); else this.player.play(); }
  stop() { if (this.playing) this.player.pause(); }
  // For a view that goes while its page stays.
  drop() { this.player.stop(); this.observer.disconnect(); views.delete(this); }

  #show() {
    const there = this.player.length > 0, name = this.playing ? "pause" : "play";
    this.button.disabled = !there;
    this.button.replaceChildren(icon(name));
    const said = `${t(name)}: ${this.name}`;
    this.button.setAttribute("aria-label", said); this.button.title = t(name);
    this.#run(); this.draw();
  }

  #running = false;
  #run() {
    if (this.#running || !this.playing) return;
    this.#running = true;
    let last = 0;
    const step = (now) => {
      if (now - last > 40) { this.draw(); last = now; }
      if (this.playing) requestAnimationFrame(step);
      else { this.#running = false; this.draw(); }
    };
    requestAnimationFrame(step);
  }

  draw() {
    if (!this.canvas.isConnected || !this.canvas.clientWidth) return;
    const place = this.player.position, total = this.player.seconds;
    drawWave(this.canvas, this.peaks, total ? place / total : null);
    this.time.textContent = total ? `${clock(place)} / ${clock(total)}` : "0:00";
    this.canvas.setAttribute("aria-valuemax", total.toFixed(1)); this.canvas.setAttribute("aria-valuenow", place.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", t("sound.place", { place: place.toFixed(1), total: total.toFixed(1) }));
    this.#light(this.playing || place > 0 ? place : -1);
  }

  #light(place) {
    let at = -1;
    if (place >= 0) for (let n = 0; n < this.words.length && this.words[n].start <= place; n++) at = n;
    if (at === this.lit) return;
    this.spans[this.lit]?.classList.remove("said");
    this.spans[at]?.classList.add("said");
    this.lit = at;
    const span = this.spans[at], box = this.text;
    if (span && box.scrollHeight > box.clientHeight) box.scrollTop = span.offsetTop - box.offsetTop - box.clientHeight / 2;
  }

  #bindSeeking() {
    const to = (event) => { const box = this.canvas.getBoundingClientRect(); this.player.seek(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * this.player.seconds); this.draw(); };
    this.canvas.addEventListener("pointerdown", (event) => { if (this.player.length) { this.canvas.setPointerCapture(event.pointerId); to(event); } });
    this.canvas.addEventListener("pointermove", (event) => { if (this.canvas.hasPointerCapture(event.pointerId)) to(event); });
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -5, PageUp: 5 }[event.key];
      if (step) this.player.seek(this.player.position + step);
      else if (event.key === "Home") this.player.seek(0);
      else if (event.key === "End") this.player.seek(this.player.seconds);
      else if (event.key === " " || event.key === "Enter") { if (event.ctrlKey || event.metaKey) return; this.toggle(); }
      else return;
      event.preventDefault(); event.stopPropagation(); this.draw();
    });
  }
}

// Words with what the text writes after each: its punctuation and blanks, from the text they were read from.
export function written(words, text) {
  let at = 0;
  const places = words.map((word) => { const found = text.indexOf(word.word, at); if (found >= 0) at = found + word.word.length; return found; });
  return words.map((word, n) => {
    const next = places[n + 1] ?? -1, here = places[n];
    const plain = /[\u3040-\u30ff\u3400-\u9fff]$/.test(word.word) ? word.word : `${word.word} `;
    if (here < 0) return { ...word, written: plain };
    const end = n + 1 === words.length ? text.length : next;
    return { ...word, written: end > here && end - here < word.word.length + 40 ? text.slice(here, end) : plain };
  });
}
