// Starts the page: words, tabs, the two views, the key, and the light that says who works.

import { startBooks } from "./books.js";
import { startChat } from "./chat.js";
import { readyModels, saveKey } from "./server.js";
import { speak, words } from "./words.js";

// How often the light asks, in milliseconds.
const STATUS_EVERY = 10_000;

const tabs = ["chat", "books"].map((name) => document.getElementById(`tab-${name}`));

function show(tab) {
  for (const other of tabs) {
    const isShown = other === tab;
    other.setAttribute("aria-selected", String(isShown));
    other.tabIndex = isShown ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !isShown;
  }
  document.getElementById("menu").hidden = tab !== tabs[0];
}

function startTabs() {
  for (const tab of tabs) {
    tab.addEventListener("click", () => show(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs.find((candidate) => candidate !== tab);
      show(other);
      other.focus();
    });
  }
  if (location.hash === "#books") show(tabs[1]);
}

function startKey() {
  const dialog = document.getElementById("key-dialog");
  const key = document.getElementById("key");
  document.getElementById("key-cancel").addEventListener("click", () => dialog.close());
  document.getElementById("key-form").addEventListener("submit", () => {
    saveKey(key.value.trim());
    key.value = "";
    showStatus();
  });
}

async function showStatus() {
  const status = document.getElementById("status");
  try {
    const models = await readyModels();
    status.textContent = models === null ? words.notReady : words.ready(models);
    status.className = models === null ? "status down" : "status ready";
  } catch {
    status.textContent = words.offline;
    status.className = "status down";
  }
}

speak(document);
startTabs();
startKey();
startChat();
startBooks();
showStatus();
setInterval(showStatus, STATUS_EVERY);
