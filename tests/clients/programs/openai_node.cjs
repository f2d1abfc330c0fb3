// openai under Node: chats, streams with the SDK's own accumulation, tools, schemas. node openai_node.cjs URL MODEL NODE_MODULES
const { createRequire } = require("node:module");
const [url, model, folder] = process.argv.slice(2);
const { OpenAI } = createRequire(`${folder}/`)("openai");

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });
const schema = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "Rome"] }, metric: { type: "boolean" } },
  required: ["city", "metric"],
  additionalProperties: false,
};
const tool = { type: "function", function: { name: "get_weather", description: "The weather of a city.", parameters: schema, strict: true } };
const common = { model, temperature: 0, max_tokens: 24, messages: [{ role: "user", content: "What is the weather in Paris?" }] };
const call = { ...common, max_tokens: 300, tools: [tool], tool_choice: "required", parallel_tool_calls: false };

const tasks = {
  async chat() {
    return (await client.chat.completions.create(common)).choices[0].message.content;
  },
  async stream() {
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...common, stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
    return text;
  },
  async helper_stream() {
    return await client.chat.completions.stream(common).finalContent();
  },
  async tools() {
    const { name, arguments: text } = (await client.chat.completions.create(call)).choices[0].message.tool_calls[0].function;
    return [name, text];
  },
  async streamed_tools() {
    const whole = await client.chat.completions.stream(call).finalChatCompletion();
    const { name, arguments: text } = whole.choices[0].message.tool_calls[0].function;
    return [name, text];
  },
  async structured() {
    const response_format = { type: "json_schema", json_schema: { name: "weather", schema, strict: true } };
    const answer = await client.chat.completions.create({ ...common, max_tokens: 200, response_format });
    return JSON.parse(answer.choices[0].message.content);
  },
  async embedding() {
    return (await client.embeddings.create({ model, input: "The sea" })).data[0].embedding.length;
  },
  async responses() {
    return (await client.responses.create({ model, input: "Hello.", max_output_tokens: 16, temperature: 0 })).output_text;
  },
};

(async () => {
  const told = {};
  for (const [name, task] of Object.entries(tasks)) {
    try {
      told[name] = { result: await task() };
    } catch (error) {
      told[name] = { error: String(error.stack ?? error) };
    }
  }
  console.log(JSON.stringify(told));
})();
