// Node clients: node node_clients.mjs NAME BASE_URL KEY OUT
import fs from "node:fs";

const [name, baseURL, apiKey, out] = process.argv.slice(2);
const text = "The quick brown fox jumps over the lazy dog.";

async function openai() {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const answer = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: text, response_format: "wav" });
  fs.writeFileSync(out, Buffer.from(await answer.arrayBuffer()));
  const models = await client.models.list();
  return { models: models.data.map((model) => model.id) };
}

async function vercel() {
  const { experimental_generateSpeech: generateSpeech } = await import("ai");
  const { createOpenAI } = await import("@ai-sdk/openai");
  const provider = createOpenAI({ baseURL, apiKey });
  const { audio, warnings } = await generateSpeech({
    model: provider.speech("tts-1"), text, voice: "alloy", outputFormat: "wav", speed: 1.1, maxRetries: 0,
  });
  fs.writeFileSync(out, audio.uint8Array);
  return { format: audio.format, warnings };
}

console.log(JSON.stringify(await { openai, vercel }[name]()));
