"use strict";
// front.html: its state, its controls, and what it saves.

class Page extends Plot {
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
      bounded: this.metric.has("kl") ? "kl" : data.axes[0], side: "", bound: null, sort: "", brush: [], chosen: [], axes: [],
      query: "", category: "", score: data.axes[0], order: "", texts: !data.folded, curve: "loss",
    };
    this.drawn = this.kept = 0;
    this.read();
  }

  /** Take the state from the link; what of it this page does not know gives way to the defaults, and is said. */
  read() {
    const { data } = this;
    const names = data.metrics.map((one) => one.name), ids = [...this.policy.keys()];
    const known = {
      x: names, y: names, bounded: names, axes: names, kind: ["scatter", "parallel"], chosen: ids, brush: ids, score: data.scores, curve: data.curves,
      category: data.categories, order: Object.values(ORDERS).flatMap(Object.keys), side: ["least", "most"],
      sort: this.columns().flatMap(({ key }) => [key, `-${key}`]),
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
    this.settle();
    this.drawOdd(odd);
    clearTimeout(this.keeping);
    byId("link-text").value = this.link();
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
    this.settle();
    this.keep();
    this.draw(draw);
  }

  /** The order of the prompts is one of those that the number of chosen policies has. */
  settle() {
    if (!Object.hasOwn(ORDERS[this.state.chosen.length] ?? {}, this.state.order)) this.state.order = "";
  }

  /** Keep the state in the address and in the link's field; a browser takes some twenty addresses a second. */
  keep() {
    byId("link-text").value = this.link();
    clearTimeout(this.keeping);
    const wait = this.kept + 100 - performance.now();
    if (wait > 0) {
      this.keeping = setTimeout(() => this.keep(), wait);
      return;
    }
    this.kept = performance.now();
    try { history.replaceState(null, "", this.link()); } catch { /* a page in a frame; the button makes the link */ }
  }

  draw(parts = ["controls", "plot", "table", "detail"]) {
    if (parts.includes("table")) keepingFocus(() => this.drawTable());
    for (const id of ["view", "detail"]) byId(id).hidden = !this.policies.length;
    if (parts.includes("controls")) this.drawTold();
    if (!this.policies.length) return;
    if (parts.includes("controls")) this.drawControls();
    if (parts.includes("plot")) this.drawPlot();
    if (parts.includes("detail")) this.drawDetail();
    this.drawBound();
    this.drawBrush();
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
    this.choose("bound-metric", names, state.bounded, (bounded) => this.set({ bounded, side: "", bound: null }));
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
    byId("bound-side").onchange = () => {
      const value = byId("bound-side").value, usual = this.better(this.state.bounded) < 0 ? "most" : "least";
      this.set({ side: value === usual ? "" : value }, ["plot", "table"]);
    };
    byId("bound").oninput = () => {
      const range = logic.range(this.policies, this.state.bounded);
      const part = byId("bound").value / 1000; // at its end the bound is that value itself, which rounding may miss
      if (!range) return;
      const worst = this.side() < 0 ? 1 : 0; // where anything goes
      this.set({ bound: part === worst ? null : part === 1 ? range[1] : range[0] + (range[1] - range[0]) * part }, ["plot", "table"]);
    };
    byId("csv").onclick = () => this.save("front.csv", "text/csv", [data.csv[0], ...this.shown().filter((one) => this.isIn(one)).map((one) => data.csv[1 + one.index])].join(""));
    for (const format of ["png", "svg"]) byId(format).onclick = () => this.saveImage(format);
    byId("link").onclick = () => this.shareLink();
    byId("unbrush").onclick = () => { this.set({ brush: [] }, ["plot", "table"]); byId("plot").focus({ preventScroll: true }); };
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
    this.set({}, []);
    field.hidden = false;
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      byId("told").textContent = "The link is copied.";
    } catch { /* a page from a file may not; the field holds it */ }
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
