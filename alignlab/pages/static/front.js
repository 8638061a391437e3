"use strict";
// front.html: its state, the controls, the plot and the table of policies.

const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "star", "hexagon"];
/** Direction of a metric -> which way is better. */
const ARROWS = { 1: " ↑", "-1": " ↓", 0: "" };
/** Width and height of a point's label, in pixels. */
const LABEL = [34, 15];
/** Opacity of what the bound or the selection leaves out. */
const FAINT = 0.22;
/** Parallel axes that are shown unasked, and the room of each, in pixels; more of them are scrolled. */
const [MOST_AXES, AXIS] = [8, 100];

class Page extends Reading {
  constructor(data) {
    super();
    this.data = data;
    this.metric = new Map(data.metrics.map((one) => [one.name, one]));
    this.policy = new Map(data.policies.map((one, index) => [one.id, { ...one, index }]));
    this.policies = [...this.policy.values()];
    this.series = [...new Set(this.policies.map((one) => one.series))];
    const other = data.axes[1] ?? data.metrics.find((one) => one.name !== data.axes[0])?.name ?? data.axes[0];
    const many = data.axes.length > 2;
    this.defaults = {
      x: data.axes[0], y: other, kind: many ? "parallel" : "scatter", intervals: true, exact: true, preview: true, reference: true, dominated: false,
      bounded: this.metric.has("kl") ? "kl" : data.axes[0], bound: null, brush: [], chosen: [], axes: [],
      query: "", category: "", score: data.axes[0], order: "", texts: !data.folded, curve: "loss",
    };
    this.drawn = 0;
    this.read();
  }

  /** Take the state from the link; what of it this page does not know gives way to the defaults, and is said. */
  read() {
    const { data } = this;
    const names = data.metrics.map((one) => one.name), ids = [...this.policy.keys()];
    const known = {
      x: names, y: names, bounded: names, axes: names, kind: ["scatter", "parallel"], chosen: ids, brush: ids, score: data.scores, curve: data.curves,
      category: data.categories, order: Object.values(ORDERS).flatMap(Object.keys),
    };
    const { state, odd } = logic.fromHash(location.hash, this.defaults, known);
    odd.push(...state.chosen.splice(2).map((id) => ["chosen", id])); // two are compared
    if (state.axes.length === 1) odd.push(["axes", state.axes.pop()]);
    const range = logic.range(this.policies, state.bounded);
    if (state.bound !== null && !(range && range[0] <= state.bound && state.bound <= range[1])) {
      odd.push(["bound", String(state.bound)]);
      state.bound = null;
    }
    if (data.folded && state.texts) { // whoever is sent a link has not asked for harmful text
      odd.push(["texts", "true"]);
      state.texts = false;
    }
    this.state = state;
    this.drawOdd(odd);
  }

  /** Name what of the link was not understood. */
  drawOdd(odd) {
    const said = odd.slice(0, 5).map(([name, text]) => `${name}=${text}`).map((text) => logic.visible(text.length > 60 ? `${text.slice(0, 60)}…` : text));
    byId("odd").hidden = !odd.length;
    byId("odd").textContent = odd.length ? `Left out of this link, because the page has no such thing: ${said.join("; ")}${odd.length > 5 ? `; and ${odd.length - 5} more` : ""}` : "";
  }

  /** A link to this page as it is now. */
  link() {
    const kept = this.data.folded ? { ...this.state, texts: this.defaults.texts } : this.state;
    const hash = logic.toHash(kept, this.defaults);
    return location.href.replace(/#.*$/s, "") + (hash ? `#${hash}` : "");
  }

  /** Change the state, keep it in the link, and draw what depends on it. */
  set(change, draw = ["plot", "table", "detail"]) {
    Object.assign(this.state, change);
    try { history.replaceState(null, "", this.link()); } catch { /* too often for this browser, or a page in a frame; the button makes the link */ }
    this.draw(draw);
  }

  draw(parts = ["controls", "plot", "table", "detail"]) {
    if (parts.includes("table")) keepingFocus(() => this.drawTable());
    for (const id of ["view", "detail"]) byId(id).hidden = !this.policies.length;
    if (!this.policies.length) return;
    if (parts.includes("controls")) this.drawControls();
    if (parts.includes("plot")) this.drawPlot();
    if (parts.includes("detail")) this.drawDetail();
    this.drawBound();
    this.drawBrush();
  }

  color(policy) { return colorOf(this.series.indexOf(policy.series)); }
  better(name) { return this.metric.get(name).better; }
  label(name) {
    return this.metric.get(name).label + ARROWS[this.better(name)];
  }
  title(policy) { return `${policy.series}${policy.w === "-" ? "" : `, w=${policy.w}`}${policy.seed === null ? "" : `, seed ${policy.seed}`}`; }

  /** Whether a policy is shown at full strength: within the bound and the brush. */
  isIn(policy) {
    const { bounded, bound } = this.state;
    if (bound !== null && logic.meets(policy, bounded, bound, this.better(bounded)) !== true) return false;
    return !this.state.brush.length || this.state.brush.includes(policy.id);
  }

  /** Names of the axes in use. */
  axes() {
    const { kind, x, y, axes } = this.state;
    if (kind === "scatter") return [x, y];
    return axes.length > 1 ? axes : [...this.data.axes.slice(0, MOST_AXES - 1), ...["kl"].filter((name) => this.metric.has(name) && !this.data.axes.includes(name))];
  }

  shown() {
    const names = this.axes();
    return this.state.dominated ? logic.best(this.policies, names, names.map((name) => this.better(name))) : this.policies;
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
    byId("exact-label").hidden = !data.exact;
    byId("preview-label").hidden = !data.preview;
    byId("reference-label").hidden = !data.reference;
    for (const id of ["intervals", "exact", "preview", "reference", "dominated"]) {
      const box = byId(id);
      box.checked = state[id];
      box.onchange = () => this.set({ [id]: box.checked }, ["plot"]);
    }
    byId("bound").oninput = () => {
      const range = logic.range(this.policies, this.state.bounded);
      const part = byId("bound").value / 1000; // at its end the bound is the best value itself, which rounding may miss
      if (!range) return;
      const worst = this.better(this.state.bounded) < 0 ? 1 : 0; // where anything goes
      this.set({ bound: part === worst ? null : part === 1 ? range[1] : range[0] + (range[1] - range[0]) * part }, ["plot", "table"]);
    };
    byId("csv").onclick = () => this.save("front.csv", "text/csv", [data.csv[0], ...this.shown().filter((one) => this.isIn(one)).map((one) => data.csv[1 + one.index])].join(""));
    for (const format of ["png", "svg"]) byId(format).onclick = () => this.saveImage(format);
    byId("link").onclick = () => this.shareLink();
    byId("unbrush").onclick = () => { this.set({ brush: [] }, ["plot", "table"]); byId("plot").focus({ preventScroll: true }); };
  }

  drawBound() {
    const { bounded, bound } = this.state;
    const range = logic.range(this.policies, bounded);
    const better = this.better(bounded);
    byId("bound").disabled = !range || range[0] === range[1]; // all are alike
    if (!range) return;
    const value = bound ?? (better < 0 ? range[1] : range[0]);
    byId("bound").setAttribute("aria-valuetext", bound === null ? "anything" : `${better < 0 ? "at most" : "at least"} ${logic.show(bound)}`);
    byId("bound").value = range[1] > range[0] ? 1000 * (value - range[0]) / (range[1] - range[0]) : 0;
    byId("bound-side").textContent = better < 0 ? "at most" : "at least";
    byId("bound-value").textContent = bound === null ? "anything" : logic.show(bound);
    const met = this.policies.filter((one) => logic.meets(one, bounded, value, better) === true);
    const sure = met.filter((one) => logic.meets(one, bounded, value, better, true) === true);
    const ws = [...new Set(met.filter((one) => one.w !== "-").map((one) => one.w))], others = [...new Set(met.filter((one) => one.w === "-").map((one) => one.series))];
    const named = [ws.length ? `w = ${ws.join(", ")}` : "", ...others.map((name) => (name === "reference" ? "the reference" : `${name} (no w)`))].filter(Boolean);
    byId("bound-count").textContent = bound === null ? "" :
      `${met.length} of ${this.policies.length} meet it (${sure.length} with their whole interval)${named.length ? `: ${named.join("; ")}` : ""}`;
  }

  drawBrush() {
    const { brush } = this.state;
    byId("brush").hidden = !brush.length;
    byId("brush-count").textContent = brush.length ? `${logic.count(brush.length, "policy", "policies")} selected` : "";
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
    field.value = this.link();
    field.hidden = false;
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      byId("told").textContent = "The link is copied.";
    } catch { /* a page from a file may not; the field holds it */ }
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
        hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink }, align: "left" }, showlegend: true,
        dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
        selections: [], selectionrevision: ++this.drawn, // what is selected is drawn as the brush
      },
    };
  }

  hover(policy) {
    const { x, y } = this.state;
    const names = [...new Set([x, y, ...this.data.axes, ...(this.metric.has("kl") ? ["kl"] : [])])];
    const lines = [this.title(policy), ...names.map((name) => `${this.metric.get(name).label}: ${logic.withInterval(policy.metrics[name])}`)];
    const most = Math.max(24, Math.floor(0.6 * byId("view").clientWidth / 7)); // fits to one side of any point, or over it
    return [...lines.flatMap((line) => logic.wrapped(line, most, true)), logic.tail(policy.run, most)].map(logic.plain).join("<br>");
  }

  drawPlot() {
    const parallel = this.state.kind === "parallel";
    const axes = this.axes();
    byId("shown-axes").hidden = !parallel;
    for (const id of ["x", "y", "intervals", "exact", "preview"]) byId(`${id}-label`).classList.toggle("only-scatter", parallel);
    byId("hint").textContent = parallel ? "Drag over an axis to select policies, with Shift to add some." : "Drag to zoom; box and lasso select, with Shift more.";
    byId("plot").setAttribute("aria-label", `plot of ${axes.map((name) => this.metric.get(name).label).join(", ")}; the table of policies holds its numbers`);
    const theme = this.theme();
    byId("plot").style.minWidth = parallel ? `${axes.length * AXIS}px` : ""; // beyond its place it is scrolled
    const { traces, layout } = parallel ? this.parallel(theme) : this.scatter(theme);
    const unused = ["toImage", "autoScale2d", ...(parallel ? ["select2d", "lasso2d", "zoom2d", "pan2d"] : [])];
    const config = { responsive: true, doubleClick: "reset", displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: unused };
    Plotly.react("plot", traces, layout, config);
    if (byId("plot").clientWidth !== byId("plot")._fullLayout.width) Plotly.Plots.resize("plot"); // it looks at the window only
    if (this.listening) return;
    this.listening = true;
    const plot = byId("plot");
    plot.on("plotly_click", ({ points }) => {
      const id = points.map((point) => point.customdata).find(Boolean);
      if (id) this.set({ chosen: logic.click(this.state.chosen, id) });
    });
    plot.addEventListener("touchend", (event) => { // the mouse events that a browser adds to a tap would be a second click to plotly.js
      if (event.cancelable && event.target.closest(".draglayer")) event.preventDefault();
    }, { capture: true, passive: false });
    plot.addEventListener("mousedown", (event) => { this.adds = event.shiftKey; }, true);
    plot.on("plotly_selected", (event) => {
      if (!event?.range && !event?.lassoPoints) return; // plotly.js forgets an earlier one
      const found = this.state.kind === "scatter" ? event.points.map((point) => point.customdata).filter(Boolean) : logic.inBox(this.heights, event.range);
      const brush = [...new Set([...(this.adds ? this.state.brush : []), ...found])];
      setTimeout(() => this.set({ brush }, ["plot", "table"])); // once plotly.js is done with the drag
    });
    plot.on("plotly_deselect", () => setTimeout(() => this.set({ brush: [] }, ["plot", "table"])));
  }

  /** Which points show their label: none lies over another's, and the chosen ones come first. */
  labelled(policies, x, y, ranges) {
    const { clientWidth, clientHeight } = byId("plot");
    const [width, height] = ranges.map(([low, high]) => high - low);
    const scale = [(clientWidth - 70) / width, (clientHeight - 65) / height];
    const first = [...policies].sort((a, b) => this.state.chosen.includes(b.id) - this.state.chosen.includes(a.id));
    const kept = logic.apart(first.map((one) => [logic.mean(one, x) * scale[0], logic.mean(one, y) * scale[1]]), LABEL);
    return new Set(first.filter((_, index) => kept.has(index)).map((one) => one.id));
  }

  scatter(theme) {
    const { x, y, intervals, reference, chosen } = this.state;
    const traces = [], extra = { [x]: [], [y]: [] };
    for (const [id, name, dash] of [["exact", "exact front", "dot"], ["preview", "estimated front", "dash"]]) {
      const curve = this.data[id]?.values;
      if (!this.state[id] || !curve || !curve[x] || !curve[y]) continue;
      for (const name of [x, y]) extra[name].push(...curve[name]);
      const weights = this.data[id].weights;
      const order = curve[x].map((_, index) => index).sort((a, b) => weights[a][0] - weights[b][0]);
      traces.push({ x: order.map((i) => curve[x][i]), y: order.map((i) => curve[y][i]), mode: weights[0].length === 2 ? "lines" : "markers", name,
        line: { color: theme.ink, width: 1.5, dash }, marker: { color: theme.ink, size: 4 }, hoverinfo: "skip" });
    }
    const at = { ...this.data.reference, kl: 0 };
    if (reference && this.data.reference && at[x] !== undefined && at[y] !== undefined) {
      for (const name of [x, y]) extra[name].push(at[name]);
      traces.push({ x: [at[x]], y: [at[y]], mode: "markers", name: "reference", marker: { symbol: "x", color: theme.ink, size: 9 }, hoverinfo: "name" });
    }
    const known = this.policies.filter((one) => logic.mean(one, x) !== null && logic.mean(one, y) !== null);
    const shown = this.shown().filter((one) => known.includes(one));
    const ranges = [x, y].map((name) => { // of all that may be drawn, so that nothing but a zoom moves an axis
      const ends = [...extra[name], ...known.flatMap((one) => one.metrics[name].slice(0, 3))].filter((value) => value !== null);
      const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
      const room = 0.06 * (high - low || Math.abs(high) || 1);
      return [low - room, high + room];
    });
    const labelled = this.labelled(shown, x, y, ranges);
    this.series.forEach((name, index) => {
      const held = shown.filter((one) => one.series === name);
      if (!held.length) return;
      const color = colorOf(index);
      const isIn = (one) => this.isIn(one);
      const line = logic.line(held, x, y, isIn);
      const legend = held.some(isIn); // its sign is pale only where the whole series is left out
      for (const strong of [false, true]) {
        const opacity = strong ? 1 : FAINT, part = held.filter((one) => isIn(one) === strong);
        const joined = line.slice(1).flatMap((to, at) => ((line[at][2] && to[2]) === strong ? [line[at], to, [null, null]] : []));
        if (joined.length) traces.push({ x: joined.map((p) => p[0]), y: joined.map((p) => p[1]), mode: "lines", line: { color, width: 1.5 }, opacity, hoverinfo: "skip", showlegend: false, legendgroup: name, uid: `line ${strong} ${name}` });
        if (!part.length) continue;
        const error = (metric) => {
          const ends = (end, sign) => part.map((one) => one.metrics[metric][end] === null ? null : sign * (one.metrics[metric][end] - one.metrics[metric][0]));
          return { type: "data", symmetric: false, array: ends(2, 1), arrayminus: ends(1, -1), visible: intervals, thickness: 1, width: 3, color };
        };
        traces.push({
          x: part.map((one) => logic.mean(one, x)), y: part.map((one) => logic.mean(one, y)), error_x: error(x), error_y: error(y), opacity,
          mode: "markers+text", text: part.map((one) => one.w === "-" || !labelled.has(one.id) ? "" : logic.plain(one.w)), textposition: "top right", textfont: { size: 11, color: theme.ink, shadow: `0 0 2px ${theme.card}, 0 0 4px ${theme.card}` },
          name: logic.plain(name), legendgroup: name, showlegend: strong === legend, uid: `points ${strong} ${name}`, customdata: part.map((one) => one.id), hoverinfo: "text", hovertext: part.map((one) => this.hover(one)),
          marker: {
            color, symbol: SYMBOLS[(index + Math.floor(index / SYMBOLS.length)) % SYMBOLS.length], size: part.map((one) => chosen.includes(one.id) ? 15 : 10),
            opacity: 1, line: { color: theme.ink, width: part.map((one) => chosen.includes(one.id) ? 2.5 : 0) },
          },
        });
      }
    });
    const { bounded, bound } = this.state;
    const edge = { line: { color: theme.ink, width: 1, dash: "dash" }, opacity: 0.6, type: "line" };
    const shapes = bound === null ? [] : [
      ...(bounded === x ? [{ ...edge, x0: bound, x1: bound, yref: "paper", y0: 0, y1: 1 }] : []),
      ...(bounded === y ? [{ ...edge, y0: bound, y1: bound, xref: "paper", x0: 0, x1: 1 }] : []),
    ];
    const axis = (name, range) => ({ ...theme.axis, range, title: { text: logic.plain(this.label(name)), standoff: 8 }, uirevision: name }); // a zoom lasts as long as its axis
    const note = { xref: "paper", yref: "paper", x: 0.5, y: 0.5, showarrow: false, font: { color: theme.ink } };
    const annotations = shown.length ? [] : [{ ...note, text: "No policy has both metrics." }];
    return { traces, layout: { ...theme.layout, shapes, annotations, uirevision: "scatter", xaxis: axis(x, [...ranges[0]]), yaxis: axis(y, [...ranges[1]]) } };
  }

  parallel(theme) {
    const names = this.axes();
    keepingFocus(() => this.drawShownAxes(names));
    const at = { ...this.data.reference, ...(this.data.reference ? { kl: 0 } : {}) };
    const reference = this.state.reference && names.some((name) => at[name] !== undefined);
    const ranges = names.map((name) => {
      const [low, high] = logic.range(this.policies, name) ?? [0, 1];
      return reference && at[name] !== undefined ? [Math.min(low, at[name]), Math.max(high, at[name])] : [low, high];
    });
    const height = (value, index) => (value === null || value === undefined ? null : logic.height(value, ranges[index], this.better(names[index])));
    const shown = this.shown();
    const legend = new Map([...shown].reverse().sort((a, b) => this.isIn(a) - this.isIn(b)).map((one) => [one.series, one.id])); // the first that is in
    this.heights = shown.map((policy) => ({ id: policy.id, at: names.map((name, index) => height(logic.mean(policy, name), index)) }));
    const traces = !reference ? [] : [{
      x: names.map((_, index) => index), y: names.map((name, index) => height(at[name], index)), mode: "lines+markers", name: "reference", hoverinfo: "name",
      line: { color: theme.ink, width: 1.2, dash: "dot" }, marker: { symbol: "x", color: theme.ink, size: 8 }, uid: "reference",
    }];
    traces.push(...shown.map((policy, row) => {
      const strong = this.isIn(policy);
      const picked = this.state.chosen.includes(policy.id);
      return {
        x: names.map((_, index) => index),
        y: this.heights[row].at, uid: policy.id,
        mode: "lines+markers", name: logic.plain(policy.series), legendgroup: policy.series, showlegend: legend.get(policy.series) === policy.id,
        opacity: strong ? 1 : FAINT, customdata: names.map(() => policy.id), hoverinfo: "text", hovertext: names.map(() => this.hover(policy)),
        line: { color: this.color(policy), width: picked ? 4 : 1.6 }, marker: { color: this.color(policy), size: picked ? 10 : 7 },
      };
    }));
    const annotations = names.flatMap((name, index) => {
      const ends = this.better(name) < 0 ? [...ranges[index]].reverse() : ranges[index];
      const note = { x: index, xref: "x", yref: "y", showarrow: false, font: { size: 11, color: theme.ink } };
      return [{ ...note, y: 1.05, text: logic.show(ends[1]) }, { ...note, y: -0.05, text: logic.show(ends[0]) }];
    });
    const most = Math.max(9, Math.floor(byId("plot").clientWidth / names.length / 8));
    const words = names.map((name) => logic.wrapped(this.metric.get(name).label + (this.better(name) ? "" : " (which way is better: unknown)"), most).map(logic.plain).join("<br>"));
    return {
      traces,
      layout: {
        ...theme.layout, annotations, margin: { ...theme.layout.margin, l: 30, r: 30 }, uirevision: "parallel",
        dragmode: theme.layout.dragmode && "select", selectdirection: "d",
        xaxis: { ...theme.axis, tickvals: names.map((_, index) => index), ticktext: words, tickangle: 0, ticklabeloverflow: "allow", range: [-0.3, names.length - 0.7], fixedrange: true, zeroline: false },
        yaxis: { ...theme.axis, range: [-0.1, 1.1], showgrid: false, zeroline: false, showticklabels: false, fixedrange: true, title: { text: "better is up" } },
      },
    };
  }

  drawShownAxes(names) {
    byId("axes-count").textContent = `axes: ${names.length} of ${this.data.metrics.length} metrics`;
    byId("axes").replaceChildren(...this.data.metrics.map((one) => {
      const box = el("input", { type: "checkbox", checked: names.includes(one.name), "data-key": `axis ${one.name}` });
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
    const bySeed = new Set(this.policies.map((one) => one.seed)).size > 1;
    const pick = (id) => this.set({ chosen: logic.click(this.state.chosen, id) });
    const rows = this.policies.map((policy) => {
      const chosen = this.state.chosen.includes(policy.id);
      const swatch = el("span", { class: "swatch" });
      swatch.style.color = this.color(policy);
      return el("tr", {
        class: `policy${chosen ? " chosen" : ""}${this.isIn(policy) ? "" : " out"}`, "data-id": policy.id, onclick: () => pick(policy.id),
      }, el("td", { class: "text" }, el("button", { class: "pick", "aria-pressed": String(chosen), "aria-label": this.title(policy), "data-key": `policy ${policy.id}` }, swatch, el("span", { dir: "auto" }, policy.series))), el("td", {}, policy.w), ...(bySeed ? [el("td", {}, policy.seed === null ? "-" : String(policy.seed))] : []),
      ...names.map((name) => el("td", {}, logic.show(logic.mean(policy, name)))));
    });
    const heads = [["method"], ["w"], ...(bySeed ? [["seed"]] : []), ...names.map((name) => [name + ARROWS[this.better(name)], this.label(name)])];
    byId("table").replaceChildren(el("h2", {}, this.policies.length ? logic.count(this.policies.length, "policy", "policies") : "No policy yet"), el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map(([head, title = null], index) => el("th", { scope: "col", class: index ? null : "text", title }, head)))), el("tbody", {}, ...rows))));
    const failed = this.data.failures;
    byId("failures").replaceChildren(...(failed.length ? [el("h3", {}, `${logic.count(failed.length, "run")} gave no point`),
      ...failed.map((run) => el("p", { class: "small", dir: "auto" }, `${run.run}: ${run.status}: ${run.error}`))] : []));
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
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.draw(["plot", "table", "detail"]));
  addEventListener("hashchange", () => { page.read(); page.draw(); });
  document.documentElement.dataset.ready = "yes";
}

if (typeof document !== "undefined") start();
