// The live part of the dashboard. Without it the page is the same, and stands still.
"use strict";

const REFRESH_PAUSE = 15_000; // milliseconds; ages grow also when nothing happens
const SAY_LOST_AFTER = 4_000; // a stream ends by itself, and comes back within two seconds

const byId = (id) => document.getElementById(id);
const live = byId("live");
let latest = live.dataset.latest;
let isRunning = !live.hidden;
let isOver = false; // the session is

// --- What does not change: the overview, fetched anew when something has happened ---

let fetching = null;
let isWanted = false;
let refreshedAt = new Date();
let isOld = false; // the last refresh has failed

async function refresh() {
  if (isOver) return;
  if (fetching) {
    isWanted = true;
    return;
  }
  fetching = new AbortController();
  const timeout = setTimeout(() => fetching.abort(), 10_000);
  try {
    const answer = await fetch("/dashboard/overview", { signal: fetching.signal, headers: { Accept: "text/html" } });
    if (answer.status === 401) return sayOver();
    if (!(answer.headers.get("Content-Type") || "").startsWith("text/html")) throw new Error(answer.status);
    replaceOverview(await answer.text());
    refreshedAt = new Date();
    isOld = false;
  } catch {
    isOld = true;
  } finally {
    clearTimeout(timeout);
    fetching = null;
    sayConnection();
    if (isWanted) {
      isWanted = false;
      refresh();
    }
  }
}

function replaceOverview(html) {
  const overview = byId("overview");
  const focused = document.activeElement && overview.contains(document.activeElement) ? document.activeElement : null;
  const open = [...overview.querySelectorAll("details[open]")].map((each) => each.id);
  const scrolled = overview.querySelector(".scroll")?.scrollTop || 0;
  const before = byId("headline-text")?.textContent;
  overview.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  for (const id of open) byId(id)?.setAttribute("open", "");
  const scroll = overview.querySelector(".scroll");
  if (scroll) scroll.scrollTop = scrolled;
  dress();
  if (focused) {
    const again = focused.id ? byId(focused.id) : focused.matches("summary") ? overview.querySelector("summary") : null;
    (again || overview).focus({ preventScroll: true });
  } else {
    hideTip();
  }
  const after = byId("headline-text")?.textContent;
  // Ages in it change all the time; what it says without them is news.
  const withoutNumbers = (text) => (text || "").replace(/(?:[\d.,]+\s?(?:(?:s|min|h|days?)\b\s?)?)+/g, "");
  if (withoutNumbers(before) !== withoutNumbers(after)) byId("said").textContent = after;
}

// --- What changes: the run under way, by server-sent events ---

let lostSince = null;
let isDraining = false;
let source = null;

// Not while the page is out of sight: a browser opens no more than six connections to one host.
function connect() {
  if (isOver || document.hidden) return;
  source = new EventSource("/dashboard/events");
  source.onmessage = hear;
  source.onerror = lose;
}

function disconnect() {
  source?.close();
  source = null;
  lostSince = null;
}

function hear(event) {
  lostSince = null;
  const sight = JSON.parse(event.data);
  isDraining = sight.state === "draining";
  const wasRunning = isRunning;
  isRunning = sight.state === "running";
  live.hidden = !isRunning;
  if (isRunning) {
    const bar = byId("live-bar");
    if (sight.expected) {
      bar.max = sight.expected;
      bar.value = sight.done;
    } else {
      bar.removeAttribute("value");
    }
    byId("live-mentors").textContent = sight.mentors;
    byId("live-pace").textContent = sight.pace;
    byId("live-outcome").textContent = sight.outcome;
    showShards(sight.shards);
  }
  if (isRunning && !wasRunning) byId("said").textContent = "A run has begun.";
  if (!isRunning && wasRunning) byId("said").textContent = "The run has ended.";
  sayConnection();
  if (!isDraining && sight.latest !== latest) {
    latest = sight.latest;
    refresh();
  }
}

// In place, so that what somebody points at or has the focus on stays.
function showShards(shards) {
  const place = byId("live-shards");
  place.hidden = !shards;
  if (!shards) return;
  place.querySelector(".summary").textContent = shards.summary;
  fill(place.querySelector(".strip"), "a-cell", shards.cells, (cell, { kind, again, text }) => {
    cell.setAttribute("class", `cell ${kind}${again ? " again" : ""}`);
    cell.querySelector("use").setAttribute("href", `#shape-${kind}`);
    cell.setAttribute("aria-label", text.replaceAll("\n", ". "));
    cell.dataset.lines = text;
  });
  place.querySelector(".strip").classList.toggle("long", shards.is_long);
  for (const each of place.querySelectorAll("[data-kind]")) each.hidden = !shards.kinds.includes(each.dataset.kind);
  fill(place.querySelector(".workers"), "a-worker", shards.workers, (row, worker) => {
    row.className = worker.is_silent ? "silent" : "";
    row.querySelector(".name").textContent = worker.name;
    row.querySelector(".heard").textContent = worker.heard;
    row.querySelector(".note").textContent = worker.did;
    row.querySelector(".fill").setAttribute("width", worker.width);
  });
  dressCells(place.querySelector(".strip"));
  if (place.contains(tipped)) showTip(tipped);
}

// As many copies of the template as there is to show, each as `show` makes it.
function fill(parent, template, shown, show) {
  while (parent.children.length > shown.length) parent.lastElementChild.remove();
  while (parent.children.length < shown.length) parent.append(byId(template).content.cloneNode(true));
  shown.forEach((each, index) => show(parent.children[index], each));
}

function lose() {
  lostSince ??= Date.now();
  if (source.readyState === EventSource.CLOSED) refresh(); // refused for good: is it the session?
}

// The worst of what keeps the page from being what is.
function sayConnection() {
  if (isOver) return;
  const isLost = lostSince && Date.now() - lostSince > SAY_LOST_AFTER;
  const isRefused = source?.readyState === EventSource.CLOSED;
  let text = "";
  if (isLost && !isRefused) text = "Connection lost; trying again …";
  else if (isDraining) text = "The service is shutting down";
  else if (isOld) text = `Not refreshed since ${clock(refreshedAt)}; trying again …`;
  else if (isLost) text = "Not live: refreshed every 15 s";
  const place = byId("connection");
  if (place.textContent !== text) place.textContent = text; // a status is read out when it is set
}

const clock = (moment) =>
  moment.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

setInterval(sayConnection, 1_000);
setInterval(() => document.hidden || refresh(), REFRESH_PAUSE);
document.addEventListener("visibilitychange", () => {
  disconnect();
  if (document.hidden) return;
  refresh();
  connect();
});
addEventListener("pagehide", disconnect);

function sayOver() {
  isOver = true;
  disconnect();
  const link = Object.assign(document.createElement("a"), { href: "/login", textContent: "Log in again" });
  byId("connection").replaceChildren("This session has ended. ", link);
}

// --- Tooltips, the arrow keys, and local time ---

const tip = byId("tip");
let tipped = null; // the part whose tip is shown

function dress() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, {
      month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false,
    });
  }
  const bars = [...document.querySelectorAll("#timeline .bar")];
  bars.forEach((bar, index) => {
    bar.querySelector("title")?.remove(); // or there would be two
    bar.setAttribute("tabindex", index === bars.length - 1 ? "0" : "-1");
    bar.setAttribute("aria-label", `${localTime(bar)}. ${bar.getAttribute("aria-label")}`);
  });
  document.querySelectorAll(".strip").forEach(dressCells);
}

// One stop of the keyboard, as the bars are: where it was, or else the first.
function dressCells(strip) {
  const cells = [...strip.children];
  const stops = cells.filter((cell) => cell.getAttribute("tabindex") === "0");
  const stop = stops.length === 1 ? stops[0] : cells[0];
  for (const cell of cells) {
    cell.querySelector("title")?.remove();
    cell.setAttribute("tabindex", cell === stop ? "0" : "-1");
  }
}

const localTime = (bar) =>
  new Date(bar.dataset.at).toLocaleString(undefined, {
    weekday: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
  });

function showTip(part) {
  const lines = [part.dataset.at && localTime(part), part.dataset.lines, part.dataset.pause];
  tip.textContent = lines.filter(Boolean).join("\n");
  tip.hidden = false;
  tipped = part;
  placeTip();
}

// Also when the page is scrolled, as it is when the focus goes to a bar that is out of sight.
function placeTip() {
  if (!tipped?.isConnected) return hideTip();
  const around = (tipped.querySelector(".body, rect") || tipped).getBoundingClientRect();
  const middle = around.left + around.width / 2 - tip.offsetWidth / 2;
  const above = around.top - tip.offsetHeight - 16;
  tip.style.left = `${Math.max(8, Math.min(middle, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
  const below = Math.max(8, Math.min(around.bottom + 8, innerHeight - tip.offsetHeight - 8));
  tip.style.top = `${above > 4 ? above : below}px`;
}

function hideTip() {
  tipped = null;
  tip.hidden = true;
}

const STOPS = "#timeline .bar, .strip .cell"; // the arrow keys go through them
const parted = (event) => event.target.closest?.(`${STOPS}, .column`);

document.addEventListener("pointerover", (event) => {
  const part = parted(event);
  if (part) showTip(part);
  else if (!document.activeElement?.matches(STOPS)) hideTip();
});
document.addEventListener("focusin", (event) => (parted(event) ? showTip(parted(event)) : hideTip()));
document.addEventListener("focusout", hideTip);
addEventListener("scroll", placeTip, { passive: true });
addEventListener("resize", placeTip);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return hideTip();
  const part = event.target.closest?.(STOPS);
  if (!part) return;
  const parts = [...part.parentElement.children].filter((each) => each.matches(STOPS));
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -parts.length, End: parts.length };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const place = Math.max(0, Math.min(parts.indexOf(part) + steps[event.key], parts.length - 1));
  part.setAttribute("tabindex", "-1");
  parts[place].setAttribute("tabindex", "0");
  parts[place].focus();
});

dress();
connect();
