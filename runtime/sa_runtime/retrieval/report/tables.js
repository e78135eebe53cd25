"use strict";
// Tables whose columns sort: values are sorted, texts are shown.

// columns: [{name, value(row), text(row), bar(row)}]; press(row) makes the first cell a button.
function sortableTable(caption, columns, rows, { start = null, press = null } = {}) {
  const body = element("tbody");
  const heads = columns.map((column, index) => element("th", { scope: "col", "aria-sort": "none" },
    element("button", { type: "button", onclick: () => sortBy(index) }, column.name)));
  let sorted = null, ascending = true;

  function sortBy(index) {
    ascending = sorted === index ? !ascending : true;
    sorted = index;
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== index ? "none" : ascending ? "ascending" : "descending"));
    const { value } = columns[index];
    const order = [...rows].sort((one, other) => compare(value(one), value(other)) * (ascending ? 1 : -1));
    body.replaceChildren(...order.map(rowOf));
  }

  function rowOf(row) {
    return element("tr", {}, ...columns.map((column, index) => {
      const text = column.text ? column.text(row) : String(column.value(row));
      const cell = element(index ? "td" : "th", index ? {} : { scope: "row" });
      cell.append(!index && press ? element("button", { type: "button", onclick: () => press(row) }, text) : text);
      if (column.bar) {
        cell.className = "bar";
        cell.style.setProperty("--share", `${100 * column.bar(row)}%`);
      }
      return cell;
    }));
  }

  const made = element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...heads)), body);
  body.append(...rows.map(rowOf));
  if (start !== null) sortBy(start);
  return made;
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

function figuresTable(models) {
  const names = Object.keys(models[0].figures);
  const head = element("tr", {}, ...["model", ...names.map((name) => name.replace("rank", "rank-")), "dimensions"].map((name) => element("th", { scope: "col" }, name)));
  const rows = models.map((model, i) => element("tr", {},
    element("th", { scope: "row" }, ...(models.length > 1 ? [element("span", { style: `color:${COLOURS[i % 4]}` }, "● ")] : []), model.short),
    ...names.map((name) => {
      const [value, low, high] = model.figures[name];
      const cell = element("td", {}, percent(value));
      if (low !== null) cell.append(element("small", {}, `${percent(low)} to ${percent(high)}`));
      return cell;
    }),
    element("td", {}, String(model.dim))));
  return element("table", {}, element("caption", { class: "quiet" }, "percent, with the 95 % interval over people"), element("thead", {}, head), element("tbody", {}, ...rows));
}

function openSetTable(models) {
  const rows = models.flatMap((model) => model.tables.open_set.at.map((at) => ({ ...at, model: model.short })));
  const columns = [
    { name: "wrong accepted", value: (row) => row.rate, text: (row) => tick(row.rate, true) },
    ...(models.length > 1 ? [{ name: "model", value: (row) => row.model }] : []),
    { name: "right pairs, %", value: (row) => row.tpr ?? -1, text: (row) => percent(row.tpr) },
    { name: "right persons, %", value: (row) => row.dir ?? -1, text: (row) => percent(row.dir) },
  ];
  const table = sortableTable("Who is not there: pairs (TPR at FPR) and searches (DIR at FPIR)", columns, rows);
  const few = rows.some((row) => row.tpr === null || row.dir === null);
  return element("div", {}, element("div", { class: "scroll" }, table), ...(few ? [element("p", { class: "quiet" }, "– : too few pairs or searches to tell.")] : []));
}

function comparisonTable(comparison, names) {
  const rows = Object.entries(comparison.differences).map(([name, found]) => element("tr", {},
    element("th", { scope: "row" }, name.replace("rank", "rank-")),
    element("td", { class: found.verdict === "real" ? (found.value > 0 ? "better" : "worse") : "" }, signed(found.value)),
    element("td", {}, `${signed(found.low)} to ${signed(found.high)}`),
    element("td", { class: found.verdict }, found.verdict)));
  const level = Number((100 * comparison.level).toPrecision(3));
  const caption = `${names[comparison.model]} less ${names[comparison.base]}, points; ${level} % interval over ${comparison.people} people`;
  const head = element("tr", {}, ...["figure", "difference", "interval", "verdict"].map((name) => element("th", { scope: "col" }, name)));
  return element("div", {}, element("div", { class: "scroll" }, element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...rows))),
    element("p", { class: "quiet" }, `${comparison.better} of ${comparison.queries} queries are found better, ${comparison.worse} worse (average precision).`));
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(2)}`;

// Rows of several models joined by their key: figures of each model side by side.
function joined(models, table, key) {
  const found = new Map();
  models.forEach((model, i) => model.tables[table].forEach((row) => {
    const name = key(row);
    if (!found.has(name)) found.set(name, { name, row, of: [] });
    found.get(name).of[i] = row;
  }));
  return [...found.values()];
}

function failureTable(caption, models, table, key, press) {
  const rows = joined(models, table, key);
  if (!rows.length) return null;
  const columns = [{ name: caption.toLowerCase(), value: (row) => row.name }, { name: "queries", value: (row) => row.row.queries }];
  models.forEach((model, i) => {
    const mark = models.length > 1 ? ` ${"ABCDEFGH"[i]}` : "";
    for (const [name, field] of [["mAP", "mAP"], ["rank-1", "rank1"]]) {
      const value = (row) => row.of[i]?.[field] ?? -1;
      columns.push({ name: name + mark, value, text: (row) => percent(row.of[i]?.[field]), bar: (row) => Math.max(0, value(row)) });
    }
  });
  return element("div", {}, element("div", { class: "scroll" }, sortableTable(`By ${caption.toLowerCase()}`, columns, rows, { start: 2, press: press ? (row) => press(row.row) : null })));
}
