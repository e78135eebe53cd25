"use strict";
// Puts the page together.

const data = JSON.parse(document.getElementById("data").textContent);

function shortNames(names) {
  const parts = names.map((name) => name.split("/"));
  for (let length = 1; length <= Math.max(...parts.map((one) => one.length)); length += 1) {
    const short = parts.map((one) => one.slice(-length).join("/"));
    if (new Set(short).size === names.length) return short;
  }
  return names;
}

function start() {
  const { models, queries, counts } = data;
  const short = shortNames(models.map((model) => model.name));
  models.forEach((model, i) => { model.short = short[i]; });
  const names = Object.fromEntries(models.map((model) => [model.name, model.short]));
  const at = (id) => document.getElementById(id);

  at("title").textContent = `${data.dataset}: ${short.join(" and ")}`;
  const ranked = [models[0].expanded ? "queries expanded" : "", models[0].reranked ? "re-ranked" : ""].filter(Boolean);
  at("facts").textContent = [
    `${counts.counted} queries of ${counts.people} people (${counts.skipped} skipped: no match under another camera) in ${counts.gallery} images`,
    ...new Set(models.map((model) => [model.precision, model.runtime === "stored" ? "stored embeddings" : model.runtime && `on ${model.runtime}`].filter(Boolean).join(" "))), ...ranked,
  ].filter(Boolean).join("; ");
  at("footer").textContent = `Made by sa-deploy ${data.version} on ${data.made.replace("+00:00", " UTC").replace("T", " ")}. This file holds pictures of people: keep it as you keep the data set.`;

  at("figures").append(figuresTable(models));
  at("comparisons").append(...data.comparisons.map((one) => comparisonTable(one, names)));
  if (models.length > 1) models.forEach((model, i) => at("legend").append(element("span", {}, element("i", { style: `background:${COLOURS[i % 4]}` }), `${"ABCDEFGH"[i]} ${model.short}`)));
  at("charts").append(cmcChart(models), precisionChart(models), rocChart(models), ...models.map((model) => histogramChart(model, models.length > 1)));

  queries.forEach((query, number) => {
    query.number = number;
    query.others = new Set(query.others);
  });
  const list = new QueryList(data, at("list"), at("shown"));
  const show = () => {
    list.update();
    at("clear").hidden = !list.filtered();
  };
  const jump = () => { show(); at("queries").scrollIntoView(); at("list").focus({ preventScroll: true }); };

  at("tables").append(...[
    failureTable("Camera pair", models, "camera_pairs", (row) => `${row.query_camera} → ${row.gallery_camera}`, (row) => {
      Object.assign(list.filter, { low: null, high: null, other: row.gallery_camera, camera: String(row.query_camera) });
      at("camera").value = list.filter.camera;
      jump();
    }),
    failureTable("Height of the crop", models, "heights", (row) => row.name, (row) => {
      const [low, high] = row.name.match(/\d+/g).map(Number);
      Object.assign(list.filter, { low, high });
      jump();
    }),
    failureTable("Time", models, "times", (row) => row.name, null),
    openSetTable(models),
  ].filter(Boolean));

  const names_ = Object.keys(ORDERS).filter((name) => name !== "Disagree" || models.length > 1);
  at("orders").append(...names_.map((name) => element("button", {
    type: "button", "aria-pressed": String(name === list.order), onclick: (event) => {
      list.order = name;
      for (const button of at("orders").children) button.setAttribute("aria-pressed", String(button === event.target));
      show();
    },
  }, name)));

  const cameras = [...new Set(queries.map((query) => query.camera))].sort((one, other) => one - other);
  at("camera").append(element("option", { value: "" }, "all"), ...cameras.map((camera) => element("option", { value: camera }, String(camera))));
  const outcomes = [["", "all"], ["wrong", "first is wrong"], ["right", "first is right"], ["lost", "no match in the first 10"]];
  if (models.length > 1) outcomes.push(["gained", `only ${short.slice(1).join(", ")} finds it first`], ["dropped", `only ${short[0]} finds it first`]);
  at("outcome").append(...outcomes.map(([value, text]) => element("option", { value }, text)));

  at("camera").addEventListener("change", (event) => {
    Object.assign(list.filter, { camera: event.target.value, low: null, high: null, other: null });
    show();
  });
  at("outcome").addEventListener("change", (event) => { list.filter.outcome = event.target.value; show(); });
  at("find").addEventListener("input", (event) => { list.filter.text = event.target.value.trim().toLowerCase(); show(); });
  const buttons = document.querySelectorAll("button.look");
  const look = () => {
    list.look(!list.attention.on);
    for (const button of buttons) button.setAttribute("aria-pressed", String(list.attention.on));
  };
  for (const button of buttons) {
    button.hidden = !list.attention.any;
    button.addEventListener("click", look);
  }
  at("look-key").hidden = !list.attention.any;
  at("looks").textContent = list.attention.words(models);
  document.addEventListener("keydown", (event) => {
    if (/^(INPUT|SELECT)$/.test(document.activeElement.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !at("dialog").open) {
      at("find").focus();
      event.preventDefault();
    }
    if (event.key.toLowerCase() === "a" && list.attention.any) look();
  });
  at("clear").addEventListener("click", () => {
    list.filter = { ...NO_FILTER };
    for (const id of ["find", "camera", "outcome"]) at(id).value = "";
    show();
    at("find").focus();
  });
  at("dialog").addEventListener("close", () => at("list").focus({ preventScroll: true }));
  show();
  document.body.dataset.ready = "yes";
}

start();
