// How many photos wait in this browser, below how many more are asked for, and how many can be taken back.
const AHEAD = 8, LOW = 5, REMEMBERED = 50, AT_ONCE = 50, ON_A_PAGE = 9;
// Milliseconds: how often a page that is looked at asks, one that has nothing to show, and how long it waits after a failure.
const BEAT = 45_000, IDLE = 8_000, RETRY = 2_000, LONGEST_RETRY = 30_000;
const KEPT = "dlassets.answer.";

const part = (id) => document.getElementById(id);
const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const browser = ownName(); // what it holds is still its own when the page is loaded again
const unsent = new Map(); // answers that the server has not said it keeps, by their ids, in their order
const coming = []; // photos that are shown next
const past = []; // what was done, the newest last
let token = recall("token") ?? "", person = recall("name") ?? "", known = null; // known: by a log-in, and so not chosen
let classes = [], names = new Map(), digest = "";
let current = null, chosen = null, isShown = false, shownAt = 0, seen = 0;
let classPage = 0, filling = false, sending = false, wait = RETRY, number = 0, beat = 0, again = 0, refused = "";

function ownName() {
  try {
    const name = sessionStorage.getItem("dlassets.browser") ?? random();
    sessionStorage.setItem("dlassets.browser", name);
    return name;
  } catch { return random(); }
}

// What the browser keeps. Where it keeps nothing, all of it lasts as long as the page.

function recall(name) {
  try { return localStorage.getItem(`dlassets.${name}`); } catch { return null; }
}

function keep(key, value) {
  try { localStorage.setItem(key, value); return true; } catch { return false; }
}

function forget(key) {
  try { localStorage.removeItem(key); } catch { /* it was kept nowhere */ }
}

function recallAnswers() {
  const found = [];
  try {
    for (let place = 0; place < localStorage.length; place++) {
      const key = localStorage.key(place);
      if (key.startsWith(KEPT)) found.push(JSON.parse(localStorage.getItem(key)));
    }
  } catch { /* as above */ }
  found.sort((a, b) => a.at - b.at || a.number - b.number);
  // What another person did in this browser waits until they log in again.
  for (const answer of found) if (!unsent.has(answer.id) && answer.person === (known ?? answer.person)) unsent.set(answer.id, answer);
}

// The server.

class Refusal extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, tree) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const sent = tree === undefined ? { headers } : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(tree) };
  let reply;
  try { reply = await fetch(path, sent); } catch { throw new Refusal(0, "The server cannot be reached."); }
  if (reply.ok) return reply;
  const text = await reply.text();
  let message = text;
  try { message = JSON.parse(text).error; } catch { /* a proxy's words */ }
  throw new Refusal(reply.status, message.slice(0, 500));
}

const isIn = () => !part("work").hidden;

async function fill() {
  if (filling || !isIn()) return;
  filling = true;
  clearTimeout(beat);
  let next = BEAT;
  try {
    const holds = [...new Set([...(current ? [current.id] : []), ...coming.map((photo) => photo.id), ...[...unsent.values()].map((answer) => answer.request_id)])].slice(0, 500);
    const most = Math.max(0, AHEAD - coming.length);
    const reply = await (await ask("next", { person, browser, holds, most, classes: digest })).json();
    take(reply, new Set(holds));
    if (!current) next = IDLE;
    if (!unsent.size) complain("");
  } catch (error) {
    next = RETRY * 2;
    failed(error);
  } finally {
    filling = false;
    beat = setTimeout(() => document.hidden || fill(), next);
  }
}

function take({ photos, kept, progress, classes: given }, held) {
  if (given) {
    ({ digest, all: classes } = given);
    names = new Map(classes);
    showClasses();
  }
  const still = new Set(kept);
  for (let place = coming.length - 1; place >= 0; place--) { // answered elsewhere meanwhile
    if (held.has(coming[place].id) && !still.has(coming[place].id)) release(...coming.splice(place, 1));
  }
  for (const photo of photos) {
    if (photo.id !== current?.id && !coming.some((other) => other.id === photo.id)) coming.push(photo);
  }
  coming.forEach(load);
  showProgress(progress);
  if (!current) advance();
}

function load(photo) {
  photo.loading ??= (async () => {
    const data = await (await ask(`photo/${encodeURIComponent(photo.id)}`)).blob();
    photo.url = URL.createObjectURL(data);
    const image = new Image();
    image.src = photo.url;
    await image.decode();
  })().catch((error) => { photo.error = error.message; photo.loading = null; });
  return photo.loading;
}

function release(photo) {
  if (photo.url) URL.revokeObjectURL(photo.url);
  Object.assign(photo, { url: null, loading: null });
}

async function send() {
  if (sending || !isIn()) return;
  sending = true;
  try {
    while (unsent.size) {
      const answers = [...unsent.values()].slice(0, AT_ONCE);
      const shown = answers.map(({ at, number: _, ...answer }) => answer);
      const { problems, progress } = await (await ask("answers", { browser, answers: shown })).json();
      if (progress) showProgress(progress);
      answers.forEach((answer, place) => {
        unsent.delete(answer.id);
        forget(KEPT + answer.id);
        if (problems[place]) refused = `One of your answers was not taken: ${problems[place]}`;
      });
      wait = RETRY;
    }
    complain("");
    if (coming.length < LOW) fill();
  } catch (error) {
    failed(error);
    clearTimeout(again);
    again = setTimeout(send, wait);
    wait = Math.min(2 * wait, LONGEST_RETRY);
  } finally {
    sending = false;
  }
}

function failed(error) {
  if (error.status === 401 && !known) {
    if (isIn()) enter(token ? "The token is not the server's (any more)." : "", true);
    return;
  }
  const waiting = unsent.size ? ` ${unsent.size} of your answers ${unsent.size === 1 ? "waits" : "wait"} in this browser, and will be sent again.` : "";
  complain(`${error.message}${waiting}`);
}

function complain(message) {
  const told = message || refused;
  if (part("problem").textContent !== told) part("problem").textContent = told;
  part("problem").hidden = !told;
}

// What is seen.

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

const nameOf = (label) => names.get(label) ?? `${label}`;
const percent = (share) => `${(100 * (share < 1 ? Math.min(share, 0.999) : 1)).toFixed(0)} %`;

function found() {
  const text = part("find").value.trim().toLowerCase();
  return text ? classes.filter(([label, name]) => name.toLowerCase().includes(text) || `${label}` === text) : classes;
}

function onThePage() {
  return found().slice(classPage * ON_A_PAGE, (classPage + 1) * ON_A_PAGE);
}

function showProgress({ answered, of, mine }) {
  const [all, total, own] = [answered, of, mine].map((count) => count.toLocaleString("en"));
  part("progress").textContent = `${all} of ${total} answered · ${own} by you`;
}

function showClasses() {
  const all = found(), pages = Math.max(1, Math.ceil(all.length / ON_A_PAGE));
  classPage = Math.min(classPage, pages - 1);
  part("finding").hidden = classes.length <= ON_A_PAGE;
  part("page").textContent = all.length ? `${classPage + 1} of ${pages}` : "none";
  part("before").disabled = classPage === 0;
  part("after").disabled = classPage >= pages - 1;
  part("classes").replaceChildren(...onThePage().map(([label, name], place) => {
    const made = element("button", "", label === chosen?.label ? "chosen" : "");
    made.type = "button";
    made.setAttribute("aria-keyshortcuts", place + 1);
    const key = element("kbd", place + 1);
    key.setAttribute("aria-hidden", "true");
    made.append(key, element("span", name));
    made.addEventListener("click", () => answer(label));
    return made;
  }));
}

function turn(by) {
  const pages = Math.ceil(found().length / ON_A_PAGE);
  if (classPage + by < 0 || classPage + by >= pages) return;
  classPage += by;
  showClasses();
}

async function show(photo, before = null) {
  current = photo;
  isShown = false;
  // What was merged into another class since is no longer offered.
  chosen = names.has(before) ? { label: before, why: "your answer before" } : names.has(photo.guess) ? { label: photo.guess, why: percent(photo.confidence) } : null;
  part("find").value = "";
  classPage = chosen ? Math.max(0, Math.floor(classes.findIndex(([label]) => label === chosen.label) / ON_A_PAGE)) : 0;
  showClasses();
  part("accept-name").textContent = chosen ? nameOf(chosen.label) : "The model has no guess";
  part("accept-why").textContent = chosen?.why ?? "";
  part("accept").disabled = !chosen;
  part("path").textContent = photo.path;
  part("zoom").setAttribute("aria-pressed", "false");
  part("photo").removeAttribute("src");
  lay(true);
  photo.error = null;
  await load(photo);
  if (photo !== current) return;
  if (photo.error) {
    say("", `This photo cannot be shown. ${photo.error}\nSkip it, or wait.`);
  } else {
    part("photo").src = photo.url;
    lay(true);
  }
  isShown = true;
  shownAt = performance.now();
  seen = 0;
  (chosen ? part("accept") : part("skip")).focus({ preventScroll: true });
  part("spoken").textContent = chosen ? `A photo. ${before !== null ? "Your answer before" : "The model's guess"}: ${nameOf(chosen.label)}, ${chosen.why}.` : "A photo, of which the model has no guess.";
}

function lay(hasPhoto) {
  part("zoom").hidden = !hasPhoto;
  part("empty").hidden = hasPhoto;
  part("choices").hidden = !current;
  part("undo").disabled = !past.length;
}

function say(spoken, text) {
  part("spoken").textContent = spoken;
  part("empty").textContent = text;
  lay(false);
}

function advance() {
  const photo = coming.shift();
  if (photo) {
    show(photo);
  } else {
    current = null;
    part("path").textContent = "";
    say("Nothing waits for you.", "Nothing waits for you now.\nThis page looks again by itself.");
    part("choices").hidden = !past.length;
    part("accept").disabled = true;
    part("accept-name").textContent = "";
    part("accept-why").textContent = "";
    part("classes").replaceChildren();
  }
  if (coming.length < LOW) fill();
}

// What a person does.

function record(act, photo, label = null, seconds = null) {
  const answer = { id: random(), request_id: photo.id, person, act, label, seconds, at: Date.now(), number: number++ };
  unsent.set(answer.id, answer);
  if (!keep(KEPT + answer.id, JSON.stringify(answer)) && unsent.size > 1) {
    refused = "This browser keeps nothing: do not close the page while answers wait.";
  }
  send();
}

function done(act, label) {
  if (!current || !isShown) return;
  const seconds = (seen + (document.hidden ? 0 : performance.now() - shownAt)) / 1000;
  past.push({ act, photo: current, label });
  while (past.length > REMEMBERED) release(past.shift().photo);
  record(act, current, label, seconds);
  advance();
  const told = act === "skipped" ? "Skipped." : `${nameOf(label)}.`;
  part("spoken").textContent = told;
}

const answer = (label) => done("answered", label);
const accept = () => chosen && answer(chosen.label);
const skip = () => done("skipped", null);

function undo() {
  const last = past.pop();
  if (!last) return;
  if (last.act === "answered") record("taken_back", last.photo);
  const place = coming.findIndex((photo) => photo.id === last.photo.id); // one that was skipped may have come again
  if (place >= 0) coming.splice(place, 1);
  if (current && current.id !== last.photo.id) coming.unshift(current);
  show(last.photo, last.label);
}

function enter(message, isTokenWanted = false) {
  part("enter").hidden = false;
  part("work").hidden = true;
  part("who").hidden = true;
  part("token-row").hidden = !isTokenWanted;
  part("name").value = person;
  complain(message);
  (part("token-row").hidden ? part("name") : part("token")).focus();
}

async function begin() {
  keep("dlassets.name", person);
  keep("dlassets.token", token);
  part("enter").hidden = true;
  part("work").hidden = false;
  part("who").hidden = false;
  part("who").textContent = person;
  part("who").setAttribute("aria-label", `${person}: not you?`);
  refused = "";
  complain("");
  recallAnswers();
  await send();
  fill();
}

const typing = (target) => target instanceof HTMLInputElement;

function pressed(event) {
  if (!isIn()) return;
  const key = event.key;
  if ((event.ctrlKey || event.metaKey) && !event.altKey && key.toLowerCase() === "z") {
    if (typing(event.target)) return;
    event.preventDefault();
    undo();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target)) {
    if (key === "Escape") { event.target.value = ""; showClasses(); part("accept").focus(); }
    if (key !== "Enter") return;
    event.preventDefault(); // or it would press the button that has the focus next as well
    if (!event.repeat && event.target.value.trim() && onThePage().length) answer(onThePage()[0][0]);
    return;
  }
  if (event.repeat) {
    if (key === "Enter" || key === " ") event.preventDefault(); // a key held down answers once
    return;
  }
  if (key === "Enter") {
    if (event.target instanceof HTMLButtonElement) return; // it is clicked
    accept();
  } else if (key >= "1" && key <= "9" && key.length === 1) {
    const [label] = onThePage()[Number(key) - 1] ?? [];
    if (label !== undefined) answer(label);
  } else if (key === "s" || key === "S") skip();
  else if (key === "u" || key === "U") undo();
  else if (key === "ArrowRight") turn(1);
  else if (key === "ArrowLeft") turn(-1);
  else if (key === "/" && !part("finding").hidden) part("find").focus();
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { if (isShown) seen += performance.now() - shownAt; return; }
  shownAt = performance.now();
  fill();
  send();
});
window.addEventListener("online", () => { send(); fill(); });
part("accept").addEventListener("click", accept);
part("skip").addEventListener("click", skip);
part("undo").addEventListener("click", undo);
part("before").addEventListener("click", () => turn(-1));
part("after").addEventListener("click", () => turn(1));
part("find").addEventListener("input", () => { classPage = 0; showClasses(); });
part("zoom").addEventListener("click", () => part("zoom").setAttribute("aria-pressed", part("zoom").getAttribute("aria-pressed") !== "true"));
part("who").addEventListener("click", () => known ? location.assign("/gate/") : enter(""));
part("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = part("name").value.trim().replace(/\s+/g, " ");
  if (!given) return;
  if (given !== person) { // what is in this hand was dealt to somebody else
    past.splice(0).forEach((each) => release(each.photo));
    coming.splice(0).forEach(release);
    current = null;
  }
  person = given;
  if (part("token").value) token = part("token").value.trim();
  begin();
});

const handed = new URLSearchParams(location.hash.slice(1)).get("token");
if (handed) { // behind #, no server has seen it; nor need anybody who looks at this screen
  token = handed;
  keep("dlassets.token", token);
  window.history.replaceState(null, "", location.pathname + location.search);
}
try { known = (await (await ask("who")).json()).name; } catch { /* what it asks next says why */ }
person = known ?? person;
recallAnswers();
if (person) begin();
else enter("");
