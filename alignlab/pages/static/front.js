"use strict";
// front.html: draw the front, read one policy, compare two. Texts reach the page as text nodes only, never as HTML.

const ON_LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8a6bbe", "#7f7f7f"];
const ON_DARK = ["#4FA8E8", "#FF8B3D", "#2FC796", "#E79CC4", "#DDAE3A", "#8FD0F5", "#B79FE3", "#A8A8A8"];
function colorOf(index) {
  const colors = globalThis.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches ? ON_DARK : ON_LIGHT;
  return colors[index % colors.length];
}
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "star", "hexagon"];
const PAGE_OF_PROMPTS = 40;

// ---- logic without a document; tests run it under node too -------------------------------------------------------

const logic = {
  /** A number as people read it; null is unknown, never 0. */
  show(value, digits = 3) {
    if (value === null || value === undefined) return "unknown";
    if (value !== 0 && Math.abs(value) < 10 ** -digits) return value.toPrecision(digits);
    return value.toFixed(digits);
  },

  /** Mean with its 95 % interval. */
  withInterval(metric) {
    if (!metric || metric[0] === null) return "unknown";
    const ends = metric[1] === null || metric[2] === null ? "interval unknown" : `${logic.show(metric[1])} .. ${logic.show(metric[2])}`;
    return `${logic.show(metric[0])} [${ends}]`;
  },

  /** plotly reads a few tags and entities in its texts; this text has none. */
  plain(text) {
    return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  },

  mean(policy, name) {
    const metric = policy.metrics[name];
    return metric ? metric[0] : null;
  },

  /** Whether a policy's mean meets a bound; null where its mean is unknown. `worst` asks its interval's worse end. */
  meets(policy, name, bound, better, worst = false) {
    const metric = policy.metrics[name];
    if (!metric || metric[0] === null) return null;
    const value = worst ? metric[better < 0 ? 2 : 1] : metric[0];
    if (value === null) return null;
    return better < 0 ? value <= bound : value >= bound;
  },

  /** Policies that no other one beats on both metrics; a metric of unknown direction counts as better higher. */
  best(policies, names, betters) {
    const position = (policy) => names.map((name, index) => {
      const value = logic.mean(policy, name);
      return value === null ? null : value * (betters[index] < 0 ? -1 : 1);
    });
    const known = policies.map(position);
    return policies.filter((_, own) => !known[own].includes(null) && !known.some((other, index) =>
      index !== own && !other.includes(null) && other.every((value, axis) => value >= known[own][axis]) &&
      other.some((value, axis) => value > known[own][axis])));
  },

  /** Range of a metric over the policies, null where nobody has it. */
  range(policies, name) {
    const values = policies.map((policy) => logic.mean(policy, name)).filter((value) => value !== null);
    return values.length ? [Math.min(...values), Math.max(...values)] : null;
  },

  /** Height on a parallel axis: 0 worst, 1 best. */
  height(value, [low, high], better) {
    const part = high > low ? (value - low) / (high - low) : 0.5;
    return better < 0 ? 1 - part : part;
  },

  /** Settings of a series as means over seeds, in the order of the weight that varies; what a line joins. */
  line(policies, x, y) {
    const groups = new Map();
    for (const policy of policies) {
      const weights = Object.values(policy.weights);
      const point = [logic.mean(policy, x), logic.mean(policy, y)];
      if (!weights.length || point.includes(null)) continue;
      const key = JSON.stringify(weights);
      if (!groups.has(key)) groups.set(key, { weights, points: [] });
      groups.get(key).points.push(point);
    }
    const settings = [...groups.values()];
    if (!settings.length || settings[0].weights.length !== 2) return [];
    const index = new Set(settings.map((one) => one.weights[0])).size > 1 ? 0 : 1;
    settings.sort((a, b) => a.weights[index] - b.weights[index]);
    return settings.map((one) => [0, 1].map((axis) => one.points.reduce((sum, p) => sum + p[axis], 0) / one.points.length));
  },

  /** Samples of a policy by prompt: prompt -> {rows, means}. */
  byPrompt(said) {
    const found = new Map();
    said.prompt.forEach((prompt, row) => {
      if (!found.has(prompt)) found.set(prompt, { rows: [], means: {} });
      found.get(prompt).rows.push(row);
    });
    for (const one of found.values()) {
      for (const [name, values] of Object.entries(said.scores)) {
        const known = one.rows.map((row) => values[row]).filter((value) => value !== null);
        one.means[name] = known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
      }
    }
    return found;
  },

  /** Prompts in the order asked for, with the difference of the second policy to the first where there are two. */
  arrange(prompts, sides, { query = "", category = "", metric = "", order = "asked" }) {
    const wanted = query.trim().toLowerCase();
    const rows = [];
    prompts.forEach((prompt, index) => {
      const held = sides.map((side) => side.grouped.get(index));
      if (held.some((one) => !one)) return;
      if (category && prompt.category !== category) return;
      if (wanted && !prompt.text.toLowerCase().includes(wanted) && !held.some((one, side) =>
        one.rows.some((row) => sides[side].said.response[row].toLowerCase().includes(wanted)))) return;
      const means = held.map((one) => one.means[metric] ?? null);
      const difference = means.length < 2 || means.includes(null) ? null : means[1] - means[0];
      rows.push({ index, held, means, difference });
    });
    const key = {
      asked: null,
      lowest: (row) => row.means[0] ?? Infinity,
      highest: (row) => -(row.means[0] ?? -Infinity),
      difference: (row) => -Math.abs(row.difference ?? 0),
      gains: (row) => -(row.difference ?? -Infinity),
      losses: (row) => row.difference ?? Infinity,
    }[order];
    if (key) rows.sort((a, b) => key(a) - key(b) || a.index - b.index);
    return rows;
  },

  /** A click on a policy: one is read, two are compared, a third takes the second one's part. */
  click(chosen, id) {
    if (chosen.includes(id)) return chosen.filter((one) => one !== id);
    return chosen.length < 2 ? [...chosen, id] : [chosen[0], id];
  },

  /** CSV of the policies; a text that a spreadsheet would take for a formula is marked as text. */
  csv(policies, metrics) {
    const names = metrics.map((metric) => metric.name);
    const head = ["run", "series", "w", "seed", ...names.flatMap((name) => ["mean", "low", "high", "n", "groups"].map((part) => `${name}_${part}`))];
    const rows = policies.map((policy) => [policy.run, policy.series, policy.w, policy.seed,
      ...names.flatMap((name) => policy.metrics[name] ?? [null, null, null, null, null])]);
    const cell = (value) => {
      if (value === null || value === undefined) return "";
      let text = String(value);
      if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !(text !== "" && Number.isFinite(Number(text)))) text = `'${text}`;
      return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    };
    return [head, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  },

  toHash(state) {
    const kept = Object.entries(state).filter(([, value]) => value !== "" && value !== null && !(Array.isArray(value) && !value.length));
    return new URLSearchParams(kept.map(([name, value]) => [name, Array.isArray(value) ? value.join(".") : String(value)])).toString();
  },

  /** The state that a link says, over the defaults; what is unknown in it is left out. */
  fromHash(hash, defaults) {
    const state = { ...defaults };
    for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
      if (!Object.hasOwn(defaults, name)) continue;
      const usual = defaults[name];
      if (Array.isArray(usual)) state[name] = text.split(".").filter(Boolean);
      else if (typeof usual === "boolean") state[name] = text === "true";
      else if (name === "bound") state[name] = Number.isFinite(Number(text)) ? Number(text) : null;
      else state[name] = text;
    }
    return state;
  },
};

if (typeof module !== "undefined") module.exports = logic;

// ---- the page ----------------------------------------------------------------------------------------------------

/** An element with attributes, listeners (on...) and children; texts become text nodes. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const byId = (id) => document.getElementById(id);

/** The data of one block of the page, unpacked when asked for the first time. */
const unpacked = new Map();
function unpack(id) {
  if (!unpacked.has(id)) {
    const bytes = Uint8Array.from(atob(byId(id).textContent.trim()), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(id, new Response(stream).json());
  }
  return unpacked.get(id);
}

class Page {
  constructor(data) {
    this.data = data;
    this.metric = new Map(data.metrics.map((one) => [one.name, one]));
    this.policy = new Map(data.policies.map((one, index) => [one.id, { ...one, index }]));
    this.policies = [...this.policy.values()];
    this.series = [...new Set(this.policies.map((one) => one.series))];
    const other = data.axes[1] ?? data.metrics.find((one) => one.name !== data.axes[0])?.name ?? data.axes[0];
    const many = data.axes.length > 2;
    this.defaults = {
      x: data.axes[0], y: other, kind: many ? "parallel" : "scatter", intervals: true, exact: true, preview: true, reference: true, dominated: false,
      bounded: this.metric.has("kl") ? "kl" : data.axes[0], bound: null, chosen: [], axes: [],
      query: "", category: "", score: data.axes[0], order: "", texts: !data.folded, curve: "loss",
    };
    this.brush = null;
    this.read();
  }

  /** Take the state from the link; names that this page does not know give way to the defaults. */
  read() {
    const state = logic.fromHash(location.hash, this.defaults);
    for (const key of ["x", "y", "bounded"]) if (!this.metric.has(state[key])) state[key] = this.defaults[key];
    state.chosen = state.chosen.filter((id) => this.policy.has(id)).slice(0, 2);
    state.axes = state.axes.filter((name) => this.metric.has(name));
    if (!["scatter", "parallel"].includes(state.kind)) state.kind = this.defaults.kind;
    this.state = state;
  }

  /** Change the state, keep it in the link, and draw what depends on it. */
  set(change, draw = ["plot", "table", "detail"]) {
    Object.assign(this.state, change);
    const changed = Object.fromEntries(Object.entries(this.state).filter(([key, value]) => String(value) !== String(this.defaults[key])));
    const hash = logic.toHash(changed);
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    this.draw(draw);
  }

  draw(parts = ["controls", "plot", "table", "detail"]) {
    if (parts.includes("controls")) this.drawControls();
    if (parts.includes("plot")) this.drawPlot();
    if (parts.includes("table")) this.drawTable();
    if (parts.includes("detail")) this.drawDetail();
    this.drawBound();
  }

  color(policy) { return colorOf(this.series.indexOf(policy.series)); }
  better(name) { return this.metric.get(name).better; }
  label(name) {
    const arrow = { 1: " ↑", "-1": " ↓", 0: "" }[this.better(name)];
    return this.metric.get(name).label + arrow;
  }
  title(policy) { return `${policy.series}${policy.w === "-" ? "" : `, w=${policy.w}`}${policy.seed === null ? "" : `, seed ${policy.seed}`}`; }

  /** Whether a policy is shown at full strength: within the bound and the brush. */
  isIn(policy) {
    const { bounded, bound } = this.state;
    if (bound !== null && logic.meets(policy, bounded, bound, this.better(bounded)) !== true) return false;
    return this.brush === null || this.brush.has(policy.id);
  }

  shown() {
    const { dominated, x, y } = this.state;
    return dominated ? logic.best(this.policies, [x, y], [this.better(x), this.better(y)]) : this.policies;
  }

  // -- controls

  choose(id, names, value, pick) {
    const select = byId(id);
    select.replaceChildren(...names.map((name) => el("option", { value: name, selected: name === value }, this.label(name))));
    select.onchange = () => pick(select.value);
  }

  drawControls() {
    const { data, state } = this;
    const names = data.metrics.map((one) => one.name);
    this.choose("x", names, state.x, (x) => this.set({ x }, ["plot"]));
    this.choose("y", names, state.y, (y) => this.set({ y }, ["plot"]));
    this.choose("bound-metric", names, state.bounded, (bounded) => this.set({ bounded, bound: null }));
    const kind = byId("kind");
    kind.value = state.kind;
    kind.onchange = () => this.set({ kind: kind.value }, ["plot"]);
    byId("has-exact").hidden = !data.exact;
    byId("has-preview").hidden = !data.preview;
    byId("has-reference").hidden = !data.reference;
    for (const id of ["intervals", "exact", "preview", "reference", "dominated"]) {
      const box = byId(id);
      box.checked = state[id];
      box.onchange = () => this.set({ [id]: box.checked }, ["plot"]);
    }
    byId("bound").oninput = () => {
      const range = logic.range(this.policies, this.state.bounded);
      const part = byId("bound").value / 1000; // at its end the bound is the best value itself, which rounding may miss
      if (range) this.set({ bound: part === 1 ? range[1] : range[0] + (range[1] - range[0]) * part }, ["plot", "table"]);
    };
    byId("csv").onclick = () => this.save("front.csv", "text/csv", logic.csv(this.shown().filter((one) => this.isIn(one)), data.metrics));
    for (const format of ["png", "svg"]) byId(format).onclick = () => this.saveImage(format);
    byId("link").onclick = () => this.shareLink();
  }

  drawBound() {
    const { bounded, bound } = this.state;
    const range = logic.range(this.policies, bounded);
    const better = this.better(bounded);
    byId("bound").disabled = !range;
    if (!range) return;
    const value = bound ?? (better < 0 ? range[1] : range[0]);
    byId("bound").value = range[1] > range[0] ? 1000 * (value - range[0]) / (range[1] - range[0]) : 0;
    byId("bound-side").textContent = better < 0 ? "at most" : "at least";
    byId("bound-value").textContent = bound === null ? "anything" : logic.show(bound);
    const met = this.policies.filter((one) => logic.meets(one, bounded, value, better) === true);
    const sure = met.filter((one) => logic.meets(one, bounded, value, better, true) === true);
    byId("bound-count").textContent = bound === null ? "" :
      `${met.length} of ${this.policies.length} meet it (${sure.length} with their whole interval)${met.length ? `: w = ${[...new Set(met.map((one) => one.w))].join(", ")}` : ""}`;
  }

  async saveImage(format) {
    const { clientWidth: width, clientHeight: height } = byId("plot");
    await Plotly.downloadImage(byId("plot"), { format, width, height, scale: format === "png" ? 2 : 1, filename: "front" });
  }

  save(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  async shareLink() {
    const field = byId("link-text");
    field.value = location.href;
    field.hidden = false;
    field.select();
    try { await navigator.clipboard.writeText(location.href); } catch { /* a page from a file may not; the field holds it */ }
  }

  // -- plot

  theme() {
    const css = (name) => {
      const probe = el("span");
      probe.style.color = `var(${name})`;
      document.body.append(probe);
      const color = getComputedStyle(probe).color;
      probe.remove();
      return color;
    };
    const ink = css("--ink"), line = css("--line"), card = css("--card");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
    return {
      ink, line, card, axis,
      layout: {
        paper_bgcolor: card, plot_bgcolor: card, font: { color: ink, family: "system-ui, sans-serif", size: 13 },
        margin: { l: 55, r: 15, t: 15, b: 50 }, hovermode: "closest", legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
        hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink }, align: "left" }, dragmode: "zoom", showlegend: true,
      },
    };
  }

  hover(policy) {
    const { x, y } = this.state;
    const names = [...new Set([x, y, ...this.data.axes, ...(this.metric.has("kl") ? ["kl"] : [])])];
    const lines = names.map((name) => `${logic.plain(this.metric.get(name).label)}: ${logic.withInterval(policy.metrics[name])}`);
    return [logic.plain(this.title(policy)), ...lines, logic.plain(policy.run)].join("<br>");
  }

  drawPlot() {
    const parallel = this.state.kind === "parallel";
    byId("shown-axes").hidden = !parallel;
    for (const id of ["x", "y"]) byId(id).disabled = parallel;
    const theme = this.theme();
    const { traces, layout } = parallel ? this.parallel(theme) : this.scatter(theme);
    const unused = ["toImage", "autoScale2d", ...(parallel ? ["select2d", "lasso2d"] : [])];
    const config = { responsive: true, displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: unused };
    Plotly.react("plot", traces, layout, config);
    if (this.listening) return;
    this.listening = true;
    const plot = byId("plot");
    plot.on("plotly_click", ({ points }) => {
      const id = points.map((point) => point.customdata).find(Boolean);
      if (id) this.set({ chosen: logic.click(this.state.chosen, id) });
    });
    plot.on("plotly_selected", (event) => {
      if (this.state.kind !== "scatter") return;
      this.brush = event?.points?.length ? new Set(event.points.map((point) => point.customdata).filter(Boolean)) : null;
      this.draw(["table"]);
    });
    plot.on("plotly_deselect", () => { this.brush = null; this.draw(["table"]); });
  }

  scatter(theme) {
    const { x, y, intervals, reference, chosen } = this.state;
    const traces = [];
    for (const [id, name, dash] of [["exact", "exact front", "dot"], ["preview", "estimated front", "dash"]]) {
      const curve = this.data[id]?.values;
      if (!this.state[id] || !curve || !curve[x] || !curve[y]) continue;
      const weights = this.data[id].weights;
      const order = curve[x].map((_, index) => index).sort((a, b) => weights[a][0] - weights[b][0]);
      traces.push({ x: order.map((i) => curve[x][i]), y: order.map((i) => curve[y][i]), mode: weights[0].length === 2 ? "lines" : "markers", name,
        line: { color: theme.ink, width: 1.5, dash }, marker: { color: theme.ink, size: 4 }, hoverinfo: "skip" });
    }
    const at = { ...this.data.reference, kl: 0 };
    if (reference && this.data.reference && at[x] !== undefined && at[y] !== undefined) {
      traces.push({ x: [at[x]], y: [at[y]], mode: "markers", name: "reference", marker: { symbol: "x", color: theme.ink, size: 9 }, hoverinfo: "name" });
    }
    const shown = this.shown();
    this.series.forEach((name, index) => {
      const held = shown.filter((one) => one.series === name && logic.mean(one, x) !== null && logic.mean(one, y) !== null);
      if (!held.length) return;
      const color = colorOf(index);
      const line = logic.line(held, x, y);
      if (line.length > 1) traces.push({ x: line.map((p) => p[0]), y: line.map((p) => p[1]), mode: "lines", line: { color, width: 1.5 }, hoverinfo: "skip", showlegend: false, legendgroup: name });
      const error = (metric) => {
        const part = (end, sign) => held.map((one) => one.metrics[metric][end] === null ? 0 : sign * (one.metrics[metric][end] - one.metrics[metric][0]));
        return { type: "data", symmetric: false, array: part(2, 1), arrayminus: part(1, -1), visible: intervals, thickness: 1, width: 3, color };
      };
      traces.push({
        x: held.map((one) => logic.mean(one, x)), y: held.map((one) => logic.mean(one, y)), error_x: error(x), error_y: error(y),
        mode: held.length > 30 ? "markers" : "markers+text", text: held.map((one) => one.w === "-" ? "" : logic.plain(one.w)), textposition: "top right", textfont: { size: 11, color },
        name: logic.plain(name), legendgroup: name, customdata: held.map((one) => one.id), hoverinfo: "text", hovertext: held.map((one) => this.hover(one)),
        marker: {
          color, symbol: SYMBOLS[index % SYMBOLS.length], size: held.map((one) => chosen.includes(one.id) ? 15 : 10),
          opacity: held.map((one) => this.isIn(one) ? 1 : 0.22),
          line: { color: theme.ink, width: held.map((one) => chosen.includes(one.id) ? 2.5 : 0) },
        },
      });
    });
    const { bounded, bound } = this.state;
    const edge = { line: { color: theme.ink, width: 1, dash: "dash" }, opacity: 0.6, type: "line" };
    const shapes = bound === null ? [] : [
      ...(bounded === x ? [{ ...edge, x0: bound, x1: bound, yref: "paper", y0: 0, y1: 1 }] : []),
      ...(bounded === y ? [{ ...edge, y0: bound, y1: bound, xref: "paper", x0: 0, x1: 1 }] : []),
    ];
    const axis = (name) => ({ ...theme.axis, title: { text: logic.plain(this.label(name)), standoff: 8 } });
    return { traces, layout: { ...theme.layout, shapes, xaxis: axis(x), yaxis: axis(y) } };
  }

  parallel(theme) {
    const usual = [...this.data.axes, ...["kl"].filter((name) => this.metric.has(name))];
    const names = this.state.axes.length > 1 ? this.state.axes : usual;
    this.drawShownAxes(names);
    const ranges = names.map((name) => logic.range(this.policies, name) ?? [0, 1]);
    const seen = new Set();
    const traces = this.shown().map((policy) => {
      const first = !seen.has(policy.series);
      seen.add(policy.series);
      const strong = this.isIn(policy);
      const picked = this.state.chosen.includes(policy.id);
      return {
        x: names.map((_, index) => index),
        y: names.map((name, index) => { const v = logic.mean(policy, name); return v === null ? null : logic.height(v, ranges[index], this.better(name)); }),
        mode: "lines+markers", name: logic.plain(policy.series), legendgroup: policy.series, showlegend: first,
        opacity: strong ? 1 : 0.15, customdata: names.map(() => policy.id), hoverinfo: "text", hovertext: names.map(() => this.hover(policy)),
        line: { color: this.color(policy), width: picked ? 4 : 1.6 }, marker: { color: this.color(policy), size: picked ? 10 : 7 },
      };
    });
    const annotations = names.flatMap((name, index) => {
      const ends = this.better(name) < 0 ? [...ranges[index]].reverse() : ranges[index];
      const note = { x: index, xref: "x", yref: "y", showarrow: false, font: { size: 11, color: theme.ink } };
      return [{ ...note, y: 1.05, text: logic.show(ends[1]) }, { ...note, y: -0.05, text: logic.show(ends[0]) }];
    });
    const words = names.map((name) => logic.plain(this.metric.get(name).label) + (this.better(name) ? "" : "<br>(which way is better: unknown)"));
    return {
      traces,
      layout: {
        ...theme.layout, annotations, margin: { ...theme.layout.margin, l: 30, r: 30 },
        xaxis: { ...theme.axis, tickvals: names.map((_, index) => index), ticktext: words, range: [-0.3, names.length - 0.7], fixedrange: true, zeroline: false },
        yaxis: { ...theme.axis, range: [-0.1, 1.1], showgrid: false, zeroline: false, showticklabels: false, fixedrange: true, title: { text: "better is up" } },
      },
    };
  }

  drawShownAxes(names) {
    byId("shown-axes").replaceChildren(...this.data.metrics.map((one) => {
      const box = el("input", { type: "checkbox", checked: names.includes(one.name) });
      box.onchange = () => {
        const next = this.data.metrics.map((metric) => metric.name).filter((name) => name === one.name ? box.checked : names.includes(name));
        if (next.length > 1) this.set({ axes: next }, ["plot"]); else box.checked = true;
      };
      return el("label", {}, box, one.label);
    }));
  }

  // -- table of policies

  drawTable() {
    const names = [...new Set([...this.data.axes, ...["kl"].filter((name) => this.metric.has(name))])];
    const pick = (id) => this.set({ chosen: logic.click(this.state.chosen, id) });
    const rows = this.policies.map((policy) => {
      const chosen = this.state.chosen.includes(policy.id);
      const swatch = el("span", { class: "swatch" });
      swatch.style.color = this.color(policy);
      return el("tr", {
        class: `policy${chosen ? " chosen" : ""}${this.isIn(policy) ? "" : " out"}`, tabindex: "0", "aria-selected": String(chosen), "data-id": policy.id,
        onclick: () => pick(policy.id), onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(policy.id); } },
      }, el("td", { class: "text" }, swatch, policy.series), el("td", {}, policy.w), el("td", {}, policy.seed === null ? "-" : String(policy.seed)),
      ...names.map((name) => el("td", {}, logic.show(logic.mean(policy, name)))));
    });
    const heads = ["method", "w", "seed", ...names];
    byId("table").replaceChildren(el("h2", {}, `${this.policies.length} policies`), el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((head, index) => el("th", { scope: "col", class: index ? null : "text" }, head)))), el("tbody", {}, ...rows))));
    const failed = this.data.failures;
    byId("failures").replaceChildren(...(failed.length ? [el("h3", {}, `${failed.length} runs gave no point`),
      ...failed.map((run) => el("p", { class: "small" }, `${run.run}: ${run.status}: ${run.error}`))] : []));
  }

  // -- selection

  async drawDetail() {
    const chosen = this.state.chosen.map((id) => this.policy.get(id));
    const target = byId("detail");
    const turn = this.turn = {};
    if (!chosen.length) {
      target.replaceChildren(el("p", { class: "small" }, "No policy is chosen. Click one in the plot or in the table."));
      return;
    }
    const prompts = await unpack("prompts");
    const said = await Promise.all(chosen.map((policy) => unpack(`policy-${policy.index}`)));
    if (turn !== this.turn) return; // another click came first
    const sides = chosen.map((policy, index) => ({ policy, said: said[index], grouped: logic.byPrompt(said[index]) }));
    const parts = chosen.length === 1 ? this.onePolicy(sides[0]) : this.twoPolicies(sides);
    target.replaceChildren(...parts, ...this.samples(prompts, sides));
    this.drawCurve(sides);
  }

  facts(pairs) {
    return el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== null && value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  /** A link to a folder beside the page; only relative paths become links. */
  path(text) {
    const href = text.split("/").map(encodeURIComponent).join("/");
    return text.startsWith("/") ? text : el("a", { href: `${href}/` }, text);
  }

  onePolicy({ policy, said }) {
    const copy = el("button", { onclick: async () => {
      try { await navigator.clipboard.writeText(policy.command); copy.textContent = "copied"; } catch { copy.textContent = "select it"; }
    } }, "copy");
    const settings = Object.entries(policy.settings);
    return [
      el("h2", {}, this.title(policy)),
      this.facts([
        ["weights", Object.entries(policy.weights).map(([name, weight]) => `${name} ${weight}`).join(", ")], ["beta", policy.beta === null ? null : String(policy.beta)],
        ["loss", policy.loss], ["run", this.path(policy.run)], ["adapter", policy.adapter === null ? "none" : this.path(policy.adapter)],
        ["seconds", policy.seconds === null ? null : logic.show(policy.seconds, 1)], ["samples", String(policy.samples)],
      ]),
      policy.unproven.length ? el("p", { class: "warning" }, `The reward of ${policy.unproven.join(", ")} was not shown to agree with its own labels.`) : null,
      el("h3", {}, "Command"),
      policy.command === null ? el("p", { class: "small" }, "No command of this version says the same; the settings below are what was run.") : el("div", {}, el("pre", { id: "command" }, policy.command), copy),
      el("details", {}, el("summary", {}, `${settings.length} settings`), this.facts(settings)),
      el("h3", {}, "Metrics"),
      this.table(["metric", "mean", "95 % interval", "n", "prompts"], this.data.metrics.filter((one) => policy.metrics[one.name]).map((one) => {
        const [mean, low, high, n, groups] = policy.metrics[one.name];
        return [one.label, logic.show(mean), low === null || high === null ? "unknown" : `${logic.show(low)} .. ${logic.show(high)}`, String(n), groups === null ? "-" : String(groups)];
      })),
      ...this.curves([said]),
    ].filter(Boolean);
  }

  twoPolicies(sides) {
    const [a, b] = sides.map((side) => side.policy);
    const low = Math.min(a.index, b.index), high = Math.max(a.index, b.index), sign = a.index < b.index ? 1 : -1;
    const found = this.data.differences.filter((one) => one.a === low && one.b === high);
    const chance = (p) => (p === null ? "unknown" : p < 0.001 ? "< .001" : p.toPrecision(2));
    const rows = found.map((one) => {
      const ends = one.low === null ? null : [sign * one.low, sign * one.high].sort((p, q) => p - q);
      const name = this.metric.get(one.metric)?.label ?? one.metric;
      return [name, logic.show(logic.mean(a, one.metric)), logic.show(logic.mean(b, one.metric)), logic.show(one.mean === null ? null : sign * one.mean),
        ends ? `${logic.show(ends[0])} .. ${logic.show(ends[1])}` : "unknown", chance(one.p), chance(one.p_holm), String(one.groups)];
    });
    const none = this.data.compared ? "These two have no scores on the same prompts." : "So many policies are not compared pair by pair; collect fewer of them.";
    return [
      el("h2", {}, `A: ${this.title(a)}  ·  B: ${this.title(b)}`),
      el("div", { class: "row" }, el("button", { onclick: () => this.set({ chosen: [b.id, a.id] }) }, "swap"), el("button", { onclick: () => this.set({ chosen: [a.id] }) }, "A alone"), el("button", { onclick: () => this.set({ chosen: [b.id] }) }, "B alone")),
      el("h3", {}, "Paired difference, B minus A, on the same prompts"),
      rows.length ? this.table(["metric", "A", "B", "B − A", "95 % interval", "p", "p by Holm", "prompts"], rows) : el("p", { class: "small" }, none),
      rows.length ? el("p", { class: "small" }, `Of these two trained policies; how much another seed would change them is not in it. Holm's p-values are corrected for all ${this.data.differences.length} differences between any two policies.`) : null,
      ...this.curves(sides.map((side) => side.said)),
    ].filter(Boolean);
  }

  table(heads, rows) {
    const cells = (tag, values) => values.map((value, index) => el(tag, { class: index ? null : "text", scope: tag === "th" ? "col" : null }, value));
    return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...cells("th", heads))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells("td", row))))));
  }

  // -- learning curves

  curves(said) {
    const names = [...new Set(said.flatMap((one) => Object.keys(one.curves)))].filter((name) => name !== "step" && name !== "epoch");
    if (!names.length) return [];
    if (!names.includes(this.state.curve)) this.state.curve = names.includes("loss") ? "loss" : names[0];
    const select = el("select", {}, ...names.map((name) => el("option", { value: name, selected: name === this.state.curve }, name)));
    select.onchange = () => this.set({ curve: select.value });
    return [el("h3", {}, "Learning curve"), el("div", { class: "row" }, el("label", {}, "of ", select)), el("div", { class: "plot low", id: "curve" })];
  }

  drawCurve(sides) {
    if (!byId("curve")) return;
    const theme = this.theme();
    const traces = sides.map(({ policy, said }, index) => ({ x: said.curves.step ?? [], y: said.curves[this.state.curve] ?? [], mode: "lines+markers", connectgaps: true,
      name: logic.plain(this.title(policy)), line: { color: colorOf(index) }, marker: { size: 4 } }));
    Plotly.newPlot("curve", traces, { ...theme.layout, xaxis: { ...theme.axis, title: { text: "step" } }, yaxis: theme.axis, showlegend: sides.length > 1 }, { responsive: true, displayModeBar: false });
  }

  // -- samples

  samples(prompts, sides) {
    const { state, data } = this;
    if (sides.some((side) => !side.said.prompt.length)) return [el("p", { class: "small" }, "No samples: this run has not been asked, or its prompts are beyond what the page keeps.")];
    const two = sides.length === 2;
    const scores = [...new Set(sides.flatMap((side) => Object.keys(side.said.scores)))];
    if (!scores.includes(state.score)) state.score = scores[0] ?? "";
    const orders = two ? { difference: "largest difference first", gains: "B better first", losses: "A better first", asked: "as asked" } : { asked: "as asked", lowest: "lowest score first", highest: "highest score first" };
    if (!Object.hasOwn(orders, state.order) || (two && state.order === "asked" && this.sides === 1)) state.order = Object.keys(orders)[0];
    this.sides = sides.length;
    const categories = [...new Set(prompts.map((one) => one.category).filter(Boolean))].sort();
    const list = el("div", {});
    const count = el("span", { class: "small" });
    const refresh = (change) => { this.set(change, []); this.drawPrompts(list, count, prompts, sides); };
    const pick = (options, key) => {
      const select = el("select", {}, ...Object.entries(options).map(([value, text]) => el("option", { value, selected: value === state[key] }, text)));
      select.onchange = () => refresh({ [key]: select.value });
      return select;
    };
    const search = el("input", { type: "search", placeholder: "search prompts and responses", id: "search", size: "24" });
    search.value = state.query;
    search.oninput = () => { clearTimeout(this.typing); this.typing = setTimeout(() => refresh({ query: search.value }), 150); };
    const texts = el("input", { type: "checkbox", checked: state.texts, id: "texts" });
    texts.onchange = () => refresh({ texts: texts.checked });
    this.drawPrompts(list, count, prompts, sides);
    return [
      el("h3", {}, "Samples by prompt"),
      data.prompts.kept < data.prompts.all ? el("p", { class: "small" }, `${data.prompts.kept} of ${data.prompts.all} prompts, so that the file stays small; all of them lie in generations.jsonl of each run.`) : null,
      data.folded ? el("p", { class: "small" }, "Prompts and responses may be harmful. Each is folded until you open it.") : null,
      el("div", { class: "row" }, search, categories.length ? pick({ "": "all categories", ...Object.fromEntries(categories.map((one) => [one, one])) }, "category") : null,
        scores.length ? el("label", {}, "score ", pick(Object.fromEntries(scores.map((one) => [one, one])), "score")) : null, el("label", {}, "order ", pick(orders, "order")),
        el("label", {}, texts, "show prompts"), count),
      list,
    ].filter(Boolean);
  }

  drawPrompts(list, count, prompts, sides) {
    const { state } = this;
    const rows = logic.arrange(prompts, sides, { query: state.query, category: state.category, metric: state.score, order: state.order });
    count.textContent = `${rows.length} of ${prompts.length} prompts`;
    list.replaceChildren();
    const more = (from) => {
      list.append(...rows.slice(from, from + PAGE_OF_PROMPTS).map((row) => this.prompt(prompts[row.index], row, sides)));
      const left = rows.length - from - PAGE_OF_PROMPTS;
      if (left <= 0) return;
      const button = el("button", { onclick: () => { button.remove(); more(from + PAGE_OF_PROMPTS); } }, `${left} more`);
      list.append(button);
    };
    more(0);
  }

  prompt(prompt, row, sides) {
    const { state } = this;
    const score = sides.length === 2 && row.difference !== null ? `${logic.show(row.means[0], 2)} → ${logic.show(row.means[1], 2)} (${row.difference > 0 ? "+" : ""}${logic.show(row.difference, 2)})` : logic.show(row.means[0], 2);
    const ask = state.texts ? prompt.text.slice(0, 300) : `prompt ${row.index + 1}`;
    const made = el("details", { class: "prompt" }, el("summary", {}, el("span", { class: "ask" }, ask), prompt.category ? el("span", { class: "tag" }, prompt.category) : null, state.score ? el("span", { class: "scores" }, score) : null));
    made.addEventListener("toggle", () => {
      if (!made.open || made.childElementCount > 1) return;
      made.append(el("pre", {}, prompt.text), el("div", { class: "sides" }, ...sides.map((side, index) => el("div", {},
        sides.length === 2 ? el("h3", {}, `${"AB"[index]}: ${this.title(side.policy)}`) : null,
        ...row.held[index].rows.flatMap((at) => [el("pre", {}, side.said.response[at]),
          el("div", { class: "scores" }, Object.entries(side.said.scores).map(([name, values]) => `${name} ${logic.show(values[at], 2)}`).join("  ·  "))])))));
    });
    return made;
  }
}

async function start() {
  let page;
  try {
    page = new Page(await unpack("data"));
  } catch (error) {
    byId("detail").replaceChildren(el("p", { class: "warning" }, `This browser cannot unpack the page's data (${error.message}). The numbers are in front.csv beside it.`));
    return;
  }
  page.draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.draw(["plot", "detail"]));
  addEventListener("hashchange", () => { page.read(); page.draw(); });
  document.documentElement.dataset.ready = "yes";
}

if (typeof document !== "undefined") start();
