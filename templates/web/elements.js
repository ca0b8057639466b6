// Small pieces of the page that more than one view is made of.

import { words } from "./words.js";

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function chips(texts, choose) {
  const row = element("div", "chips");
  for (const text of texts) {
    const chip = element("button", "", text);
    chip.type = "button";
    chip.addEventListener("click", () => choose(text));
    row.append(chip);
  }
  return row;
}

// Returns what a person sees of a failure; a missing key opens the dialog that asks for it.
export function showFailure(failure) {
  if (failure.code === "unauthorized") document.getElementById("key-dialog").showModal();
  const retry = failure.retryAfter ? ` · ${words.retry(failure.retryAfter)}` : "";
  const code = failure.code ? ` (${failure.code})` : "";
  const box = element("div", "error", `${failure.message}${code}${retry}`);
  box.setAttribute("role", "alert");
  return box;
}
