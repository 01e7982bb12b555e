// Runs openai-node against a server and prints, as one JSON object, what its user would see of each scene.
// Usage: OPENAI_API_KEY=... node drive.mjs PACKAGE BASE_URL
// It judges nothing: that is for whoever reads the object.

const [name, baseURL] = process.argv.slice(2);
const { default: OpenAI } = await import(name);
const client = new OpenAI({ baseURL, maxRetries: 0, timeout: 10_000 });
const model = "openai/gpt-5.2";
const messages = [{ role: "user", content: "Hello!" }];
const parameters = { type: "object", properties: { location: { type: "string" } }, required: ["location"] };
const simulate = (faults) => ({ headers: { "x-simulate": faults } });

// What a user sees of a stream: its items, and the error if it raised one.
async function read(opened, pick) {
  const items = [];
  try {
    for await (const item of await opened) items.push(pick(item));
  } catch (error) {
    return { items, error: seen(error) };
  }
  return { items, error: null };
}

function seen(error) {
  return {
    name: error.constructor.name,
    isAPIError: error instanceof OpenAI.APIError,
    message: error.message,
    status: error.status ?? null,
    code: error.code ?? null,
    type: error.type ?? null,
    param: error.param ?? null,
    requestID: error.requestID ?? null,
    retryAfter: error.headers?.get?.("retry-after") ?? null,
  };
}

async function refusal(call) {
  try {
    await call;
  } catch (error) {
    return seen(error);
  }
  return null;
}

const chat = (more, options) => client.chat.completions.create({ model, messages, ...more }, options);
const respond = (more, options) => client.responses.create({ model, input: "Hello!", ...more }, options);
const delta = (chunk) => [chunk.choices[0]?.delta?.content ?? null, chunk.choices[0]?.finish_reason ?? null];
const kind = (event) => event.type;

const scenes = {
  chat: () => chat(),
  chatStream: () => read(chat({ stream: true }), delta),
  chatStreamChunks: () => read(chat({ stream: true }), (chunk) => Object.keys(chunk)),
  chatUsage: () => read(chat({ stream: true, stream_options: { include_usage: true } }), (chunk) => chunk.usage),
  chatHelper: async () => (await client.chat.completions.stream({ model, messages }).finalChatCompletion()).choices,
  chatTools: async () => {
    const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
    return (await chat({ tools })).choices[0].message.tool_calls;
  },
  chatAlias: async () => (await chat({ model: "gpt-5.2" })).model,
  chatOdd: () => read(chat({ stream: true }, simulate("odd=crlf|comments|split-utf8;drip=3")), delta),
  response: async () => (await respond()).output_text,
  responseStream: () => read(respond({ stream: true }), (event) => [event.type, event.sequence_number]),
  responseHelper: async () => (await client.responses.stream({ model, input: "Hello!" }).finalResponse()).output_text,
  responseTools: async () =>
    (await respond({ tools: [{ type: "function", name: "get_weather", parameters, strict: true }] })).output,
  responseStored: async () => {
    const made = await respond({ input: "Keep this" });
    const again = await client.responses.retrieve(made.id);
    await client.responses.delete(made.id);
    return { same: made.id === again.id, gone: await refusal(client.responses.retrieve(made.id)) };
  },
  responseResumed: async () => {
    const made = await respond({ input: "Resume" });
    return read(client.responses.retrieve(made.id, { stream: true, starting_after: 2 }), (e) => e.sequence_number);
  },
  responseOdd: () => read(respond({ stream: true }, simulate("odd=crlf|comments|split-utf8;drip=3")), kind),
  models: async () => (await client.models.list()).data.map((each) => each.id),
  model: async () => (await client.models.retrieve(model)).id,
  modelAlias: async () => (await client.models.retrieve("gpt-5.2")).id,
  file: async () => {
    const content = "one\r\n--two\r\n \u{1f984}";
    const file = await OpenAI.toFile(Buffer.from(content), "notes.txt");
    const made = await client.files.create({ file, purpose: "user_data" });
    const same = (await (await client.files.content(made.id)).text()) === content;
    return { same, deleted: (await client.files.delete(made.id)).deleted };
  },
  embedding: async () => {
    const made = await client.embeddings.create({ model, input: "a", dimensions: 8 });
    return made.data[0].embedding.length;
  },
  requestID: async () => {
    const { request_id: requestID, response } = await chat().withResponse();
    return { requestID, ours: response.headers.get("x-gateway-request-id") };
  },
  wrongKey: () => refusal(new OpenAI({ baseURL, apiKey: "sk-wrong-0123456789" }).models.list()),
  notFound: () => refusal(client.models.retrieve("openai/gpt-0")),
  badRequest: () => refusal(client.chat.completions.create({ model })),
  unknownURL: () => refusal(client.post("/organization/projects", { body: {} })),
  rateLimit: () => refusal(chat({}, simulate("status=429;retry-after=7"))),
  serverError: () => refusal(chat({ stream: true }, simulate("status=503"))),
  timeout: () => refusal(chat({}, { ...simulate("stall=headers"), timeout: 200 })),
  chatInBand: () => read(chat({ stream: true }, simulate("fail=3")), delta),
  responseInBand: () => read(respond({ stream: true }, simulate("fail=3")), kind),
  chatCut: () => read(chat({ stream: true }, simulate("cut=3500;chunks=200")), delta),
  chatReset: () => read(chat({ stream: true }, simulate("reset=3500;chunks=200")), delta),
  responseCut: () => read(respond({ stream: true }, simulate("cut=3500;chunks=200")), kind),
  responseReset: () => read(respond({ stream: true }, simulate("reset=3500;chunks=200")), kind),
  chatHelperCut: () =>
    refusal(client.chat.completions.stream({ model, messages }, simulate("cut=3500;chunks=200")).finalChatCompletion()),
  responseHelperCut: () =>
    refusal(client.responses.stream({ model, input: "Hi" }, simulate("cut=3500;chunks=200")).finalResponse()),
  plainCut: () => refusal(chat({}, simulate("cut=100;drip=50"))),
  manyStreams: async () => {
    const prompts = Array.from({ length: 50 }, (_, number) => `stream ${number}.`);
    const ask = async (content) => {
      const { items } = await read(chat({ stream: true, messages: [{ role: "user", content }] }), delta);
      return items.map(([text]) => text ?? "").join("").includes(`"${content}"`);
    };
    return (await Promise.all(prompts.map(ask))).filter(Boolean).length;
  },
  leaver: async () => {
    const stream = await chat({ stream: true }, simulate("chunks=100000;chunk-delay=0.01"));
    for await (const chunk of stream) return chunk.object;
  },
};

const shown = {};
for (const [scene, act] of Object.entries(scenes)) {
  try {
    shown[scene] = await act();
  } catch (error) {
    shown[scene] = { threw: seen(error) };
  }
}
process.stdout.write(JSON.stringify(shown));
