"use strict";
// Text of others (keys, errors) is only ever set as text. Nothing here makes HTML of a string.

const EVERY = 2000;
const HITS = ["hit", "stale", "pending", "local"];
const SVG = "http://www.w3.org/2000/svg";
const base = location.pathname.replace(/\/+$/, "");
const $ = (id) => document.getElementById(id);

// -- text ----------------------------------------------------------------------------------------

const number = (value) => value.toLocaleString("en");
const share = (part, whole) => (whole ? (100 * part / whole).toFixed(1) + " %" : "–");

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return (unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)) + " " + units[unit];
}

function span(seconds) {
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return seconds < 129600 ? Math.round(seconds / 3600) + " h" : Math.round(seconds / 86400) + " d";
}

// -- elements ------------------------------------------------------------------------------------

function make(tag, look, ...children) {
  const made = document.createElement(tag);
  if (look) made.className = look;
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function draw(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const tell = (id, text) => { $(id).textContent = text; };
const cells = (...parts) => make("tr", "", ...parts.map(([look, text]) => make("td", look, text)));

// -- charts --------------------------------------------------------------------------------------

// Bars: [{label, here, far, top}], `top` the value at full height.
function bars(id, all, title, left) {
  const width = 600, height = 120, floor = 118, ceiling = 4;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", preserveAspectRatio: "none" });
  svg.append(draw("title", {}, title));
  svg.append(draw("line", { x1: 0, x2: width, y1: floor, y2: floor }));
  const step = width / Math.max(1, all.length);
  const broad = Math.max(1, Math.min(step - 2, 40));
  all.forEach((each, index) => {
    const unit = (floor - ceiling) / Math.max(each.top, 1e-9);
    let y = floor;
    const group = draw("g", {});
    group.append(draw("title", {}, each.label));
    for (const look of ["here", "far"]) {
      const tall = each[look] * unit;
      if (tall <= 0) continue;
      y -= tall;
      group.append(draw("rect", {
        class: look, x: index * step + (step - broad) / 2, y, width: broad, height: tall,
      }));
    }
    svg.append(group);
  });
  $(id).replaceChildren(svg, make("p", "ends", make("span", "", left), make("span", "", "now")));
}

function minutesOf(data) {
  const found = new Map();
  const last = Math.floor(data.now / 60) * 60;
  for (let at = last - 59 * 60; at <= last; at += 60) found.set(at, { at, hits: 0, misses: 0, bytes: {} });
  for (const each of data.minutes) {
    const minute = found.get(each.minute);
    if (!minute) continue;
    if (HITS.includes(each.what)) minute.hits += each.count;
    if (each.what === "miss") minute.misses += each.count;
    minute.bytes[each.what] = (minute.bytes[each.what] || 0) + each.bytes;
  }
  return [...found.values()];
}

function showReads(data) {
  const minutes = minutesOf(data);
  const sum = (some, name) => some.reduce((all, each) => all + each[name], 0);
  const hits = sum(minutes, "hits"), misses = sum(minutes, "misses");
  const lately = minutes.slice(-15);
  const recent = sum(lately, "hits"), reads = recent + sum(lately, "misses");
  tell("rate", reads ? share(recent, reads) : share(hits, hits + misses));
  tell("rate-of", reads ? `of ${number(reads)} reads in 15 minutes` : "of the last hour");
  tell("reads", number(hits + misses));
  tell("reads-of", `${number(hits)} from here, ${number(misses)} from the bucket`);
  const top = Math.max(1, ...minutes.map((each) => each.hits + each.misses));
  bars("minutes", minutes.map((each) => ({
    label: `${new Date(each.at * 1000).toLocaleTimeString()}: ${each.hits} from here, ${each.misses} from the bucket`,
    here: each.hits, far: each.misses, top,
  })), `reads by minute, at most ${top}`, `one hour ago; the highest bar is ${number(top)}`);
  const bytes = (what) => minutes.reduce((all, each) => all + (each.bytes[what] || 0), 0);
  return { cache: bytes("hit") + bytes("stale"), spool: bytes("pending"), local: bytes("local"), remote: bytes("miss") };
}

function showDays(data) {
  const days = data.history.by_day;
  bars("days", days.map((each) => ({
    label: `${each.name}: ${share(each.hit_rate, 1)} of ${number(each.reads)} reads, ${share(each.byte_hit_rate, 1)} of their bytes`,
    here: each.hit_rate, far: 1 - each.hit_rate, top: 1,
  })), "hit rate by day", days.length ? `${days[0].name} (UTC)` : "nothing was read yet");
}

function showSources(data, hour) {
  const month = {};
  for (const each of data.history.by_source) month[each.what] = each.bytes;
  const kinds = [["cache", "here", "cache"], ["spool", "spool", "spool"], ["local", "local", "local folder"], ["remote", "far", "bucket"]];
  const rows = [["Last hour", hour], ["30 days", month]].flatMap(([title, from]) => {
    const all = kinds.reduce((sum, [name]) => sum + (from[name] || 0), 0);
    const bar = make("div", "bar tall");
    const told = make("p", "legend");
    for (const [name, look, words] of kinds) {
      const part = from[name] || 0;
      if (!part) continue;
      const piece = make("i", look);
      piece.style.flexGrow = part / all;
      bar.append(piece);
      told.append(make("span", "key " + look), `${words} ${size(part)} (${share(part, all)})`);
    }
    if (!all) told.append("nothing was read");
    return [make("small", "", title), bar, told];
  });
  $("sources").replaceChildren(...rows);
}

// -- tables --------------------------------------------------------------------------------------

function showQueue(data) {
  $("queue").replaceChildren(...data.queue.map((item) => {
    const row = cells(
      ["text", item.key || item.path || "(unreadable)"],
      ["", item.operation === "delete" ? `${item.state}, delete` : item.state],
      ["n", size(item.size)], ["n", span(item.age)], ["n", number(item.tries)],
      ["text", item.last_error || ""],
    );
    const last = make("td");
    if (item.key && (item.state === "parked" || item.state === "retrying")) {
      const button = make("button", "", "Retry");
      button.type = "button";
      button.addEventListener("click", () => act("retry", button, { key: item.key }));
      last.append(button);
    }
    row.append(last);
    return row;
  }));
  const more = data.queue_length - data.queue.length;
  tell("queue-more", data.queue_length ? (more ? `and ${number(more)} more` : "") : "The bucket has everything.");
}

function showCopies(data) {
  $("largest").replaceChildren(...data.largest.map((each) =>
    cells(["text", each.key], ["n", size(each.size)], ["n", number(each.uses)])));
  $("hottest").replaceChildren(...data.hottest.map((each) =>
    cells(["text", each.key], ["n", number(each.uses)], ["n", span(Math.max(0, data.now - each.used))])));
}

function showHealth(data) {
  const health = data.health, cache = health.cache, pending = health.pending;
  const status = $("status");
  status.textContent = health.status;
  status.className = "pill " + (health.status === "healthy" ? "good" : "bad");
  document.title = `${health.status} – cachestore`;
  tell("mode", `${health.mode}: ${health.reason}`);
  $("alerts").replaceChildren(...health.alerts.map((text) => make("li", "", text)));
  tell("fill", share(cache.bytes, cache.max_bytes));
  $("fill-bar").style.width = Math.min(100, 100 * cache.bytes / Math.max(1, cache.max_bytes)) + "%";
  tell("fill-of", `${size(cache.bytes)} of ${size(cache.max_bytes)}, ${number(cache.entries)} copies`);
  tell("waiting", number(data.queue_length));
  tell("waiting-of", data.queue_length
    ? `${size(pending.bytes)}, the oldest for ${span(pending.oldest_seconds)}, ${number(pending.parked)} parked` : "nothing");
  tell("bucket", health.bucket ? size(health.bucket.bytes) : "–");
  tell("bucket-of", health.bucket
    ? `${number(health.bucket.objects)} objects, ${span(health.bucket.age)} ago`
    : health.remote ? "not counted" : "there is none in this mode");
  $("checks").replaceChildren(...health.checks.map((each) => make("li", "",
    make("b", each.ok ? "good" : "bad", (each.ok ? "✓ " : "✗ ") + each.name), each.detail)));
  const uploader = health.uploader;
  const facts = [
    ["remote", health.remote ? (health.remote.state === "closed" ? health.remote.name : `${health.remote.name}, which does not work`) : "none"],
    ["uploader", uploader.state + (uploader.leader_pid ? `, process ${uploader.leader_pid}` : "")],
    ["last progress", uploader.progress_age === null ? "none yet" : span(uploader.progress_age) + " ago"],
    ["pinned", number(cache.pinned)],
    ...Object.entries(health.folders),
    ...Object.entries(health.foreign || {}).map(([id, count]) => ["foreign", `${count} wait for remote ${id}`]),
    ["answered by", `process ${data.pid}`],
  ];
  $("facts").replaceChildren(...facts.flatMap(([name, text]) => [make("dt", "", name), make("dd", "", text)]));
}

// -- live ----------------------------------------------------------------------------------------

function fail(text) {
  $("status").textContent = text;
  $("status").className = "pill bad";
}

async function refresh() {
  const answer = await fetch(base + "/data", { cache: "no-store", credentials: "same-origin" });
  const data = await answer.json();
  if (!answer.ok) throw new Error(data.detail || `status ${answer.status}`);
  showHealth(data);
  showSources(data, showReads(data));
  showDays(data);
  showQueue(data);
  showCopies(data);
}

async function live() {
  try {
    if (!document.hidden) await refresh();
  } catch (error) {
    fail(`no answer: ${error.message}`);
  }
  setTimeout(live, EVERY);
}

async function act(what, button, body) {
  button.disabled = true;
  tell("done", "…");
  try {
    const answer = await fetch(`${base}/${what}`, {
      method: "POST", credentials: "same-origin", body: JSON.stringify(body || {}),
      headers: { "content-type": "application/json", "x-cachestore-action": "1" },
    });
    const told = await answer.json();
    if (!answer.ok) throw new Error(typeof told.detail === "string" ? told.detail : `status ${answer.status}`);
    const words = Object.entries(told).filter(([, value]) => value !== "" && value !== 0);
    tell("done", words.map(([name, value]) => `${name}: ${value}`).join(", ") || "nothing to do");
    await refresh();
  } catch (error) {
    tell("done", error.message);
  }
  button.disabled = false;
}

for (const what of ["flush", "retry", "clean"]) {
  $(what).addEventListener("click", () => act(what, $(what)));
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh().catch(() => undefined); });
live();
