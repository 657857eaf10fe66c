// Errors at a glance, of the answers that pass the filters: IoU by length and place, where spans lie, what was not read.

const LENGTHS = [0, 2, 5, 10, 20, 30, 60, 120, 300, Infinity]; // seconds
const PLACES = 10;

function drawOverview(shown) {
  const section = document.getElementById("overview");
  const held = shown.filter((row) => row.iou !== null);
  const unread = shown.filter((row) => row.rule === null);
  if (!held.length && !unread.length) return section.replaceChildren();
  section.replaceChildren(
    el("h2", {}, "Errors at a glance"),
    ...(held.length ? [recall(held), byLength(held), byPlace(held), ...distributions(held)] : []),
    unread.length ? unparsed(unread) : "",
  );
}

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

function recall(held) {
  const bars = [0.1, 0.3, 0.5, 0.7, 0.9].map((threshold) => {
    const found = held.filter((row) => row.iou >= threshold);
    return { label: `≥ ${threshold}`, value: found.length / held.length, count: found.length };
  });
  return barChart(`Found (${held.length} queries, mIoU ${(100 * mean(held.map((row) => row.iou))).toFixed(1)})`, bars);
}

function byLength(held) {
  const bars = LENGTHS.slice(0, -1).map((low, place) => {
    const high = LENGTHS[place + 1];
    const label = high === Infinity ? `> ${low} s` : `${low}–${high} s`;
    return bar(label, held.filter((row) => momentLength(row) >= low && momentLength(row) < high));
  });
  return barChart("Mean IoU by the length of the moment", bars.filter(({ count }) => count));
}

function byPlace(held) {
  const place = (row) => Math.min(Math.floor((centre(row.truth[0]) / row.video.duration) * PLACES), PLACES - 1);
  const bars = Array.from({ length: PLACES }, (_, number) =>
    bar(`${(100 * number) / PLACES}%`, held.filter((row) => place(row) === number)),
  );
  return barChart("Mean IoU by the place of the moment in its video", bars);
}

const centre = (span) => (span[0] + span[1]) / 2;

function bar(label, group) {
  return { label, value: group.length ? mean(group.map((row) => row.iou)) : 0, count: group.length };
}

function barChart(title, bars) {
  const rows = bars.map(({ label, value, count }) => [
    el("dt", {}, label),
    el("dd", {}, el("meter", { min: 0, max: 1, value }), ` ${(100 * value).toFixed(1)} (n = ${count})`),
  ]);
  return el("figure", { class: "chart" }, el("figcaption", {}, title), el("dl", {}, ...rows.flat()));
}

// Start against end of every moment, as shares of its video: a model that guesses has its spans in one place.
function distributions(held) {
  const predicted = held.filter((row) => row.spans.length).map((row) => [row.spans[0], row]);
  const real = held.flatMap((row) => row.truth.map((span) => [span, row]));
  return [scatter("True moments: start and end", real, "true"), scatter("Predicted: start and end", predicted, "predicted")];
}

function scatter(title, spans, kind) {
  const size = 220;
  const canvas = el("canvas", { width: size, height: size, class: "scatter", role: "img", "aria-label": title });
  const context = canvas.getContext("2d");
  context.strokeStyle = "#999";
  context.strokeRect(0.5, 0.5, size - 1, size - 1);
  context.beginPath();
  context.moveTo(0, size);
  context.lineTo(size, 0);
  context.stroke();
  context.fillStyle = getComputedStyle(document.body).getPropertyValue(`--${kind}`);
  context.globalAlpha = Math.min(1, 20 / Math.sqrt(spans.length));
  for (const [span, row] of spans) {
    const [x, y] = [span[0], span[1]].map((second) => Math.min(second / row.video.duration, 1) * size);
    context.fillRect(x - 2, size - y - 2, 4, 4);
  }
  return el("figure", { class: "chart" }, el("figcaption", {}, `${title} (n = ${spans.length})`), canvas);
}

function unparsed(unread) {
  const entries = unread.slice(0, PAGE).map((row) => {
    const button = el("button", { type: "button", onclick: () => select(row) }, el("bdi", {}, row.text));
    return el("li", {}, button, " ", el("bdi", { class: "answer" }, row.answer));
  });
  const title = `Nothing could be read from ${unread.length} answers`;
  return el("figure", { class: "chart", id: "unparsed" }, el("figcaption", {}, title), el("ul", {}, ...entries));
}
