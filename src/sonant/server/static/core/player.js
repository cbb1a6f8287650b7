// Plays samples while they arrive, and again afterwards.
import { joined } from "./sound.js";

let speaking = null; // one sound at a time on a page
let context = null; // and one way to the loudspeaker: browsers lend only a few

export class Player {
  constructor() { this.onchange = () => {}; this.reset(24000); }

  reset(rate) {
    this.stop();
    this.rate = rate; this.pieces = []; this.length = 0; this.isComplete = false; this.offset = 0;
    this.next = 0; this.sources = new Set(); this.playing = false; this.begun = 0;
  }

  // Must be called from a click or key press once, before the first sound. Without a loudspeaker Firefox never wakes: what is
  // spoken is made and kept all the same.
  async wake() {
    context ??= new AudioContext();
    if (context.state === "suspended") await Promise.race([context.resume(), new Promise((done) => { setTimeout(done, 1000); })]);
  }

  // From now on samples sound as they come.
  begin() { this.#alone(); this.playing = true; this.offset = 0; this.begun = null; this.onchange(); }

  // Samples from the network: kept, and scheduled behind what already sounds.
  add(samples) {
    this.pieces.push(samples); this.length += samples.length;
    if (!this.playing) return;
    const now = context.currentTime;
    if (this.begun === null) { this.begun = now + 0.05; this.next = this.begun; }
    if (this.next < now) { this.begun += now + 0.05 - this.next; this.next = now + 0.05; } // ran dry: wait a moment
    this.#schedule(samples, this.next);
    this.next += samples.length / this.rate;
  }

  complete() { this.isComplete = true; if (this.begun === null) this.playing = false; this.#watch(); this.onchange(); }

  #schedule(samples, when) {
    if (!samples.length) return;
    const buffer = context.createBuffer(1, samples.length, this.rate);
    buffer.copyToChannel(samples, 0);
    const source = context.createBufferSource();
    source.buffer = buffer; source.connect(context.destination); source.start(when);
    this.sources.add(source);
    source.onended = () => { this.sources.delete(source); this.#watch(); };
  }

  #watch() {
    if (this.playing && this.isComplete && !this.sources.size) { this.playing = false; this.offset = 0; this.onchange(); }
  }

  get seconds() { return this.length / this.rate; }

  get position() {
    if (!this.playing || this.begun === null || !context) return this.offset;
    return Math.max(0, Math.min(this.seconds, context.currentTime - this.begun));
  }

  samples() { if (this.pieces.length > 1) this.pieces = [joined(this.pieces)]; return this.pieces[0] ?? new Float32Array(0); }

  async play(from = this.offset) {
    await this.wake();
    this.#alone();
    this.#silence();
    const all = this.samples();
    const start = Math.min(all.length, Math.max(0, Math.round(from * this.rate)));
    this.playing = true;
    this.begun = context.currentTime + 0.02 - start / this.rate;
    this.next = context.currentTime + 0.02;
    this.#schedule(all.subarray(start), this.next);
    this.next += (all.length - start) / this.rate;
    this.onchange(); this.#watch();
  }

  #alone() { if (speaking !== this && speaking?.playing) speaking.pause(); speaking = this; }

  load(samples, rate) { this.reset(rate); this.pieces = [samples]; this.length = samples.length; this.isComplete = true; this.onchange(); }

  pause() { this.offset = this.position; this.#silence(); this.playing = false; this.onchange(); }

  seek(seconds) { if (this.playing) this.play(seconds); else { this.offset = Math.max(0, Math.min(this.seconds, seconds)); this.onchange(); } }

  #silence() { for (const source of this.sources ?? []) { source.onended = null; try { source.stop(); } catch { /* not started */ } } this.sources = new Set(); }

  stop() { this.#silence(); this.playing = false; this.offset = 0; if (speaking === this) speaking = null; }
}
