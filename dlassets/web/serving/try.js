"use strict";

const part = (id) => document.getElementById(id);
const { versions, maxBytes } = document.body.dataset;
let last = 0;

part("address").textContent = location.href.replace(/\/$/, "");

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (share) => `${(100 * (share < 1 ? Math.min(share, 0.999) : 1)).toFixed(1)}%`;

function row({ name, confidence }) {
  const made = element("li"), bar = element("span"), filled = element("i");
  bar.className = "bar";
  filled.style.width = `${100 * confidence}%`;
  bar.append(filled);
  made.append(element("span", name), bar, element("span", percent(confidence)));
  return made;
}

function show(title, classes, note, isBad = false) {
  part("best").textContent = title;
  part("best").className = isBad ? "bad" : "";
  part("classes").replaceChildren(...classes.map(row));
  part("note").replaceChildren(...note);
  part("answer").classList.remove("waits");
}

function noteOn(answer, milliseconds) {
  const link = element("a", `${answer.model.name}, version ${answer.model.version}`);
  link.href = versions + answer.model.version;
  return ["Said by ", link, ` in ${milliseconds} ms. Request ${answer.request_id}.`];
}

async function ask(file) {
  const mine = ++last;
  const shown = part("shown");
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(file);
  shown.hidden = false;
  part("hint").hidden = true;
  part("answer").classList.add("waits");
  if (file.size > Number(maxBytes)) {
    show("Too large", [], [`The photo has ${file.size.toLocaleString()} bytes, and ${Number(maxBytes).toLocaleString()} are taken.`], true);
    return;
  }
  const headers = { "Content-Type": "application/octet-stream", "X-Dlassets-Page": "1" };
  if (part("token")) headers.Authorization = `Bearer ${part("token").value}`;
  const began = performance.now();
  try {
    const reply = await fetch("predict", { method: "POST", headers, body: file });
    const answer = await reply.json();
    if (mine !== last) return;
    if (reply.ok) show(answer.name, answer.top_k, noteOn(answer, Math.round(performance.now() - began)));
    else show("No answer", [], [answer.error], true);
  } catch (error) {
    if (mine === last) show("No answer", [], [`The server cannot be reached: ${error.message}`], true);
  }
}

part("shown").addEventListener("error", () => { // HEIC, say, which the server may know and the browser does not
  part("shown").hidden = true;
  part("hint").hidden = false;
});
part("file").addEventListener("change", (event) => event.target.files[0] && ask(event.target.files[0]));
const drop = part("drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files[0]) ask(event.dataTransfer.files[0]);
});
