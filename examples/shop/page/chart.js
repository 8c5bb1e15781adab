// The chart: a bar for each response, and below it a bar for each of its tasks, on one time axis.
// Whatever the server says is shown as text: nothing here makes HTML of it.

const SHOWN = 4;

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export const milliseconds = time => `${time < 9.95 ? time.toFixed(1) : Math.round(time)} ms`;
export const isWithout = request => request.path.startsWith("/without/");
export const pattern = request => request.path.replace(/^\/without/, "");

// How each request was called on the page, and how long this browser has waited for its answer.
export const names = new Map();
export const waits = new Map();

const name = request => names.get(pattern(request)) ?? pattern(request);
const outcome = request => request.answered === null ? "in progress" : request.status ?? "the client has gone";

// The end of a bar; one that still grows ends now.
const endOf = (bar, now) => bar.ended ?? Math.max(now, bar.began);

function bars(request) {
  const response = { name: "response", kind: "response", began: request.began, ended: request.answered, end: null };
  const tasks = request.tasks.map(task => ({ ...task, kind: kindOf(task) }));
  return [response, ...tasks];
}

function kindOf(task) {
  if (task.end === "discarded") return "discarded";
  return task.end === null || task.end === "completed" ? "task" : "failed";
}

// The same as the bars, for whoever can't see them.
function sentence(request) {
  const said = bars(request).map(bar => {
    if (bar.kind === "discarded") return `${bar.name} was not run`;
    if (bar.began === null) return `${bar.name} waits`;
    const began = milliseconds(bar.began - request.began);
    if (bar.ended === null) return `${bar.name} runs since ${began}`;
    const how = bar.kind === "failed" ? `, ${bar.end}` : "";
    return `${bar.name} from ${began} to ${milliseconds(bar.ended - request.began)}${how}`;
  });
  return said.join("; ") + ".";
}

function row(request, bar, scale, now) {
  const track = element("div", { className: "track" });
  const place = time => `${(100 * (time - request.began)) / scale}%`;
  let duration = bar.kind === "discarded" ? "not run" : "waits";
  if (bar.began !== null || bar.ended !== null) {
    const began = bar.began ?? bar.ended;
    const drawn = element("div", { className: `bar ${bar.kind}${bar.ended === null ? " running" : ""}` });
    drawn.style.left = place(began);
    if (bar.kind !== "discarded") {
      const length = endOf(bar, now) - began;
      drawn.style.width = `${(100 * length) / scale}%`;
      duration = milliseconds(length);
    }
    Object.assign(drawn.dataset, { began: began - request.began, ended: endOf(bar, now) - request.began });
    track.append(drawn);
  }
  if (bar.kind !== "response" && request.answered !== null) {
    const mark = element("div", { className: "mark" });
    mark.style.left = place(request.answered);
    track.append(mark);
  }
  const label = bar.kind === "failed" ? `${bar.name}: ${bar.end}` : bar.name;
  return element("div", { className: "row" },
    element("span", { textContent: label, title: label }), track, element("span", { textContent: duration }));
}

function group(request, scale, now) {
  const without = isWithout(request);
  const waited = waits.get(request.id);
  const server = request.answered === null ? "in progress" : `server ${milliseconds(request.answered - request.began)}`;
  const heading = element("h3", {},
    element("span", { textContent: name(request) }),
    element("span", { className: `variant${without ? "" : " with"}`, textContent: without ? "without after" : "with after" }),
    element("span", { className: "waited", textContent: waited === undefined ? server : `the browser waited ${milliseconds(waited)}` }));
  const drawn = element("div", {}, ...bars(request).map(bar => row(request, bar, scale, now)));
  drawn.setAttribute("aria-hidden", "true");
  const item = element("li", {}, heading, element("p", { className: "hidden", textContent: sentence(request) }), drawn);
  Object.assign(item.dataset, { request: request.id, path: request.path });
  return item;
}

// One of 1, 2 or 5 times a power of ten, so that there are about as many of them as are wanted.
function step(longest, wanted) {
  const power = 10 ** Math.floor(Math.log10(longest / wanted));
  return [1, 2, 5, 10].map(factor => factor * power).find(size => longest / size <= wanted + 0.5);
}

// `requests`: the newest first.
export function draw(requests, now) {
  const shown = requests.slice(0, SHOWN);
  const longest = Math.max(10, ...shown.flatMap(request =>
    bars(request).filter(bar => bar.began !== null).map(bar => endOf(bar, now) - request.began)));
  const chart = document.getElementById("chart");
  const size = step(longest, chart.clientWidth < 480 ? 3 : 6);
  const scale = Math.ceil(longest / size) * size;
  chart.style.setProperty("--step", `${(100 * size) / scale}%`);
  chart.replaceChildren(...shown.map(request => group(request, scale, now)));

  const ticks = element("div", { className: "ticks" });
  for (let time = 0; time <= scale * 1.0001; time += size) {
    const tick = element("span", { textContent: Math.round(time) });
    tick.style.left = `${(100 * time) / scale}%`;
    ticks.append(tick);
  }
  const axis = document.getElementById("axis");
  axis.replaceChildren(ticks, element("span", { className: "unit", textContent: "ms" }));
  axis.hidden = shown.length === 0;
}

export function table(requests) {
  const time = (request, at) => at === null ? "–" : (at - request.began).toFixed(1);
  const rows = requests.flatMap(request => bars(request).map((bar, index) => element("tr", {},
    element(index === 0 ? "th" : "td", {
      textContent: index === 0 ? `${name(request)}, ${isWithout(request) ? "without" : "with"} after` : "",
      scope: "row",
    }),
    ...[bar.name, time(request, bar.began), time(request, bar.ended), index === 0 ? outcome(request) : bar.end ?? "runs"]
      .map(textContent => element("td", { textContent })))));
  document.getElementById("rows").replaceChildren(...rows);
}
