"use strict";
// The list of queries: only what is in view has elements, so that any number of them scrolls.

const ORDERS = {
  Worst: (models) => (query) => mean(query),
  Median: (models, middle) => (query) => Math.abs(mean(query) - middle),
  Best: () => (query) => -mean(query),
  Disagree: () => (query) => -(Math.max(...query.found.map((one) => one.ap)) - Math.min(...query.found.map((one) => one.ap))),
  File: () => (query) => query.file,
};

const NO_FILTER = { text: "", camera: "", outcome: "", low: null, high: null, other: null };

const mean = (query) => query.found.reduce((sum, one) => sum + one.ap, 0) / query.found.length;

class Pictures {
  constructor(chunk) {
    this.chunk = chunk;
    this.parts = [...document.querySelectorAll("script.pictures")];
    this.open = new Map();
  }

  source(number) {
    const place = Math.floor(number / this.chunk);
    if (!this.open.has(place)) this.open.set(place, this.parts[place].textContent.split(","));
    return `data:image/jpeg;base64,${this.open.get(place)[number % this.chunk]}`;
  }
}

class QueryList {
  constructor(data, box, status) {
    Object.assign(this, { data, box, status, selected: 0, shown: [], order: "Worst" });
    this.filter = { ...NO_FILTER };
    this.pictures = new Pictures(data.chunk);
    this.attention = new Attention(data.models);
    this.height = 36 + 150 * data.models.length;
    this.space = element("div", { class: "space", role: "presentation" });
    box.append(this.space);
    this.rows = new Map();
    const sorted = data.queries.map(mean).sort((one, other) => one - other);
    this.middle = sorted.length ? sorted[sorted.length >> 1] : 0;
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("keydown", (event) => this.key(event));
  }

  update() {
    const value = ORDERS[this.order](this.data.models, this.middle);
    const chosen = this.data.queries.filter((query) => this.takes(query)).map((query) => [value(query), query]);
    chosen.sort((one, other) => compare(one[0], other[0]) || one[1].number - other[1].number);
    this.shown = chosen.map((pair) => pair[1]);
    this.space.style.height = `${this.shown.length * this.height}px`;
    this.selected = 0;
    this.box.scrollTop = 0;
    this.rows.forEach((row) => row.remove());
    this.rows.clear();
    const pictured = this.shown.filter((query) => query.image >= 0).length;
    const all = pictured === this.shown.length ? "" : `, ${pictured} with pictures`;
    const { low, high, other } = this.filter;
    const only = [other === null ? "" : `with matches under camera ${other}`, low === null ? "" : `${low} to ${high} px high`].filter(Boolean);
    this.status.textContent = [`${this.shown.length} of ${this.data.queries.length} queries${all}`, ...only].join(", ");
    this.draw();
  }

  filtered() {
    return Object.keys(NO_FILTER).some((name) => this.filter[name] !== NO_FILTER[name]);
  }

  takes(query) {
    const { text, camera, outcome, low, high, other } = this.filter;
    if (camera !== "" && query.camera !== Number(camera)) return false;
    if (low !== null && (query.height < low || query.height > high)) return false;
    if (other !== null && !query.others.has(other)) return false;
    if (text && !(query.file.toLowerCase().includes(text) || String(query.person) === text)) return false;
    const first = query.found.map((one) => one.rank === 1);
    switch (outcome) {
      case "right": return first.every(Boolean);
      case "wrong": return !first.every(Boolean);
      case "lost": return query.found.some((one) => one.rank > 10);
      case "gained": return !first[0] && first.slice(1).some(Boolean);
      case "dropped": return first[0] && !first.slice(1).every(Boolean);
      default: return true;
    }
  }

  draw() {
    const above = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 1);
    const below = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 1);
    for (const [index, row] of this.rows) {
      if (index < above || index >= below) {
        row.remove();
        this.rows.delete(index);
      }
    }
    for (let index = above; index < below; index += 1) {
      if (!this.rows.has(index)) {
        const row = this.row(index);
        this.rows.set(index, row);
        this.space.append(row);
      }
    }
    this.mark();
  }

  mark() {
    for (const [index, row] of this.rows) row.setAttribute("aria-selected", String(index === this.selected));
    if (this.rows.has(this.selected)) this.box.setAttribute("aria-activedescendant", `query-${this.selected}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  select(index) {
    this.selected = Math.max(0, Math.min(this.shown.length - 1, index));
    const top = this.selected * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + this.height - this.box.clientHeight;
    this.draw();
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height));
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in moves) this.select(this.selected + moves[event.key]);
    else if (event.key === "Enter" && this.shown.length) this.open(this.shown[this.selected]);
    else return;
    event.preventDefault();
  }

  row(index) {
    const query = this.shown[index];
    const made = element("div", {
      class: "query", role: "option", id: `query-${index}`, style: `top:${index * this.height}px;height:${this.height}px`,
      "aria-posinset": index + 1, "aria-setsize": this.shown.length,
      onclick: () => { this.select(index); this.open(query); },
    });
    made.append(element("div", { class: "head" }, element("b", {}, query.file), element("span", {}, `person ${query.person}`),
      element("span", {}, `camera ${query.camera}`), element("span", {}, `${query.height} px`)));
    query.found.forEach((found, i) => {
      const name = this.data.models.length > 1 ? `${this.data.models[i].short}: ` : "";
      made.append(element("div", { class: "model" }, `${name}AP ${percent(found.ap)} %, first match at rank ${found.rank}, ${query.matches} to be found`));
      made.append(this.strip(query, i, "strip"));
    });
    return made;
  }

  strip(query, model, kind) {
    const found = query.found[model];
    const strip = element("div", { class: kind });
    if (!found.list) {
      strip.append(element("p", { class: "none" }, "No pictures of this query in this file; more with --report-images."));
      return strip;
    }
    strip.append(this.crop(model, query.image, "asked", "query", "the query"));
    let rank = 0;
    for (const [number, distance] of found.list) strip.append(this.verdict(query, model, number, distance, () => { rank += 1; return rank; }));
    if (found.rank > rank) {
      const crop = this.crop(model, found.first[0], "right later", `✓ ${found.rank}`, `rank ${found.rank}, right`, found.first[1]);
      strip.append(crop);
    }
    return strip;
  }

  verdict(query, model, number, distance, next) {
    const [, person, camera] = this.data.images[number];
    if (person === query.person && camera === query.camera) return this.crop(model, number, "left-out", "–", "left out: same person, same camera", distance);
    const right = person === query.person, rank = next();
    return this.crop(model, number, right ? "right" : "wrong", `${right ? "✓" : "✗"} ${rank}`, `rank ${rank}, ${right ? "right" : "wrong"}`, distance);
  }

  crop(model, number, kind, mark, words, distance) {
    const [file, person, camera] = this.data.images[number];
    const who = person === 0 ? "distractor" : `person ${person}`;
    const image = element("img", { src: this.pictures.source(number), alt: `${words}: ${who}, camera ${camera}`, title: `${file}, ${who}, camera ${camera}`, decoding: "async" });
    const seen = this.attention.on && this.attention.has(number, model);
    const picture = element("div", { class: "picture" }, image);
    if (seen) picture.append(this.attention.overlay(image, number, model));
    const made = element("figure", { class: `crop ${kind}` }, picture, element("b", {}, mark));
    if (distance !== undefined) made.append(element("br"), distance.toFixed(3));
    return made;
  }

  look(on) {
    this.attention.on = on;
    this.rows.forEach((row) => row.remove());
    this.rows.clear();
    this.draw();
    if (document.getElementById("dialog").open) this.fill(this.opened);
  }

  open(query) {
    this.fill(query);
    document.getElementById("dialog").showModal();
  }

  fill(query) {
    this.opened = query;
    const body = document.getElementById("dialog-body");
    document.getElementById("dialog-title").textContent = query.file;
    body.replaceChildren(element("p", { class: "quiet" }, `person ${query.person}, camera ${query.camera}, ${query.height} px high, ${query.matches} images to be found`));
    query.found.forEach((found, i) => {
      body.append(element("h3", {}, `${this.data.models[i].short}: AP ${percent(found.ap)} %, first match at rank ${found.rank}`), this.strip(query, i, "large"));
    });
  }
}
