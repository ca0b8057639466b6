// The search for books: a wish goes out, rows of the catalogue come back.

import { chips, element, showFailure } from "./elements.js";
import { findBooks } from "./server.js";
import { words } from "./words.js";

const form = document.getElementById("books-form");
const wish = document.getElementById("wish");
const found = document.getElementById("found");
const button = document.getElementById("find");

export function startBooks() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find(wish.value);
  });
  form.after(chips(words.bookExamples, find));
}

async function find(text) {
  if (button.disabled || !text.trim()) return;
  wish.value = text;
  button.disabled = true;
  found.replaceChildren(element("p", "", words.finding));
  try {
    found.replaceChildren(...drawAnswer(await findBooks(text)));
  } catch (error) {
    found.replaceChildren(showFailure(error));
  }
  button.disabled = false;
}

function drawAnswer(answer) {
  const seconds = answer.timings.total_seconds.toFixed(1);
  const foot = element("p", "foot", words.considered(answer.considered_rows, seconds));
  if (answer.rows.length === 0) return [element("p", "", words.noneFound), foot];
  const rows = element("ol", "rows");
  rows.append(...answer.rows.map(drawRow));
  return [rows, foot];
}

function drawRow(row) {
  const item = element("li");
  item.append(element("span", "key", `#${row.key}`), element("span", "title", row.title));
  return item;
}
