// One video beside its timeline. A span is a button that plays it; times are seconds behind the first picture.

const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600];
const ROW_PX = 22; // height of a row of spans
let player = null; // the <video>, where there is one
let stopAt = null; // where a span that is played ends, on the player's clock
let lastSpan = -1; // place of the span played last among those of the video
let shownVideo = null;

function drawStage(video) {
  player?.pause();
  [player, stopAt, lastSpan, shownVideo] = [null, null, -1, video];
  const stage = document.getElementById("stage");
  if (!video) return stage.replaceChildren(el("p", { class: "note" }, "No answer passes these filters."));
  const note = el("p", { class: "note", hidden: video.note ? null : "" }, el("bdi", {}, video.note));
  if (video.source) {
    const onerror = () => {
      note.hidden = false;
      note.textContent = "This browser cannot play the video. Make the page again with --reencode.";
    };
    player = el("video", { src: video.source, controls: "", preload: "metadata", playsinline: "", onerror });
    player.addEventListener("play", follow);
    player.addEventListener("seeked", follow);
  }
  const lanes = video.rows.map((row) => lane(row, video));
  const playhead = el("div", { class: "playhead", hidden: player ? null : "" });
  const timeline = el("div", { class: "timeline" }, ...lanes, ruler(video.duration), playhead);
  const name = el("h2", {}, el("bdi", {}, video.name), ` ${clock(video.duration)}${video.duration < 600 ? " s" : ""}`);
  stage.replaceChildren(name, el("div", { class: "player" }, player, note), timeline);
}

function lane(row, video) {
  const said = row.option === null || !row.options.length ? row.answer : `${row.options[row.option]} (${row.answer})`;
  const right = row.right === null || !row.options.length ? null : `The right option: ${row.options[row.right]}`;
  row.lane = el(
    "article",
    { class: "lane" },
    el("h3", {}, el("bdi", {}, row.text)),
    el("p", { class: "answer" }, el("bdi", {}, said || (row.rule === "not answered" ? "Not answered." : ""))),
    right && el("p", { class: "answer" }, el("bdi", {}, right)),
    row.truth.length ? track("true", row.truth.map((span) => [...span.slice(0, 2), null, 1, span[2]]), row, video) : null,
    row.spans.length ? track("predicted", row.spans, row, video) : null,
    row.saliency.length ? curve("saliency", row.saliency, row.clip, video) : null,
    ...row.strips.map(([label, scores]) => strip(label, scores)),
    chips(row, video),
  );
  return row.lane;
}

// Spans on the axis; those that overlap stand in rows of their own, best first.
function track(kind, spans, row, video) {
  const ends = []; // of the last span of each row
  const placed = [...spans.entries()].map(([number, span]) => {
    let level = ends.findIndex((taken) => taken.every(([start, end]) => span[1] <= start || span[0] >= end));
    if (level < 0) level = ends.push([]) - 1;
    ends[level].push(span);
    return spanButton(kind, span, number, level, row, video);
  });
  const height = `${Math.max(ends.length, 1) * ROW_PX}px`;
  return el("div", { class: `track ${kind}`, title: kind, style: { height }, onclick: seekHere }, ...placed);
}

function spanButton(kind, span, number, level, row, video) {
  const [start, end, score, opacity, caption] = span;
  const label = [between(span, video.duration), score === null ? "" : `score ${score.toFixed(2)}`, caption];
  const style = {
    left: `${(100 * start) / video.duration}%`,
    width: `${(100 * Math.max(end - start, 0)) / video.duration}%`,
    top: `${level * ROW_PX}px`,
    "--alpha": 0.15 + 0.85 * opacity,
  };
  const onclick = (event) => (event.stopPropagation(), play(span, row));
  const about = { type: "button", class: "span", "data-start": start, "data-end": end, "data-number": number };
  const set = { ...about, style, onclick, title: label.filter(Boolean).join(", "), "aria-label": `${kind} ${label.join(" ")}` };
  return el("button", set, el("bdi", {}, caption || (score === null || score === 1 ? "" : score.toFixed(2))));
}

// Every span once more, as text: short ones are hard to hit, and people want to read the seconds.
function chips(row, video) {
  const made = row.spans.map((span) => {
    const [, , score, opacity, caption] = span;
    const style = { "--alpha": 0.15 + 0.85 * opacity };
    const text = `${between(span, video.duration)}${score === 1 ? "" : ` · ${score.toFixed(2)}`}`;
    const words = caption ? el("bdi", { class: "caption" }, ` ${caption}`) : null;
    return el("button", { type: "button", class: "chip", style, onclick: () => play(span, row) }, text, words);
  });
  const iou = row.iou === null ? null : el("span", { class: "iou" }, `IoU ${row.iou.toFixed(2)}`);
  const rule = row.spans.length || row.rule !== null ? null : el("span", { class: "iou" }, "nothing could be read");
  return el("p", { class: "chips" }, ...made, iou, rule);
}

function curve(label, scores, clip, video) {
  const width = clip ? (clip * scores.length) / video.duration : 1;
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const points = scores.map((score, place) => {
    const y = high > low ? (score - low) / (high - low) : 0.5;
    return `${(((place + 0.5) * width) / scores.length) * 1000},${(1 - y) * 36 + 2}`;
  });
  const drawing = svg("svg", { viewBox: "0 0 1000 40", preserveAspectRatio: "none", class: "curve" });
  drawing.append(svg("polyline", { points: points.join(" ") }));
  return el("figure", {}, el("figcaption", {}, label), drawing);
}

function svg(tag, set, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(set).forEach(([key, value]) => node.setAttribute(key, value));
  node.textContent = text;
  return node;
}

// One number a frame as a row of colours, dark where it is low.
function strip(label, scores) {
  const canvas = el("canvas", { width: scores.length, height: 1, class: "strip", role: "img", "aria-label": label });
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const context = canvas.getContext("2d");
  scores.forEach((score, place) => {
    const heat = high > low ? (score - low) / (high - low) : 0;
    context.fillStyle = `hsl(${250 - 200 * heat} 80% ${15 + 60 * heat}%)`;
    context.fillRect(place, 0, 1, 1);
  });
  return el("figure", {}, el("figcaption", {}, el("bdi", {}, label)), canvas);
}

function ruler(duration) {
  const step = TICKS.find((tick) => duration / tick <= 10) ?? duration / 10;
  const marks = [];
  for (let number = 0; number * step <= duration; number++) {
    const at = number * step;
    const text = duration < 600 ? `${Number(at.toFixed(1))}` : clock(at, duration);
    marks.push(el("span", { style: { left: `${(100 * at) / duration}%` } }, text));
  }
  return el("div", { class: "ruler", onclick: seekHere, title: "seconds" }, ...marks);
}

function seekHere(event) {
  const box = event.currentTarget.getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * shownVideo.duration);
}

function seek(seconds) {
  if (!player) return;
  stopAt = null;
  whenReady(() => (player.currentTime = Math.max(0, seconds) + shownVideo.offset));
}

function play(span, row) {
  if (current !== row) select(row);
  lastSpan = allSpans().findIndex(([one]) => one[0] === span[0] && one[1] === span[1]);
  if (!player) return;
  whenReady(() => {
    player.currentTime = span[0] + shownVideo.offset;
    stopAt = span[1] + shownVideo.offset;
    player.play().catch(() => {}); // a browser may refuse to play before the first click
  });
}

function whenReady(action) {
  const asked = player;
  if (player.readyState > 0) action();
  else player.addEventListener("loadedmetadata", () => player === asked && action(), { once: true });
}

// Moves the playhead with the video, and stops where the span ends.
function follow() {
  if (!player || !shownVideo) return;
  const share = (player.currentTime - shownVideo.offset) / shownVideo.duration;
  const playhead = document.querySelector(".playhead");
  playhead.style.left = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  if (stopAt !== null && !player.paused && player.currentTime >= stopAt) {
    player.pause();
    stopAt = null;
  }
  if (!player.paused) requestAnimationFrame(follow);
}

function allSpans() {
  return (shownVideo?.rows ?? []).flatMap((row) => row.spans.map((span) => [span, row]));
}

function markLane(row) {
  document.querySelectorAll(".lane[aria-current]").forEach((lane) => lane.removeAttribute("aria-current"));
  row?.lane?.setAttribute("aria-current", "true");
}

const KEYS = {
  " ": () => player && (player.paused ? ((stopAt = null), player.play()) : player.pause()),
  ArrowLeft: (event) => player && seek(player.currentTime - shownVideo.offset - (event.shiftKey ? 5 : 1)),
  ArrowRight: (event) => player && seek(player.currentTime - shownVideo.offset + (event.shiftKey ? 5 : 1)),
  n: () => step(1),
  p: () => step(-1),
  ArrowDown: () => select(listed[Math.min(listed.indexOf(current) + 1, listed.length - 1)] ?? null),
  ArrowUp: () => select(listed[Math.max(listed.indexOf(current) - 1, 0)] ?? null),
  "/": () => document.querySelector("#filters input[type=search]").focus(),
};

function step(by) {
  const spans = allSpans();
  if (!spans.length) return;
  const next = lastSpan < 0 && by < 0 ? spans.length - 1 : (lastSpan + by + spans.length) % spans.length;
  play(...spans[next]);
  lastSpan = next;
}

document.addEventListener(
  "keydown",
  (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    event.preventDefault(); // also what a focused span or the player would do with the key
    event.stopPropagation();
    KEYS[event.key](event);
  },
  true,
);
