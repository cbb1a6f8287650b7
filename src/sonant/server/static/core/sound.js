// Samples: wav files, pictures of sound, captions. No page elements but canvases.

export function wavBytes(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const word = (at, text) => [...text].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  word(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); word(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  word(36, "data"); view.setUint32(40, 2 * samples.length, true);
  for (let i = 0; i < samples.length; i++) {
    view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(samples[i] * 32768))), true);
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}

export function joined(pieces) {
  const whole = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) { whole.set(piece, at); at += piece.length; }
  return whole;
}

function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  return [canvas.getContext("2d"), width, height];
}

// Peaks of a growing sound: [low, high] for every 10 ms, so that drawing does not touch all samples.
export class Peaks {
  constructor(rate) { this.step = Math.round(rate / 100); this.low = []; this.high = []; this.rest = new Float32Array(0); }
  add(samples) {
    const all = joined([this.rest, samples]);
    let at = 0;
    for (; at + this.step <= all.length; at += this.step) {
      let low = 0, high = 0;
      for (let i = at; i < at + this.step; i++) { if (all[i] < low) low = all[i]; if (all[i] > high) high = all[i]; }
      this.low.push(low); this.high.push(high);
    }
    this.rest = all.slice(at);
  }
}

// Rounded bars; what was played already in the accent colour.
export function drawWave(canvas, peaks, position = null) {
  const [brush, width, height] = fitted(canvas);
  const style = getComputedStyle(document.documentElement), ratio = window.devicePixelRatio || 1;
  const bar = 3 * ratio, gap = 2 * ratio, bars = Math.floor(width / (bar + gap)), count = peaks.low.length;
  brush.clearRect(0, 0, width, height);
  const quiet = style.getPropertyValue("--wave"), loud = style.getPropertyValue("--accent");
  for (let n = 0; n < bars && count; n++) {
    const from = Math.floor((n * count) / bars), to = Math.max(from + 1, Math.floor(((n + 1) * count) / bars));
    let most = 0;
    for (let i = from; i < to && i < count; i++) most = Math.max(most, peaks.high[i], -peaks.low[i]);
    const tall = Math.max(bar, most * 0.96 * height), place = n / bars;
    brush.fillStyle = position !== null && place <= position ? loud : quiet;
    brush.beginPath();
    brush.roundRect(n * (bar + gap), (height - tall) / 2, bar, tall, bar / 2);
    brush.fill();
  }
  if (position !== null && count) {
    brush.fillStyle = style.getPropertyValue("--ink");
    brush.fillRect(Math.min(width - 2 * ratio, position * width), 0, 1.5 * ratio, height);
  }
}

const SIZE = 512, BANDS = 96;
const WINDOW = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));

function spectrum(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { [real[i], real[j]] = [real[j], real[i]]; }
  }
  for (let length = 2; length <= SIZE; length <<= 1) {
    const angle = (-2 * Math.PI) / length;
    for (let k = 0; k < length / 2; k++) {
      const c = Math.cos(angle * k), s = Math.sin(angle * k);
      for (let i = k; i < SIZE; i += length) {
        const j = i + length / 2;
        const r = real[j] * c - imaginary[j] * s, m = real[j] * s + imaginary[j] * c;
        real[j] = real[i] - r; imaginary[j] = imaginary[i] - m; real[i] += r; imaginary[i] += m;
      }
    }
  }
}

// Columns of a growing spectrogram, 50 a second, mel-spaced bands, -80..0 dB as 0..255.
export class Spectrogram {
  constructor(rate) {
    this.hop = Math.round(rate / 50); this.columns = []; this.rest = new Float32Array(0);
    const mel = (hz) => 2595 * Math.log10(1 + hz / 700), hz = (m) => 700 * (10 ** (m / 2595) - 1);
    const top = mel(Math.min(rate / 2, 11000));
    this.edges = Array.from({ length: BANDS + 1 }, (_, i) => (hz((top * i) / BANDS) * SIZE) / rate);
  }
  add(samples) {
    const all = joined([this.rest, samples]);
    const real = new Float32Array(SIZE), imaginary = new Float32Array(SIZE);
    let at = 0;
    for (; at + SIZE <= all.length; at += this.hop) {
      imaginary.fill(0);
      for (let i = 0; i < SIZE; i++) real[i] = all[at + i] * WINDOW[i];
      spectrum(real, imaginary);
      const column = new Uint8Array(BANDS);
      for (let b = 0; b < BANDS; b++) {
        const from = Math.floor(this.edges[b]), to = Math.max(from + 1, Math.floor(this.edges[b + 1]));
        let power = 1e-12;
        for (let i = from; i < to; i++) power = Math.max(power, (real[i] ** 2 + imaginary[i] ** 2) / (SIZE * SIZE / 16));
        column[b] = Math.max(0, Math.min(255, (10 * Math.log10(power) + 80) * 3.2));
      }
      this.columns.push(column);
    }
    this.rest = all.slice(at);
  }
}

const STOPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];
const COLOURS = Array.from({ length: 256 }, (_, v) => {
  const place = (v / 255) * (STOPS.length - 1), i = Math.min(STOPS.length - 2, Math.floor(place)), part = place - i;
  return STOPS[i].map((c, k) => Math.round(c + (STOPS[i + 1][k] - c) * part));
});

export function drawSpectrogram(canvas, picture) {
  const [brush, width, height] = fitted(canvas);
  brush.fillStyle = "#000004";
  brush.fillRect(0, 0, width, height);
  const count = picture.columns.length;
  if (!count) return;
  const columns = Math.min(width, count), image = new ImageData(columns, BANDS);
  for (let x = 0; x < columns; x++) {
    const column = picture.columns[Math.floor((x * count) / columns)];
    for (let b = 0; b < BANDS; b++) {
      const at = ((BANDS - 1 - b) * columns + x) * 4, colour = COLOURS[column[b]];
      image.data[at] = colour[0]; image.data[at + 1] = colour[1]; image.data[at + 2] = colour[2]; image.data[at + 3] = 255;
    }
  }
  const small = new OffscreenCanvas(columns, BANDS);
  small.getContext("2d").putImageData(image, 0, 0);
  brush.imageSmoothingEnabled = true;
  brush.drawImage(small, 0, 0, width, height);
}

const stamp = (value, mark) => {
  const whole = Math.round(value * 1000), two = (n) => String(n).padStart(2, "0");
  return `${two(Math.floor(whole / 3600000))}:${two(Math.floor(whole / 60000) % 60)}:${two(Math.floor(whole / 1000) % 60)}${mark}${String(whole % 1000).padStart(3, "0")}`;
};

// Subtitles of words with their times: lines of at most 84 letters and 7 s, which end with a sentence.
export function captions(words, form) {
  const cues = [];
  for (const word of words) {
    const cue = cues.at(-1);
    const isFull = !cue || cue.text.length + word.written.length > 84 || word.end - cue.start > 7 || /[.!?…。！？]/.test(cue.last);
    if (isFull) cues.push({ text: word.written, start: word.start, end: word.end, last: word.written });
    else { cue.text += word.written; cue.end = word.end; cue.last = word.written; }
  }
  const mark = form === "srt" ? "," : ".";
  const blocks = cues.map((cue, at) => `${form === "srt" ? `${at + 1}\n` : ""}${stamp(cue.start, mark)} --> ${stamp(cue.end, mark)}\n${cue.text.trim().replace(/\s+/g, " ").replaceAll("-->", "→")}\n`);
  return (form === "srt" ? "" : "WEBVTT\n\n") + blocks.join("\n");
}

// How loud speech is: dB of its loud frames, and how far its quiet ones lie below.
export function levels(samples, rate) {
  const frame = Math.max(1, Math.round(rate / 50)), found = [];
  let peak = 0;
  for (let at = 0; at + frame <= samples.length; at += frame) {
    let power = 0;
    for (let i = at; i < at + frame; i++) { power += samples[i] ** 2; peak = Math.max(peak, Math.abs(samples[i])); }
    found.push(10 * Math.log10(power / frame + 1e-10));
  }
  found.sort((a, b) => a - b);
  const at = (part) => found[Math.floor(part * (found.length - 1))] ?? -100;
  return { loud: at(0.9), floor: at(0.1), peak: 20 * Math.log10(peak + 1e-5) };
}

// The samples of a file as this browser reads it, mixed to one channel; null where it cannot.
export async function decoded(blob) {
  const context = new OfflineAudioContext(1, 1, 48000);
  try {
    const sound = await context.decodeAudioData(await blob.arrayBuffer());
    const samples = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; channel++) sound.getChannelData(channel).forEach((value, i) => { samples[i] += value / sound.numberOfChannels; });
    return { samples, rate: sound.sampleRate };
  } catch { return null; }
}
