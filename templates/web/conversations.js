// The conversations of this browser: kept in localStorage, newest first.

const PLACE = "lectern.conversations";
// The browser gives some 5 MB to all of them together.
const MOST = 50;
const TITLE_CHARACTERS = 40;

let all = load();

export function list() {
  return all;
}

export function find(id) {
  return all.find((conversation) => conversation.id === id);
}

export function create() {
  const conversation = { id: crypto.randomUUID?.() ?? String(Date.now()), title: "", messages: [] };
  all = [conversation, ...all.filter((other) => other.messages.length > 0)].slice(0, MOST);
  return conversation;
}

export function add(conversation, message) {
  conversation.messages.push(message);
  if (!conversation.title) conversation.title = [...message.content.trim()].slice(0, TITLE_CHARACTERS).join("");
  save();
}

// Removes the last message, and returns it.
export function takeBack(conversation) {
  const message = conversation.messages.pop();
  if (conversation.messages.length === 0) conversation.title = "";
  save();
  return message;
}

export function remove(id) {
  all = all.filter((conversation) => conversation.id !== id);
  save();
}

function save() {
  const kept = all.filter((conversation) => conversation.messages.length > 0);
  for (;;) {
    try {
      localStorage.setItem(PLACE, JSON.stringify(kept));
      return;
    } catch (error) {
      if (kept.length <= 1) return; // not even one fits: it lives as long as the page
      kept.pop();
    }
  }
}

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(PLACE) ?? "[]");
    return found.filter((one) => typeof one.id === "string" && Array.isArray(one.messages));
  } catch {
    return [];
  }
}
