// Every request to the server.

const kept = () => { try { return sessionStorage.getItem("sonant-key") ?? ""; } catch { return ""; } };
let key = kept();
export const hasKey = () => key !== "";
export const setKey = (value) => { key = value.trim(); try { sessionStorage.setItem("sonant-key", key); } catch { /* for this page only */ } };

export class ApiError extends Error {
  constructor(status, error) { super(error?.message ?? `The server answered ${status}.`); this.status = status; this.code = error?.code; this.param = error?.param; }
}

export async function call(path, { method = "GET", json, form, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, signal, body: json !== undefined ? JSON.stringify(json) : form });
  if (!answer.ok) {
    let error = null;
    try { error = (await answer.json()).error; } catch { /* not JSON */ }
    throw new ApiError(answer.status, error);
  }
  return answer;
}

export const get = async (path, signal) => (await call(path, { signal })).json();
export const post = async (path, json, signal) => (await call(path, { method: "POST", json, signal })).json();
export const formOf = (values) => {
  const form = new FormData();
  for (const [name, value] of Object.entries(values)) {
    if (value instanceof Blob) form.set(name, value, value.name ?? "clip.wav");
    else if (value !== null && value !== undefined && value !== "") form.set(name, value);
  }
  return form;
};
export const send = async (path, values, signal) => (await call(path, { method: "POST", form: formOf(values), signal })).json();

// Speaks: onstart({rate, id, seed, voice}), then onsamples(Float32Array) and onwords([...]) as they come; gives {guards, rtf}.
export async function speak(body, { signal, onstart, onsamples, onwords = () => {} }) {
  const asked = { ...body, response_format: "pcm", stream_format: "sse", timestamps: "word" };
  const answer = await call("/v1/audio/speech", { method: "POST", json: asked, signal });
  const head = (name) => answer.headers.get(name);
  const id = head("X-Request-Id");
  onstart({ rate: Number(head("X-Sample-Rate")) || 24000, id, seed: Number(head("X-Sonant-Seed")), voice: decodeURIComponent(head("X-Sonant-Voice") ?? "") });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", odd = new Uint8Array(0), guards = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const text = event.replace(/^data: /, "");
      if (text === "[DONE]") continue;
      const told = JSON.parse(text);
      if (told.type === "speech.audio.delta") {
        const bytes = joinedBytes(odd, fromBase64(told.audio)), even = bytes.length - (bytes.length % 2);
        odd = bytes.subarray(even);
        if (even) onsamples(samplesOf(bytes.slice(0, even).buffer));
      } else if (told.type === "speech.audio.words") onwords(told.words);
      else if (told.type === "speech.audio.error") throw new ApiError(500, told.error);
      else if (told.type === "speech.audio.done") guards = told.guards;
    }
  }
  if (guards === null) throw new ApiError(0, { message: "The connection broke off before the end." });
  const { rtf } = await get(`/v1/requests/${id}`).catch(() => ({ rtf: null }));
  return { guards, rtf };
}

const joinedBytes = (a, b) => { if (!a.length) return b; const whole = new Uint8Array(a.length + b.length); whole.set(a); whole.set(b, a.length); return whole; };
export const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
export function samplesOf(buffer) {
  const values = new Int16Array(buffer), samples = new Float32Array(values.length); // every machine with a browser is little-endian
  for (let i = 0; i < values.length; i++) samples[i] = values[i] / 32768;
  return samples;
}
export function pcmOf(samples) {
  const values = new Int16Array(samples.length);
  for (let i = 0; i < values.length; i++) values[i] = Math.max(-32768, Math.min(32767, Math.round(samples[i] * 32768)));
  return values.buffer;
}

export const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});
