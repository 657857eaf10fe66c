"use strict";
// What was asked, as a list that can be searched, filtered and sorted. All text goes into the page as text nodes.

const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.videos.flatMap((video) => video.rows.map((row) => Object.assign(row, { video })));
const chosen = { text: "", task: "", rule: "", source: "", low: null, high: null, sort: "asked" };
const PAGE = 200; // entries of the list that are drawn at once
let listed = []; // the rows that pass the filters, sorted
let current = null;

// An element with attributes, event handlers (onclick: ..) and children; a string is a text node.
function el(tag, set = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(set)) {
    if (key === "style") Object.entries(value).forEach(([name, content]) => node.style.setProperty(name, content));
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Seconds as people read them: 9.0, and 1:02:09 where a video is long.
function clock(seconds, duration = 0) {
  if (Math.max(seconds, duration) < 600) return seconds.toFixed(1);
  const whole = Math.floor(seconds);
  const part = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return `${hours ? `${hours}:${part(minutes)}` : minutes}:${part(whole % 60)}`;
}

function between(span, duration) {
  const unit = duration < 600 ? " s" : "";
  return `${clock(span[0], duration)}–${clock(span[1], duration)}${unit}`;
}

// Seconds of the longest true moment, or of the first predicted one where none is known.
function momentLength(row) {
  const spans = row.truth.length ? row.truth : row.spans.slice(0, 1);
  return spans.length ? Math.max(...spans.map((span) => span[1] - span[0])) : null;
}

const SORTS = {
  asked: ["as asked", () => 0],
  worst: ["IoU, worst first", (a, b) => (a.iou ?? 2) - (b.iou ?? 2)],
  best: ["IoU, best first", (a, b) => (b.iou ?? -1) - (a.iou ?? -1)],
  short: ["shortest moment first", (a, b) => (momentLength(a) ?? Infinity) - (momentLength(b) ?? Infinity)],
};

function passes(row) {
  const words = [row.text, row.answer, row.video.name, row.id, ...row.spans.map((span) => span[4])].join("\n");
  const length = momentLength(row);
  return (
    words.toLowerCase().includes(chosen.text.toLowerCase()) &&
    ["task", "source"].every((key) => !chosen[key] || row[key] === chosen[key]) &&
    (!chosen.rule || (row.rule ?? "unparsed") === chosen.rule) &&
    (chosen.low === null || (length !== null && length >= chosen.low)) &&
    (chosen.high === null || (length !== null && length <= chosen.high))
  );
}

function apply() {
  listed = rows.filter(passes).sort(SORTS[chosen.sort][1]);
  drawList(PAGE);
  drawOverview(listed);
  if (!listed.includes(current)) select(listed[0] ?? null);
}

function drawList(most) {
  const more = listed.length - most;
  const button = el("button", { type: "button", onclick: () => drawList(most + PAGE) }, `${more} more`);
  const count = `${listed.length} of ${rows.length} answers`;
  document
    .getElementById("list")
    .replaceChildren(el("p", { id: "count" }, count), ...listed.slice(0, most).map(entry), more > 0 ? button : "");
}

function entry(row) {
  const mark = row.iou === null ? null : el("meter", { min: 0, max: 1, value: row.iou, title: `IoU ${row.iou}` });
  const score = row.iou === null ? null : el("span", { class: "iou" }, `IoU ${row.iou.toFixed(2)}`);
  const shown = row.spans.length ? between(row.spans[0], row.video.duration) : row.rule === null ? "unparsed" : "no span";
  row.entry = el(
    "button",
    { type: "button", class: "entry", "aria-current": row === current ? "true" : null, onclick: () => select(row) },
    el("bdi", { class: "text" }, row.text),
    el("span", { class: "about" }, el("bdi", {}, row.video.name), el("span", {}, shown), score, mark),
  );
  return row.entry;
}

function select(row) {
  current?.entry?.removeAttribute("aria-current");
  const other = row?.video !== current?.video;
  current = row;
  row?.entry?.setAttribute("aria-current", "true");
  row?.entry?.scrollIntoView({ block: "nearest" });
  if (other) drawStage(row?.video ?? null);
  markLane(row);
}

// One of the values that the rows have under a key; nothing to choose where they agree.
function choice(key, label, value) {
  const values = [...new Set(rows.map(value))].filter(Boolean).sort();
  if (values.length < 2) return null;
  const options = values.map((name) => el("option", { value: name }, name.replaceAll("_", " ")));
  const onchange = (event) => ((chosen[key] = event.target.value), apply());
  return el("label", {}, label, el("select", { name: key, onchange }, el("option", { value: "" }, "all"), ...options));
}

function bound(key, label) {
  const oninput = ({ target }) => ((chosen[key] = target.value === "" ? null : Number(target.value)), apply());
  return el("label", {}, label, el("input", { name: key, type: "number", min: 0, step: "any", oninput }));
}

function drawFilters() {
  const known = rows.some((row) => row.iou !== null);
  const sorts = Object.entries(SORTS).filter(([name]) => known || !["worst", "best"].includes(name));
  const options = sorts.map(([name, [label]]) => el("option", { value: name }, label));
  const onchange = (event) => ((chosen.sort = event.target.value), apply());
  const oninput = (event) => ((chosen.text = event.target.value), apply());
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = rows.length < 2;
  const parts = [
    el("label", {}, "search", el("input", { name: "text", type: "search", oninput })),
    el("label", {}, "sort", el("select", { name: "sort", onchange }, ...options)),
    bound("low", "moments from (s)"),
    bound("high", "to (s)"),
    choice("task", "task", (row) => row.task),
    choice("rule", "read by", (row) => row.rule ?? "unparsed"),
    choice("source", "source", (row) => row.source),
  ];
  form.replaceChildren(...parts.filter((part) => part !== null));
}

function drawFacts() {
  const pairs = data.facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, el("bdi", {}, value))]);
  document.getElementById("facts").replaceChildren(...pairs);
}

// The scripts behind this one define the stage and the overview first.
document.addEventListener("DOMContentLoaded", () => {
  drawFacts();
  drawFilters();
  apply();
});
