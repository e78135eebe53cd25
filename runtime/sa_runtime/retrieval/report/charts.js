"use strict";
// Line charts and histograms as SVG, drawn once.

const COLOURS = ["var(--a)", "var(--b)", "var(--c)", "var(--d)"];
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 340, HEIGHT = 220, LEFT = 38, RIGHT = 10, TOP = 8, BOTTOM = 34;

function svg(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const percent = (value, digits = 1) =>
  value === null || value === undefined ? "–" : (100 * value).toFixed(digits);

function tick(value, share) {
  if (share) return `${Number((100 * value).toPrecision(2))} %`;
  return String(Number(value.toPrecision(3)));
}

function scale(low, high, from, to, log) {
  const place = log ? Math.log10 : (value) => value;
  const start = place(low), span = place(high) - start || 1;
  return (value) => from + ((place(value) - start) / span) * (to - from);
}

function ticksOf(axis) {
  if (axis.ticks) return axis.ticks;
  const found = [];
  if (axis.log) {
    for (let power = Math.ceil(Math.log10(axis.low) - 1e-9); 10 ** power <= axis.high * 1.0001; power += 1) found.push(10 ** power);
    while (found.length > 5) for (let i = found.length - 2; i > 0; i -= 2) found.splice(i, 1);
    return found;
  }
  for (let i = 0; i <= 4; i += 1) found.push(axis.low + ((axis.high - axis.low) * i) / 4);
  return found;
}

// title, x and y as {low, high, log, share, label, ticks}; draw(x, y) gives the shapes.
function chart(title, description, x, y, draw) {
  const across = scale(x.low, x.high, LEFT, WIDTH - RIGHT, x.log);
  const up = scale(y.low, y.high, HEIGHT - BOTTOM, TOP, y.log);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${description}` });
  for (const value of ticksOf(y)) {
    picture.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value) }));
    picture.append(svg("text", { x: LEFT - 5, y: up(value) + 4, "text-anchor": "end" }, tick(value, y.share)));
  }
  for (const value of ticksOf(x)) {
    const anchor = across(value) > WIDTH - 30 ? "end" : "middle";
    picture.append(svg("text", { x: across(value), y: HEIGHT - BOTTOM + 14, "text-anchor": anchor }, tick(value, x.share)));
  }
  picture.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, x.label));
  picture.append(...draw(across, up));
  return element("figure", {}, element("figcaption", {}, title), picture);
}

function line(points, colour, across, up) {
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${across(x).toFixed(1)},${up(y).toFixed(1)}`).join("");
  return svg("path", { class: "line", d: path, stroke: colour });
}

const SHARE = { low: 0, high: 1, share: true, ticks: [0, 0.25, 0.5, 0.75, 1] };

function cmcChart(models) {
  const ranks = Math.max(2, ...models.map((model) => model.cmc.length));
  const last = models.map((model) => `${percent(model.cmc[0])} % at rank 1`).join(", ");
  return chart(`CMC (${models[0].convention})`, last,
    { low: 1, high: ranks, log: true, label: "rank", ticks: [1, 2, 5, 10, 20, 50].filter((k) => k <= ranks) }, SHARE,
    (across, up) => models.map((model, i) => line(model.cmc.map((y, k) => [k + 1, y]), COLOURS[i % 4], across, up)));
}

function precisionChart(models) {
  return chart("Precision over recall", "mean of the queries' interpolated curves", { ...SHARE, label: "recall" }, SHARE,
    (across, up) => models.map((model, i) => line(model.pr.map((y, k) => [k / 100, y]), COLOURS[i % 4], across, up)));
}

function rocChart(models) {
  const low = Math.min(0.1, ...models.map((model) => model.roc.fpr[0]));
  return chart("Right pairs accepted", "true-positive rate over false-positive rate",
    { low, high: 1, log: true, share: true, label: "wrong pairs accepted" }, SHARE,
    (across, up) => models.map((model, i) => line(model.roc.fpr.map((x, k) => [x, model.roc.tpr[k]]), COLOURS[i % 4], across, up)));
}

function histogramChart(model, several) {
  const { edges, genuine, impostor } = model.histogram;
  const high = Math.max(...genuine, ...impostor) || 1;
  const steps = (values, across, up) => {
    let path = `M${across(edges[0])},${up(0)}`;
    values.forEach((value, i) => { path += `L${across(edges[i])},${up(value)}L${across(edges[i + 1])},${up(value)}`; });
    return `${path}L${across(edges[edges.length - 1])},${up(0)}Z`;
  };
  const made = chart(several ? `Distances: ${model.short}` : "Distances", "shares of the pairs of one person, and of two",
    { low: edges[0], high: edges[edges.length - 1], label: "distance" }, { low: 0, high, share: true, ticks: [0, high / 2, high] },
    (across, up) => [
      svg("path", { class: "area", d: steps(impostor, across, up), fill: "var(--wrong)" }),
      svg("path", { class: "area", d: steps(genuine, across, up), fill: "var(--right)" }),
    ]);
  const key = element("div", { class: "legend" });
  for (const [name, colour] of [["one person, two cameras", "var(--right)"], ["two persons", "var(--wrong)"]]) {
    key.append(element("span", {}, element("i", { style: `background:${colour}` }), name));
  }
  made.append(key);
  return made;
}
