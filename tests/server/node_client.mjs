// Drives the official Node client through a server; prints what it met as JSON.
import fs from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import OpenAI from "openai";

const [baseURL, apiKey, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const input = "The quick brown fox jumps over the lazy dog.";
const told = { sizes: {}, errors: {} };

for (const response_format of ["mp3", "opus", "aac", "flac", "wav", "pcm"]) {
  const answer = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input, response_format, seed: 5 });
  const data = Buffer.from(await answer.arrayBuffer());
  fs.writeFileSync(`${folder}/whole.${response_format}`, data);
  told.sizes[response_format] = data.length;
}

const streamed = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input, response_format: "wav", seed: 5 });
await pipeline(Readable.fromWeb(streamed.body), fs.createWriteStream(`${folder}/streamed.wav`));

const events = await client.audio.speech.create({ model: "gpt-4o-mini-tts", voice: "alloy", input, response_format: "mp3", stream_format: "sse", seed: 5 });
const lines = (await events.text()).split("\n\n").filter((line) => line.startsWith("data: {")).map((line) => JSON.parse(line.slice(6)));
fs.writeFileSync(`${folder}/events.mp3`, Buffer.concat(lines.filter((e) => e.type === "speech.audio.delta").map((e) => Buffer.from(e.audio, "base64"))));
told.last = lines.at(-1);

const attempt = async (name, work) => {
  try { await work(); } catch (error) { told.errors[name] = [error.constructor.name, error.status ?? null, error.code ?? null, error.param ?? null]; }
};
await attempt("key", () => new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).audio.speech.create({ model: "tts-1", voice: "alloy", input }));
await attempt("voice", () => client.audio.speech.create({ model: "tts-1", voice: "nobody", input }));
await attempt("model", () => client.audio.speech.create({ model: "gpt-9", voice: "alloy", input }));
await attempt("format", () => client.audio.speech.create({ model: "tts-1", voice: "alloy", input, response_format: "ogg" }));
await attempt("knob", () => client.audio.speech.create({ model: "tts-1", voice: "alloy", input, instructions: "whisper" }));

const long = "It was a bright cold day in April, and the clocks were striking. ".repeat(80).slice(0, 5000);
const answer = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: long, response_format: "mp3" });
told.long = (await answer.arrayBuffer()).byteLength;

const abort = new AbortController();
await attempt("cancel", async () => {
  const cut = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: long.repeat(4), response_format: "pcm" }, { signal: abort.signal });
  told.cancelled = cut.headers.get("x-request-id");
  const reader = cut.body.getReader();
  await reader.read();
  abort.abort();
  for (;;) { if ((await reader.read()).done) break; }
});
told.models = (await client.models.list()).data.map((model) => model.id);
for (let i = 0; i < 200; i++) {
  const record = await (await fetch(`${baseURL}/requests/${told.cancelled}`, { headers: { Authorization: `Bearer ${apiKey}` } })).json();
  told.outcome = record.outcome;
  if (record.outcome !== "running") break;
  await new Promise((resolve) => setTimeout(resolve, 25));
}
console.log(JSON.stringify(told));
