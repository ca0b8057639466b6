// The chat: a list of conversations, the messages of one, and a stream that can be stopped.

import * as conversations from "./conversations.js";
import { chips, element, showFailure } from "./elements.js";
import { streamChat } from "./server.js";
import { words } from "./words.js";

const byId = (id) => document.getElementById(id);
const [listing, messages, form, input] = ["conversations", "messages", "chat-form", "chat-input"].map(byId);
// How near to the end of the page a reader must be for it to follow the text.
const NEAR_PIXELS = 80;

let current = conversations.list()[0] ?? conversations.create();
let running = null; // the AbortController of the answer under way

export function startChat() {
  byId("new-chat").addEventListener("click", () => open(conversations.create()));
  byId("stop").addEventListener("click", () => running?.abort());
  byId("menu").addEventListener("click", toggleSidebar);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(input.value);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send(input.value);
  });
  input.addEventListener("input", grow);
  open(current);
}

function open(conversation) {
  running?.abort();
  current = conversation;
  byId("sidebar").classList.remove("open");
  byId("menu").setAttribute("aria-expanded", "false");
  drawList();
  drawMessages();
  input.focus();
}

function drawList() {
  listing.replaceChildren(...conversations.list().map((conversation) => {
    const title = conversation.title || words.untitled;
    const item = element("li", conversation === current ? "current" : "");
    const opener = element("button", "open", title);
    opener.type = "button";
    if (conversation === current) opener.setAttribute("aria-current", "true");
    opener.addEventListener("click", () => open(conversation));
    const remover = element("button", "remove", "×");
    remover.type = "button";
    remover.setAttribute("aria-label", `${words.remove}: ${title}`);
    remover.addEventListener("click", () => remove(conversation));
    item.append(opener, remover);
    return item;
  }));
}

function remove(conversation) {
  conversations.remove(conversation.id);
  if (conversation === current) open(conversations.list()[0] ?? conversations.create());
  else drawList();
}

function drawMessages() {
  messages.replaceChildren();
  if (current.messages.length === 0) {
    const welcome = element("div", "welcome");
    welcome.append(element("h2", "", words.welcome), element("p", "", words.welcomeText));
    welcome.append(chips(words.chatExamples, send));
    messages.append(welcome);
  }
  for (const message of current.messages) draw(message);
  messages.scrollTop = messages.scrollHeight;
}

function draw(message) {
  const box = element("div", `message ${message.role}`);
  box.append(element("div", "text", message.content));
  if (message.note) box.append(element("div", "note", message.note));
  messages.append(box);
  return box;
}

async function send(text) {
  if (running || !text.trim()) return;
  const conversation = current;
  if (conversation.messages.length === 0) messages.replaceChildren();
  conversations.add(conversation, { role: "user", content: text });
  draw(conversation.messages.at(-1));
  input.value = "";
  grow();
  drawList();
  await answer(conversation);
}

async function answer(conversation) {
  const reply = { role: "assistant", content: "" };
  const box = draw(reply);
  running = new AbortController();
  setBusy(true, box);
  let failure = null;
  try {
    await receive(conversation, reply, box, running.signal);
  } catch (error) {
    if (error.name === "AbortError") reply.note = words.stopped;
    else failure = error;
  }
  running = null;
  setBusy(false, box);
  finish(conversation, reply, failure);
}

async function receive(conversation, reply, box, signal) {
  const turns = conversation.messages.map(({ role, content }) => ({ role, content }));
  for await (const { name, data } of streamChat(turns, signal)) {
    if (name === "token") {
      reply.content += data.text;
      const follows = messages.scrollHeight - messages.scrollTop - messages.clientHeight < NEAR_PIXELS;
      box.firstChild.textContent = reply.content;
      if (follows) messages.scrollTop = messages.scrollHeight;
    } else {
      const seconds = data.timings.total_seconds.toFixed(1);
      const cutOff = data.stop_reason === "length" ? ` · ${words.cutOff}` : "";
      reply.note = words.tokens(data.usage.completion_tokens, seconds) + cutOff;
    }
  }
}

// What was said stays; a question without any answer goes back into the message box.
function finish(conversation, reply, failure) {
  if (reply.content) {
    conversations.add(conversation, reply);
  } else if (conversation === current) {
    const question = conversations.takeBack(conversation);
    input.value ||= question.content;
    grow();
  }
  drawList();
  if (conversation !== current) return;
  drawMessages();
  if (failure) messages.append(showFailure(failure));
  messages.scrollTop = messages.scrollHeight;
}

function setBusy(isBusy, box) {
  box.classList.toggle("waiting", isBusy);
  messages.setAttribute("aria-busy", String(isBusy));
  byId("send").hidden = isBusy;
  byId("stop").hidden = !isBusy;
  messages.scrollTop = messages.scrollHeight;
}

function grow() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

function toggleSidebar() {
  const isOpen = byId("sidebar").classList.toggle("open");
  byId("menu").setAttribute("aria-expanded", String(isOpen));
}
