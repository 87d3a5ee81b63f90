// Drags through time without a kernel: one life's events and states, or a whole book's counts and sums.
//
// `data` is made by deltas.py. A field has its values in `to`, each valid from the position in `at` on, where
// position p is the state after p events: a value is looked up by its last change. Whatever comes from a
// payload becomes text by textContent, and a figure is a few paths, however many events there are.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000; // of a drawing, in units of its own; it is stretched to the room there is
const MOST = 50; // records of one list that are shown
const ASIDE = new Set(["correlation_id", "causation_id", "schema_version"]); // these have lines of their own

function h(tag, props, ...kids) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...kids.filter((kid) => kid != null));
  return made;
}

function svg(tag, props) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) made.setAttribute(name, value);
  return made;
}

// The last place in an ascending list whose value is not above this one; -1 before the first.
function lastAt(list, value) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// --- HOW THINGS ARE WRITTEN: as `shown` in html.py does --------------------------------------------------------

function moment(micros) {
  const seconds = Math.floor(micros / 1e6);
  const rest = micros - seconds * 1e6;
  const text = new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");
  return text + (rest ? `.${String(rest).padStart(6, "0").replace(/0+$/, "")}` : "") + "Z";
}

function lasting(micros) {
  const seconds = micros / 1e6;
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor((seconds % 86400) / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  if (days) return `${grouped(days)} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${+(seconds % 60).toFixed(6)} s`;
}

// Groups the digits of a number that stays text, so that money keeps all of them.
function grouped(number) {
  const [whole, ...rest] = String(number).split(".");
  return [whole.replace(/\B(?=(\d{3})+(?!\d))/g, ","), ...rest].join(".");
}

function isRecords(value) {
  return Array.isArray(value) && value.length > 0 && value.every((one) => one && typeof one === "object");
}

function said(value, kind) {
  if (value === null || value === undefined) return "–";
  if (kind === "instant") return value.replace("T", " ");
  if (kind === "amount" || kind === "count") return grouped(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.map((one) => said(one)).join(", ") : "–";
  if (typeof value === "object") return Object.entries(value).map(([k, v]) => `${k}=${said(v)}`).join(", ");
  return String(value);
}

// --- A SLIDER --------------------------------------------------------------------------------------------------

// JupyterLab takes arrow keys for its own commands unless the input itself says otherwise.
const OURS = { "data-lm-suppress-shortcuts": "true" };
const KEYS = {
  ArrowLeft: -1, ArrowDown: -1, PageUp: -1, ArrowRight: 1, ArrowUp: 1, PageDown: 1, Home: -Infinity, End: Infinity,
};

function slider(label, count, go, settled) {
  const input = h("input", { type: "range", min: 1, max: count, step: 1, value: count, "aria-label": label, ...OURS });
  const clamp = (place) => Math.min(count, Math.max(1, place));
  input.addEventListener("input", () => go(Number(input.value)));
  input.addEventListener("change", () => settled(Number(input.value)));
  input.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") input.blur();
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    const far = event.shiftKey ? Math.max(1, Math.round(count / 10)) : 1;
    const place = clamp(Number(input.value) + KEYS[event.key] * far);
    go(place);
    settled(place);
  });
  const button = (text, title, by) => {
    const made = h("button", { type: "button", textContent: text, title, "aria-label": title, ...OURS });
    made.addEventListener("click", () => {
      const place = clamp(Number(input.value) + by);
      go(place);
      settled(place);
    });
    return made;
  };
  const row = h("div", { className: "ts-slider" }, button("‹", "previous", -1), input, button("›", "next", 1));
  return { input, row };
}

// Lets the pointer be dragged over a drawing; `go` is told where, from 0 at its left to 1 at its right.
function draggable(drawing, go, settled) {
  const where = (event) => {
    const box = drawing.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / (box.width || 1)));
  };
  drawing.addEventListener("pointerdown", (event) => {
    drawing.setPointerCapture(event.pointerId);
    go(where(event));
    event.preventDefault();
  });
  drawing.addEventListener("pointermove", (event) => event.buttons & 1 && go(where(event)));
  drawing.addEventListener("pointerup", settled);
}

function drawing(height) {
  return svg("svg", {
    viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", style: `height:${height}px`,
    "aria-hidden": "true", class: "ts-drawing",
  });
}

// A few round moments below a drawing, none so near to another that they would touch.
const STEPS = [1, 5, 15, 60, 300, 900, 3600, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000, 7776000, 31536000];

function scale(from, to) {
  const span = (to - from) / 1e6;
  const step = STEPS.find((one) => span / one <= 6) || Math.ceil(span / 6 / 31536000) * 31536000;
  const labels = h("div", { className: "ts-scale", "aria-hidden": "true" });
  for (let second = Math.ceil(from / 1e6 / step) * step; second <= to / 1e6 && span > 0; second += step) {
    const text = new Date(second * 1000).toISOString();
    const part = ((second * 1e6 - from) / (to - from)) * 100;
    if (part < 4 || part > 96) continue;
    labels.append(h("span", { textContent: step < 86400 ? text.slice(11, 16 + (step < 60 ? 3 : 0)) : text.slice(0, 10), style: `left:${part}%` }));
  }
  return labels;
}

// --- ONE LIFE --------------------------------------------------------------------------------------------------

function valueAt(field, place) {
  const last = lastAt(field.at, place);
  return field.grows ? field.to.slice(0, field.lengths[last]) : field.to[last];
}

function drawLife(root, data, settled) {
  const count = data.version.length;
  const counted = data.counted || data.recorded;
  const [start, end] = [counted[0], counted[count - 1]];
  const pad = (end - start) * 0.015 || 1e6;
  const [left, right] = [start - pad, end + pad];
  const x = (micros) => ((micros - left) / (right - left)) * WIDTH;
  const status = data.fields.find((field) => field.kind === "status");

  const axis = drawing(40);
  if (status) for (const path of bands(status, counted, x)) axis.append(path);
  const ticks = new Set(counted.map((micros) => Math.round(x(micros) * 10) / 10));
  axis.append(svg("path", { d: [...ticks].map((at) => `M${at} 25V36`).join(""), class: "ts-ticks" }));
  const cursor = svg("line", { y1: 0, y2: 40, class: "ts-cursor" });
  axis.append(cursor);

  const where = h("output", { className: "ts-where" });
  const chip = h("span", { className: "ts-chip" });
  const state = h("tbody");
  const beside = h("section", { className: "ts-event" });
  const { input, row } = slider(`${data.title}: go through its ${count} events`, count, (place) => go(place), settled);

  function go(place, micros) {
    const index = place - 1;
    input.value = place;
    const at = micros === undefined ? counted[index] : micros;
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    const between = at !== counted[index];
    const which = `${grouped(place)} of ${grouped(count)}`;
    where.replaceChildren(
      h("b", { textContent: moment(at) }),
      ` · ${between ? `${lasting(at - counted[index])} after event` : "event"} ${which}`,
    );
    const kind = data.types[data.type[index]];
    input.setAttribute("aria-valuetext", `${moment(at)}, ${between ? "after " : ""}event ${which}, ${kind}`);
    if (status) {
      const name = valueAt(status, place);
      chip.textContent = said(name);
      chip.style.setProperty("--ts-colour", status.colours[name] || "currentColor");
    }
    state.replaceChildren(...data.fields.map((field) => fieldRow(field, place)));
    beside.replaceChildren(...eventParts(data, index, go, settled));
    root.dataset.place = place;
  }

  draggable(
    axis,
    (part) => {
      const micros = Math.round(left + part * (right - left));
      // A pixel is longer than the distance between many an event and the next: near one, it is meant.
      const reach = ((right - left) / (axis.clientWidth || WIDTH)) * 3;
      const place = Math.max(lastAt(counted, micros + reach), 0);
      const snapped = Math.abs(counted[place] - micros) <= reach || micros < counted[0];
      go(place + 1, snapped ? undefined : micros);
    },
    () => settled(Number(input.value)),
  );
  root.replaceChildren(
    h("header", null, h("span", { className: "ts-title", textContent: data.title }), status ? chip : null, where),
    axis,
    scale(left, right),
    row,
    h("div", { className: "ts-columns" },
      h("div", { className: "ts-scroll" }, h("table", { className: "ts-state" }, state)), beside),
    data.unmasked ? h("p", { className: "ts-note", textContent: "shown unmasked" }) : "",
  );
  go(count);
}

// The status over time: one path for each status, however often it changes.
function bands(field, counted, x) {
  const paths = {};
  field.at.forEach((place, n) => {
    const name = field.to[n];
    if (!place || name === null) return;
    const next = field.at[n + 1];
    const [from, to] = [x(counted[place - 1]), next === undefined ? WIDTH : x(counted[next - 1])];
    if (to > from) paths[name] = `${paths[name] || ""}M${from.toFixed(1)} 6H${to.toFixed(1)}V20H${from.toFixed(1)}Z`;
  });
  return Object.entries(paths).map(([name, d]) => {
    const path = svg("path", { d, class: "ts-band", fill: field.colours[name] || "currentColor" });
    const title = svg("title", {});
    title.textContent = name;
    path.append(title);
    return path;
  });
}

function fieldRow(field, place) {
  const now = valueAt(field, place);
  const changed = field.at[lastAt(field.at, place)] === place;
  const row = h("tr", null, h("th", { scope: "row", textContent: field.name }));
  if (changed) row.className = "ts-changed";
  const cell = h("td");
  const before = changed ? valueAt(field, place - 1) : now;
  if (isRecords(now) || isRecords(before)) {
    cell.append(records(now || [], before || [], changed));
  } else {
    if (changed && before !== null) {
      cell.append(h("del", { textContent: said(before, field.kind) }), h("span", { className: "ts-arrow", textContent: " → " }));
    }
    cell.append(h(changed ? "ins" : "span", { textContent: said(now, field.kind), className: now === null ? "ts-none" : "" }));
  }
  row.append(cell);
  return row;
}

// A list of records as a table of its own; those that came and those that went are marked.
function records(now, before, changed) {
  const [here, gone] = [now.slice(-MOST), changed ? before.slice(-MOST) : []];
  const keys = [...new Set([...here, ...gone].flatMap((one) => Object.keys(one)))];
  const [old, fresh] = [gone, here].map((list) => new Set(list.map((one) => JSON.stringify(one))));
  const line = (one, mark) =>
    h("tr", { className: mark }, ...keys.map((key) => h("td", { textContent: said(one[key]) })));
  const lines = [
    ...gone.filter((one) => !fresh.has(JSON.stringify(one))).map((one) => line(one, "ts-gone")),
    ...here.map((one) => line(one, changed && !old.has(JSON.stringify(one)) ? "ts-fresh" : "")),
  ];
  const head = h("tr", null, ...keys.map((key) => h("th", { scope: "col", textContent: key })));
  const made = h("table", { className: "ts-records" }, h("thead", null, head), h("tbody", null, ...lines));
  if (now.length > MOST) made.append(h("caption", { textContent: `the last ${MOST} of ${grouped(now.length)}` }));
  return made;
}

// The event beside the state: what it says, and what it was caused by and led to.
function eventParts(data, index, go, settled) {
  const metadata = data.metadata[index] || {};
  const recorded = data.recorded[index];
  const later = data.counted && data.counted[index] !== recorded;
  const parts = [
    h("h4", { textContent: data.types[data.type[index]] }),
    h("p", { className: "ts-facts", textContent: `version ${grouped(data.version[index])} · schema ${said(metadata.schema_version ?? 1)}` }),
    h("p", { className: "ts-facts", textContent: `recorded ${moment(recorded)}${later ? `, counts from ${moment(data.counted[index])}` : ""}` }),
  ];
  const told = data.payload[index];
  parts.push(told === null ? h("p", { className: "ts-note", textContent: "its payload is not at hand" }) : facts(told));
  const [cause, effects] = data.causes[index] || [null, []];
  const links = h("dl");
  const add = (name, ...kids) => links.append(h("dt", { textContent: name }), h("dd", null, ...kids));
  const link = (one) => {
    if (typeof one !== "number") return h("span", { textContent: one });
    const text = `${data.types[data.type[one - 1]]} (${grouped(data.version[one - 1])})`;
    const made = h("button", { type: "button", className: "ts-link", textContent: text, title: "go there", ...OURS });
    made.addEventListener("click", () => {
      go(one);
      settled(one);
    });
    return made;
  };
  if (metadata.correlation_id != null) add("request", said(metadata.correlation_id));
  if (cause !== null) add("caused by", link(cause));
  else if (metadata.causation_id != null) add("caused by", said(metadata.causation_id));
  if (effects.length) add("led to", ...effects.flatMap((one, n) => (n ? [", ", link(one)] : [link(one)])));
  if (links.children.length) parts.push(h("h5", { textContent: "causes" }), links);
  const rest = Object.fromEntries(Object.entries(metadata).filter(([name]) => !ASIDE.has(name)));
  if (Object.keys(rest).length) parts.push(h("h5", { textContent: "metadata" }), facts(rest));
  return parts;
}

function facts(told) {
  const list = h("dl");
  for (const [name, value] of Object.entries(told)) {
    const body = isRecords(value) ? records(value, [], false) : said(value);
    list.append(h("dt", { textContent: name }), h("dd", null, body));
  }
  return list.children.length ? list : h("p", { className: "ts-note", textContent: "it says nothing more" });
}

// --- A WHOLE BOOK ----------------------------------------------------------------------------------------------

function drawBook(root, data, settled) {
  const count = data.instants.length;
  if (!count) {
    root.append(h("span", { className: "ts-title", textContent: data.title }), " · no events");
    return;
  }
  const [from, to] = [data.instants[0], data.instants[count - 1]];
  const x = (n) => (count > 1 ? ((data.instants[n] - from) / (to - from)) * WIDTH : WIDTH);
  const height = 150;
  const chart = drawing(height);
  for (const path of areas(data, x, height)) chart.append(path);
  const cursor = svg("line", { y1: 0, y2: height, class: "ts-cursor" });
  chart.append(cursor);
  const where = h("output", { className: "ts-where" });
  const body = h("tbody");
  const { input, row } = slider(`${data.title}: go through ${count} instants`, count, (place) => go(place), settled);
  const most = (list) => list.flat().reduce((high, one) => Math.max(high, Math.abs(Number(one))), 0) || 1;
  const tops = [most(data.counts), data.sums ? most(data.sums) : 1];

  function go(place) {
    const n = place - 1;
    input.value = place;
    cursor.setAttribute("x1", x(n));
    cursor.setAttribute("x2", x(n));
    const all = data.counts.reduce((sum, one) => sum + one[n], 0);
    where.replaceChildren(h("b", { textContent: moment(data.instants[n]) }), ` · ${grouped(all)} in all`);
    input.setAttribute("aria-valuetext", `${moment(data.instants[n])}, ${grouped(all)} in all`);
    body.replaceChildren(...data.groups.map((_, g) => groupRow(data, g, n, tops)));
    root.dataset.place = place;
  }

  draggable(
    chart,
    (part) => {
      const micros = from + part * (to - from);
      const n = Math.max(lastAt(data.instants, micros), 0);
      const next = data.instants[n + 1] - micros < micros - data.instants[n];
      go(n + 1 + (next ? 1 : 0));
    },
    () => settled(Number(input.value)),
  );
  const heads = [data.by, "count", "", ...(data.sums ? [data.measure, ""] : [])];
  const head = h("tr", null, ...heads.map((text) => h("th", { scope: "col", textContent: text })));
  root.replaceChildren(
    h("header", null, h("span", { className: "ts-title", textContent: data.title }), where),
    chart,
    scale(from, to),
    row,
    h("div", { className: "ts-scroll" }, h("table", { className: "ts-bars" }, h("thead", null, head), body)),
  );
  go(count);
}

// Stacked counts; a count holds until the next instant, so the outline is made of steps.
function areas(data, x, height) {
  const count = data.instants.length;
  const totals = data.instants.map((_, n) => data.counts.reduce((sum, one) => sum + one[n], 0));
  const top = Math.max(1, ...totals);
  const floor = new Array(count).fill(0);
  return data.groups.map((name, g) => {
    const y = (value) => (height - (value / top) * (height - 6)).toFixed(1);
    const upper = [];
    const lower = [];
    for (let n = 0; n < count; n += 1) {
      const [begin, end] = [x(n).toFixed(1), (n + 1 < count ? x(n + 1) : WIDTH).toFixed(1)];
      lower.unshift(`L${end} ${y(floor[n])}L${begin} ${y(floor[n])}`);
      floor[n] += data.counts[g][n];
      upper.push(`${n ? "L" : "M"}${begin} ${y(floor[n])}L${end} ${y(floor[n])}`);
    }
    return svg("path", { d: `${upper.join("")}${lower.join("")}Z`, fill: data.colours[g], class: "ts-area" });
  });
}

function groupRow(data, g, n, tops) {
  const swatch = h("i");
  swatch.style.setProperty("--ts-colour", data.colours[g]);
  const row = h("tr", null, h("th", { scope: "row" }, swatch, said(data.groups[g])));
  [data.counts, data.sums].forEach((values, which) => {
    if (!values) return;
    const [now, before] = [values[g][n], n ? values[g][n - 1] : values[g][n]];
    const bar = h("div", { className: "ts-bar" });
    bar.style.setProperty("--ts-colour", data.colours[g]);
    bar.style.width = `${(Math.abs(Number(now)) / tops[which]) * 100}%`;
    const changed = now !== before;
    if (changed) row.className = "ts-changed";
    row.append(
      h("td", { className: "ts-number", textContent: grouped(now), title: changed ? `before: ${grouped(before)}` : "" }),
      h("td", { className: "ts-room" }, bar),
    );
  });
  return row;
}

// --- WHERE IT IS DRAWN -----------------------------------------------------------------------------------------

function draw(el, data, settled = () => {}) {
  const root = h("div", { className: "titan-scrub" });
  (data.what === "life" ? drawLife : drawBook)(root, data, settled);
  el.replaceChildren(root);
}

// As a widget: the kernel is told where the slider was left.
function render({ model, el }) {
  draw(el, JSON.parse(model.get("data")), (place) => {
    model.set("place", place);
    model.save_changes();
  });
}

// In a page: in every place that is not drawn yet, from the data that it holds.
function drawAll() {
  for (const place of document.querySelectorAll("div.titan-scrubber:not([data-drawn])")) {
    place.dataset.drawn = "";
    draw(place, JSON.parse(place.querySelector("script").textContent));
  }
}
