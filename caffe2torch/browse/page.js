// Choosing, dropping or pasting a picture searches at once. Without this script the form works with its button.
"use strict";

const form = document.getElementById("search");
const input = form.querySelector("input[type=file]");
const most = Number(form.dataset.most);
let latest = 0;
let last = null;

function content() {
  return document.getElementById("content");
}

function say(message) {
  const text = document.createElement("p");
  text.className = "problem";
  text.setAttribute("role", "alert");
  text.textContent = message;
  content().replaceChildren(text);
}

async function search(file) {
  if (!file) return;
  last = file;
  if (file.size > most) {
    say(`${file.name}: ${(file.size / 1048576).toFixed(1)} MB, more than the ${(most / 1048576).toFixed(0)} MB taken here; make it smaller first`);
    return;
  }
  const mine = ++latest;
  const data = new FormData();
  data.append("picture", file, file.name || "pasted picture");
  data.append("k", form.elements.k.value);
  form.classList.add("busy");
  try {
    const response = await fetch("/search", { method: "POST", body: data });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const found = page.getElementById("content");
    if (mine !== latest) return;
    if (!found) throw new Error(`the server answered ${response.status}`);
    content().replaceWith(document.adoptNode(found));
    content().scrollIntoView({ behavior: "smooth", block: "start" });
  } catch (error) {
    if (mine === latest) say(`The search did not work: ${error.message}. Is the server still running?`);
  } finally {
    if (mine === latest) form.classList.remove("busy");
  }
}

form.classList.add("live");
input.addEventListener("change", () => {
  const file = input.files[0];
  input.value = "";
  search(file);
});
form.elements.k.addEventListener("change", () => {
  if (last) search(last);
  else if (location.pathname.startsWith("/like/")) location.search = `?k=${form.elements.k.value}`;
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  search(input.files[0] || last);
});

let depth = 0;
document.addEventListener("dragenter", () => { depth += 1; form.classList.add("over"); });
document.addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) form.classList.remove("over"); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  form.classList.remove("over");
  if (event.dataTransfer.files.length) search(event.dataTransfer.files[0]);
  else say("That was no file: save the picture first, then drop it here.");
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) search(file);
});
