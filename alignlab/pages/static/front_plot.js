"use strict";
// front.html: its plot, as scatter or over parallel axes.

/** Opacity of what the bound or the selection leaves out. */
const FAINT = 0.22;
/** Parallel axes that are shown unasked, and the room of each, in pixels; more of them are scrolled. */
const [MOST_AXES, AXIS] = [8, 100];
/** Size of a label's letters and height of its box, in pixels. */
const [LETTERS, LABEL] = [11, 12];

const isTouched = () => matchMedia("(pointer: coarse)").matches;

/** How the plot is used. */
function hint(parallel) {
  const point = isTouched() ? "Tap" : "Hover for numbers, click";
  const drag = parallel ? (isTouched() ? "" : " Drag over an axis to select policies, with Shift to add some.")
    : isTouched() ? " Zoom, box and lasso are in the toolbar: choose one, then drag." : " Drag to zoom; box and lasso select, with Shift more.";
  return `${point} one policy to read it, a second one to compare.${drag}`;
}

class Plot extends Policies {
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
        margin: { l: 55, r: 15, t: 8, b: 50 }, hovermode: "closest", legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
        hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink }, align: "left" }, showlegend: true,
        dragmode: isTouched() ? false : "zoom", // a finger scrolls the page
        selections: [], selectionrevision: ++this.drawn, // what is selected is drawn as the brush
      },
    };
  }

  referenceMark() {
    const { colors, symbol } = this.style("reference");
    return { color: colors[isDark() ? 1 : 0], symbol };
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
    byId("scroller").classList.toggle("tools", !parallel);
    byId("unlabelled").textContent = "";
    byId("hint").textContent = hint(parallel);
    byId("plot").setAttribute("aria-label", `plot of ${axes.map((name) => this.metric.get(name).label).join(", ")}; the table of policies holds its numbers`);
    const theme = this.theme();
    byId("plot").style.minWidth = parallel ? `${axes.length * AXIS}px` : ""; // beyond its place it is scrolled
    const { traces, layout } = parallel ? this.parallel(theme) : this.scatter(theme);
    const unused = ["toImage", "autoScale2d", ...(parallel ? ["select2d", "lasso2d", "zoom2d", "pan2d"] : [])];
    const config = { responsive: true, doubleClick: "reset", displayModeBar: !parallel, displaylogo: false, showSendToCloud: false, modeBarButtonsToRemove: unused };
    const turn = this.plotted = {};
    Plotly.react("plot", traces, layout, config).then(() => { if (turn === this.plotted && !parallel) this.drawLabels(theme); });
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
    plot.on("plotly_relayout", (change) => { // a zoom, another size: there is other room for the labels
      if (this.state.kind === "scatter" && Object.keys(change).some((key) => /^[xy]axis|^autosize/.test(key))) this.drawLabels(this.theme());
    });
    plot.on("plotly_restyle", () => { if (this.state.kind === "scatter") this.drawLabels(this.theme()); });
    byId("scroller").addEventListener("scroll", () => this.drawScrolled());
    plot.on("plotly_afterplot", () => this.drawScrolled());
    plot.on("plotly_deselect", () => setTimeout(() => this.set({ brush: [] }, ["plot", "table"])));
  }

  /** Keep the legend and the toolbar in view while parallel axes are scrolled. */
  drawScrolled() {
    const { scrollLeft, clientWidth } = byId("scroller"), plot = byId("plot");
    const width = plot.querySelector(".legend .bg")?.getBoundingClientRect().width ?? 0;
    const most = plot.clientWidth - clientWidth; // a legend that is wider than its place shows its end at the end
    plot.style.setProperty("--scrolled", `${scrollLeft}px`);
    plot.style.setProperty("--place", `${clientWidth}px`);
    plot.style.setProperty("--legend", `${most > 0 ? scrollLeft * Math.min(1, Math.max(0, (plot.clientWidth - width - 30) / most)) : 0}px`);
  }

  /** Write each point's w where it lies on no bar, mark or other label; say how many find no place. */
  drawLabels(theme) {
    const plot = byId("plot"), { xaxis, yaxis } = plot._fullLayout;
    const part = (value, [low, high]) => (value - low) / (high - low);
    const at = (x, y) => [xaxis._offset + xaxis._length * part(x, xaxis.range), yaxis._offset + yaxis._length * (1 - part(y, yaxis.range))];
    const frame = [xaxis._offset, yaxis._offset, xaxis._offset + xaxis._length, yaxis._offset + yaxis._length];
    const bars = [], lines = [], marks = [], found = [];
    const pen = this.pen ??= el("canvas").getContext("2d");
    pen.font = `${LETTERS}px ${theme.layout.font.family}`;
    plot.data.forEach((trace, index) => {
      if (plot._fullData[index].visible !== true) return;
      const spots = trace.x.map((x, row) => (x === null ? null : at(x, trace.y[row])));
      if (trace.mode.includes("lines")) spots.slice(1).forEach((to, row) => { if (to && spots[row]) lines.push([...spots[row], ...to]); });
      if (!trace.mode.includes("markers")) return;
      spots.forEach(([x, y], row) => {
        const half = (Array.isArray(trace.marker.size) ? trace.marker.size[row] : trace.marker.size) / 2;
        marks.push([x - half, y - half, x + half, y + half]);
        const ends = (error) => [-(error.arrayminus[row] ?? 0), error.array[row] ?? 0];
        if (trace.error_x?.visible) bars.push(ends(trace.error_x).flatMap((end) => at(trace.x[row] + end, trace.y[row])));
        if (trace.error_y?.visible) bars.push(ends(trace.error_y).flatMap((end) => at(trace.x[row], trace.y[row] + end)));
        const policy = this.policy.get(trace.customdata?.[row]);
        if (!policy || policy.w === "-" || !(x > frame[0] && x < frame[2] && y > frame[1] && y < frame[3])) return;
        found.push({ x, y, size: [pen.measureText(policy.w).width, LABEL], policy, value: [trace.x[row], trace.y[row]] });
      });
    });
    const first = (one) => 2 * this.state.chosen.includes(one.policy.id) + this.isIn(one.policy);
    found.sort((a, b) => first(b) - first(a));
    const places = labels.place(found, { bars, lines, marks, frame });
    const written = found.flatMap(({ policy, value }, index) => (!places[index] ? [] : [{
      x: value[0], y: value[1], text: logic.plain(policy.w), opacity: this.isIn(policy) ? 1 : 0.5, borderpad: 0, xanchor: "center", yanchor: "middle",
      font: { size: LETTERS, color: theme.ink, shadow: `0 0 2px ${theme.card}, 0 0 4px ${theme.card}` },
      ...(places[index].far ? { showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: this.color(policy), standoff: 6, ax: places[index].x, ay: places[index].y }
        : { showarrow: false, xshift: places[index].x, yshift: -places[index].y }),
    }]));
    const left = places.filter((one) => !one).length;
    byId("unlabelled").textContent = left ? `${left} of ${logic.count(found.length, "label")} left out: no free place; zoom in or turn the intervals off.` : "";
    if (found.length) Plotly.relayout("plot", { annotations: written });
  }

  scatter(theme) {
    const { x, y, intervals, reference, chosen } = this.state;
    const traces = [], extra = { [x]: [], [y]: [] };
    for (const [id, name, dash] of [["exact", "exact front", "solid"], ["preview", "estimated front", "dash"]]) {
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
      traces.push({ x: [at[x]], y: [at[y]], mode: "markers", name: "reference", marker: { ...this.referenceMark(), size: 11 }, hoverinfo: "name" });
    }
    const known = this.policies.filter((one) => logic.mean(one, x) !== null && logic.mean(one, y) !== null);
    const shown = this.shown().filter((one) => known.includes(one));
    const ranges = [x, y].map((name) => { // of all that may be drawn, so that nothing but a zoom moves an axis
      const ends = [...extra[name], ...known.flatMap((one) => one.metrics[name].slice(0, 3))].filter((value) => value !== null);
      const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
      const room = 0.06 * (high - low || Math.abs(high) || 1);
      return [low - room, high + room];
    });
    for (const name of this.series) {
      const held = shown.filter((one) => one.series === name);
      if (!held.length) continue;
      const { symbol } = this.style(name), color = this.color(held[0]);
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
          mode: "markers",
          name: logic.plain(name), legendgroup: name, showlegend: strong === legend, uid: `points ${strong} ${name}`, customdata: part.map((one) => one.id), hoverinfo: "text", hovertext: part.map((one) => this.hover(one)),
          marker: {
            color, symbol, size: part.map((one) => chosen.includes(one.id) ? 15 : 10),
            opacity: 1, line: { color: theme.ink, width: part.map((one) => chosen.includes(one.id) ? 2.5 : 0) },
          },
        });
      }
    }
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
      line: { color: this.referenceMark().color, width: 1.2, dash: "dot" }, marker: { ...this.referenceMark(), size: 9 }, uid: "reference",
    }];
    traces.push(...shown.map((policy, row) => {
      const strong = this.isIn(policy);
      const picked = this.state.chosen.includes(policy.id);
      return {
        x: names.map((_, index) => index),
        y: this.heights[row].at, uid: policy.id,
        mode: "lines+markers", name: logic.plain(policy.series), legendgroup: policy.series, showlegend: legend.get(policy.series) === policy.id,
        opacity: strong ? 1 : FAINT, customdata: names.map(() => policy.id), hoverinfo: "text", hovertext: names.map(() => this.hover(policy)),
        line: { color: this.color(policy), width: picked ? 4 : 1.6 }, marker: { color: this.color(policy), symbol: this.style(policy.series).symbol, size: picked ? 11 : 8 },
      };
    }));
    const annotations = names.flatMap((name, index) => {
      const ends = this.better(name) < 0 ? [...ranges[index]].reverse() : ranges[index];
      const note = { x: index, xref: "x", yref: "y", showarrow: false, font: { size: 11, color: theme.ink } };
      return logic.alike(ends).map((text, end) => ({ ...note, y: end ? 1.05 : -0.05, text }));
    });
    const most = Math.max(9, Math.floor(byId("plot").clientWidth / names.length / 8));
    const words = names.map((name) => logic.wrapped(this.metric.get(name).label + (this.better(name) ? "" : " (which way is better: unknown)"), most).map(logic.plain).join("<br>"));
    return {
      traces,
      layout: {
        ...theme.layout, legend: { ...theme.layout.legend, title: { text: "better is up", side: "top", font: { size: 13 } } }, annotations, margin: { ...theme.layout.margin, l: 30, r: 30 }, uirevision: "parallel",
        dragmode: theme.layout.dragmode && "select", selectdirection: "d",
        xaxis: { ...theme.axis, tickvals: names.map((_, index) => index), ticktext: words, tickangle: 0, ticklabeloverflow: "allow", range: [-0.3, names.length - 0.7], fixedrange: true, zeroline: false },
        yaxis: { ...theme.axis, range: [-0.1, 1.1], showgrid: false, zeroline: false, showticklabels: false, fixedrange: true },
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
}
