// Sends forms by openai-node to a server, one a way in which its user may name a file.
// Usage: OPENAI_API_KEY=... node forms.mjs PACKAGE BASE_URL FILE
// It judges nothing; any error ends it.

import { createReadStream, readFileSync } from "node:fs";

const [name, baseURL, path] = process.argv.slice(2);
const { default: OpenAI, toFile } = await import(name);
const client = new OpenAI({ baseURL, maxRetries: 0, timeout: 10_000 });
const bytes = readFileSync(path);

await client.audio.transcriptions.create({
  model: "whisper-1",
  file: createReadStream(path),
  timestamp_granularities: ["word", "segment"],
});
await client.audio.translations.create({ model: "whisper-1", file: new File([bytes], "naïve 東京.wav") });
await client.images.edit({
  model: "whisper-1",
  image: [await toFile(bytes, "a.png", { type: "image/png" }), await toFile(bytes, "b.png", { type: "image/png" })],
  prompt: "a cat\nwith é",
});
