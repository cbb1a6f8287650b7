// Every request to the server.

let key = sessionStorage.getItem("sonant-key") ?? "";
export const setKey = (value) => { key = value.trim(); sessionStorage.setItem("sonant-key", key); };

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

export const get = async (path) => (await call(path)).json();
export const post = async (path, json) => (await call(path, { method: "POST", json })).json();

// Speak: calls onstart(headers), then onsamples(Float32Array) for each piece that arrives.
export async function speak(body, { signal, onstart, onsamples }) {
  const answer = await call("/v1/audio/speech", { method: "POST", json: { ...body, response_format: "pcm" }, signal });
  const rate = Number(answer.headers.get("X-Sample-Rate")) || 24000;
  onstart({ rate, id: answer.headers.get("X-Request-Id"), seed: Number(answer.headers.get("X-Sonant-Seed")), voice: decodeURIComponent(answer.headers.get("X-Sonant-Voice") ?? "") });
  const reader = answer.body.getReader();
  let odd = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    let bytes = value;
    if (odd !== null) { bytes = new Uint8Array(value.length + 1); bytes[0] = odd; bytes.set(value, 1); odd = null; }
    if (bytes.length % 2) { odd = bytes[bytes.length - 1]; bytes = bytes.subarray(0, bytes.length - 1); }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const samples = new Float32Array(bytes.length / 2);
    for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
    if (samples.length) onsamples(samples);
  }
}

export const base64 = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});
