// Talks to the gateway: one function for each thing it can be asked.

import { words } from "./words.js";

const KEY = "lectern.key";

// A failure as the gateway tells it; `code` is one of docs/errors.md, or "unreachable".
export class Failure extends Error {
  constructor(code, message, retryAfter = null) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

export function saveKey(key) {
  if (key) localStorage.setItem(KEY, key);
  else localStorage.removeItem(KEY);
}

// Yields {name, data} for each server-sent event of a chat; throws Failure.
export async function* streamChat(messages, signal) {
  const response = await post("/tasks/chat", { messages, stream: true }, signal);
  for await (const event of serverSentEvents(response.body)) {
    if (event.name === "failed") throw new Failure(event.data.error.code, event.data.error.message);
    yield event;
    if (event.name === "finished") return;
  }
  throw new Failure("broken", words.broken);
}

export async function findBooks(wish, signal) {
  const response = await post("/tasks/book_retrieval", { wish }, signal);
  return response.json();
}

// Names of the models at work; null while none is ready.
export async function readyModels() {
  const ready = await ask("/readyz", {});
  if (ready.status === 503) return null;
  const response = await ask("/workers", { headers: headers() });
  if (!response.ok) return "";
  const { workers } = await response.json();
  const names = workers.filter((worker) => !worker.is_leaving).map((worker) => worker.model.name);
  return [...new Set(names)].join(", ");
}

function headers() {
  const key = localStorage.getItem(KEY);
  const fields = { "Content-Type": "application/json" };
  return key ? { ...fields, Authorization: `Bearer ${key}` } : fields;
}

async function post(path, body, signal) {
  const response = await ask(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: { code: "broken", message: response.statusText } }));
  throw new Failure(error.code, error.message, response.headers.get("Retry-After"));
}

async function ask(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("unreachable", words.unreachable);
  }
}

async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await read(reader);
    if (done) return;
    const blocks = (pending + value).split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (fields.event) yield { name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("broken", words.broken);
  }
}
