// Sends the forms, measures how long their answers take, and shows what the stream of events tells.

import { draw, element, isWithout, milliseconds, names, pattern, table, waits } from "/chart.js";

const $ = id => document.getElementById(id);
const requests = new Map();
// What was waited for, by pattern: { without, with }, in milliseconds.
const compared = new Map();
// Painted when this request's tasks have ended.
const pictures = new Map();
let phase = "serving";

for (const form of document.querySelectorAll("form.pattern")) {
  names.set(form.getAttribute("action"), form.dataset.name);
  form.addEventListener("submit", event => {
    event.preventDefault();
    send(form, event.submitter?.getAttribute("formaction") ?? form.getAttribute("action"));
  });
}

async function send(form, path) {
  // A second one at the same time would be measured with the first.
  if (form.ariaBusy === "true") return;
  busy(form, true);
  try {
    const options = { method: form.method, headers: { accept: "application/json" } };
    if (form.method === "post") options.body = await content(form);
    const began = performance.now();
    const response = await fetch(path, options);
    const text = await response.text();
    await answered(form, path, response, text, waitedFor(response) ?? performance.now() - began);
  } catch (error) {
    say(`${form.dataset.name}: ${error.message === "too large" ? "A picture may have 4 MB at most."
      : "the shop does not answer. What you have entered is still there."}`, true);
  } finally {
    busy(form, false);
  }
}

// As the browser has measured it, whatever else this page was doing. It keeps but so many of them.
function waitedFor(response) {
  const measured = performance.getEntriesByName(response.url, "resource").at(-1)?.duration;
  performance.clearResourceTimings();
  return measured || undefined;
}

function busy(form, is) {
  form.ariaBusy = String(is);
  for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", String(is));
}

async function content(form) {
  const entries = new FormData(form);
  if (form.enctype !== "multipart/form-data") return new URLSearchParams(entries);
  const picture = entries.get("picture");
  if (picture.size > 4 * 1024 * 1024 - 1024) throw new Error("too large");
  if (picture.size === 0) entries.set("picture", await painted(), "painted.png");
  return entries;
}

function painted() {
  const canvas = element("canvas", { width: 1000, height: 700 });
  const context = canvas.getContext("2d");
  const sky = context.createLinearGradient(0, 0, 1000, 700);
  for (const [at, colour] of [[0, "#2f6fe0"], [0.5, "#f2b45c"], [1, "#16875a"]]) sky.addColorStop(at, colour);
  context.fillStyle = sky;
  context.fillRect(0, 0, 1000, 700);
  context.fillStyle = "#fff8";
  for (let index = 0; index < 60; index++) {
    context.beginPath();
    context.arc(Math.random() * 1000, Math.random() * 700, 10 + Math.random() * 60, 0, 7);
    context.fill();
  }
  return new Promise(resolve => canvas.toBlob(resolve, "image/png"));
}

async function answered(form, path, response, text, waited) {
  const id = Number(response.headers.get("x-request"));
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  const reply = isJson ? JSON.parse(text) : { message: `The report has ${text.trim().split("\n").length - 1} orders.` };
  const variant = path.startsWith("/without/") ? "without" : "with";
  say(`${form.dataset.name}, ${variant} after: ${response.ok ? "" : "refused. "}${reply.message} You waited ${milliseconds(waited)}.`, !response.ok);
  waits.set(id, waited);
  if (response.ok) compare(form.getAttribute("action"), variant, waited);
  if (response.ok && reply.id !== undefined) {
    if (form.getAttribute("action") === "/purchase") document.querySelector("[name=order]").value = reply.id;
    if (form.getAttribute("action") === "/pictures") {
      pictures.set(id, reply.id);
      // The stream may have told of its end before this answer was read.
      if (requests.has(id)) thumbnail(requests.get(id));
    }
  }
  refresh();
  const chart = $("chart-title");
  if (chart.getBoundingClientRect().top > innerHeight * 0.75) {
    chart.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
  }
  // The next one can't be the same.
  if (form.getAttribute("action") === "/users/delete") await visitor();
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");

function say(text, wrong = false) {
  $("said").textContent = text;
  $("said").classList.toggle("wrong", wrong);
}

function compare(action, variant, waited) {
  const times = compared.get(action) ?? {};
  times[variant] = waited;
  compared.set(action, times);
  $("compared").hidden = false;
  $("what").textContent = names.get(action);
  const shown = time => time === undefined ? "–" : milliseconds(time);
  $("without").textContent = shown(times.without);
  $("with").textContent = shown(times.with);
  $("less").textContent = shown(times.without - times.with || undefined);
}

// ---- who is signed in ----

let asked = 0;
const target = document.querySelector("[name=target]");
let offered = target.value;

async function visitor() {
  const question = ++asked;
  const { user, guest } = await (await fetch("/visitor")).json();
  // An answer that was overtaken by a newer one is out of date.
  if (question !== asked) return;
  $("user").value = user?.login ?? "";
  // What somebody has entered stays.
  if (target.value === offered && guest !== null) target.value = offered = guest;
}

$("login").addEventListener("submit", async event => {
  event.preventDefault();
  const user = $("user").value;
  const options = { method: "post", headers: { accept: "application/json" } };
  if (user !== "") options.body = new URLSearchParams({ user });
  try {
    const response = await fetch(user === "" ? "/logout" : "/login", options);
    say((await response.json()).message, !response.ok);
    await visitor();
  } catch {
    say("The shop does not answer.", true);
  }
});
// Nothing is left to press with a mouse.
$("user").addEventListener("change", () => $("login").requestSubmit());

// ---- the stream of events ----

// The server's clock less this one: what has just come has just happened.
let ahead = -Infinity;
const events = new EventSource("/events");

events.addEventListener("message", ({ data }) => {
  const news = JSON.parse(data);
  for (const request of news.requests) {
    requests.set(request.id, request);
    const times = [request.began, request.answered, ...request.tasks.flatMap(task => [task.began, task.ended])];
    ahead = Math.max(ahead, Math.max(...times) - performance.now());
    thumbnail(request);
  }
  for (const id of [...requests.keys()].sort((a, b) => a - b).slice(0, -24)) {
    requests.delete(id);
    waits.delete(id);
  }
  log(news.lines);
  account(news.account);
  jobs(news.jobs);
  phase = news.phase;
  refresh();
  status();
});
events.addEventListener("open", () => {
  // A service that was started anew counts from one.
  requests.clear();
  $("log").replaceChildren();
  ahead = -Infinity;
  phase = "serving";
  status();
});
events.addEventListener("error", () => {
  if (phase === "serving") {
    phase = "lost";
    status();
  }
});

function status() {
  const waiting = [...requests.values()].flatMap(request => request.tasks).filter(task => task.ended === null);
  const report = [...$("log").children].at(-1)?.textContent.replace(/^\w+ /, "");
  const text = {
    serving: "",
    lost: "The connection to the shop is lost. Trying again …",
    stopping: `The shop is stopping. ${waiting.length ? `It waits for: ${waiting.map(task => task.name).join(", ")}.` : "It waits for nothing."}`,
    stopped: `The shop has stopped: ${report}.`,
  }[phase];
  if ($("phase").textContent !== text) $("phase").textContent = text;
  $("phase").hidden = text === "";
  if (phase === "stopped") events.close();
}

function refresh() {
  const newest = [...requests.values()].sort((a, b) => b.id - a.id);
  draw(newest, performance.now() + ahead);
  table(newest);
  const runs = newest.slice(0, 4).some(request =>
    request.answered === null || request.tasks.some(task => task.began !== null && task.ended === null));
  // Bars that grow.
  if (runs && !calm.matches && phase !== "stopped" && phase !== "lost") schedule();
}

addEventListener("resize", refresh);

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  // Not at each frame: the page is not to compete with what it shows, on the same machine.
  setTimeout(() => {
    scheduled = false;
    refresh();
  }, 80);
}

function thumbnail(request) {
  if (!pictures.has(request.id) || request.answered === null || request.tasks.some(task => task.ended === null)) return;
  const image = element("img", { src: `/thumbnails/${pictures.get(request.id)}`, alt: "The thumbnail of your picture" });
  $("thumbnail").replaceChildren(image);
  pictures.delete(request.id);
}

function account(counts) {
  const entries = Object.entries(counts).map(([head, count]) =>
    element("div", {}, element("dt", { textContent: head.replace("_", " ") }), element("dd", { textContent: count })));
  $("account").replaceChildren(...entries);
}

function jobs(all) {
  const attempts = count => count === 1 ? "1 attempt" : `${count} attempts`;
  const items = all.map(({ name, payload, state, attempts: ended, left }) => {
    const now = {
      Pending: ended === 0 ? "" : `${attempts(ended)}, given back`,
      Running: `attempt ${ended + 1} runs`,
      Failed: `${attempts(ended)} failed, tried again`,
      Done: `done, ${attempts(ended)}`,
      Killed: `given up, ${attempts(ended)}`,
    }[state] ?? state;
    const states = ["enqueued", left ? "the shop was started again" : "", now].filter(state => state !== "");
    return element("li", {},
      element("span", { textContent: `${name} ${payload}` }),
      element("span", { className: `state ${state.toLowerCase()}`, textContent: states.join(" → ") }));
  });
  $("jobs").replaceChildren(...items);
  $("no-jobs").hidden = all.length > 0;
}

function log(lines) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 20;
  for (const line of lines) {
    log.append(element("li", { textContent: line, className: line.startsWith("ERROR") ? "error" : "" }));
  }
  while (log.children.length > 60) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

visitor();
