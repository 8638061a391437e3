"use strict";
// front.html: the table of policies, who is dominated, and which w meets a bound.

/** Direction of a metric -> which way is better; it stays beside its name. */
const ARROWS = { 1: "\u00a0↑", "-1": "\u00a0↓", 0: "" };

class Policies extends Reading {
  style(series) { return this.data.styles[series]; }
  color(policy) { return this.style(policy.series).colors[isDark() ? 1 : 0]; }
  better(name) { return this.metric.get(name).better; }
  label(name) { return this.metric.get(name).label + ARROWS[this.better(name)]; }
  title(policy) { return `${policy.series}${policy.w === "-" ? "" : `, w=${policy.w}`}${policy.seed === null ? "" : `, seed ${policy.seed}`}`; }

  /** Which way the bound goes: 1 at least, -1 at most; unless asked otherwise, the way in which its metric is better. */
  side() { return { least: 1, most: -1 }[this.state.side] ?? (this.better(this.state.bounded) < 0 ? -1 : 1); }

  /** Whether a policy is shown at full strength: within the bound and the brush. */
  isIn(policy) {
    const { bounded, bound } = this.state;
    if (bound !== null && logic.meets(policy, bounded, bound, this.side()) !== true) return false;
    return !this.state.brush.length || this.state.brush.includes(policy.id);
  }

  // -- which w

  drawBound() {
    const { bounded, bound } = this.state;
    const range = logic.range(this.policies, bounded), side = this.side();
    byId("bound").disabled = byId("bound-side").disabled = !range || range[0] === range[1]; // all are alike
    byId("bound-side").value = side < 0 ? "most" : "least";
    if (!range) return;
    const value = bound ?? (side < 0 ? range[1] : range[0]);
    const [shown] = logic.alike([value, ...range]);
    byId("bound").setAttribute("aria-valuetext", bound === null ? "anything" : `${side < 0 ? "at most" : "at least"} ${shown}`);
    byId("bound").value = range[1] > range[0] ? 1000 * (value - range[0]) / (range[1] - range[0]) : 0;
    byId("bound-value").textContent = bound === null ? "anything" : shown;
    const met = this.policies.filter((one) => logic.meets(one, bounded, value, side) === true);
    const sure = met.filter((one) => logic.meets(one, bounded, value, side, true) === true);
    const named = logic.named(met, this.policies);
    byId("bound-count").textContent = bound === null ? "" :
      `${met.length} of ${this.policies.length} meet it (${sure.length} with their whole interval)${named ? `: ${named}` : ""}`;
  }

  // -- table of policies

  /** Its columns: key, head, and the value of a policy by which it is sorted. */
  columns() {
    const names = [...new Set([...this.data.axes, ...["kl"].filter((name) => this.metric.has(name))])];
    return [
      { key: "method", head: "method", first: "", value: (one) => one.series },
      { key: "w", head: "w", first: "", value: (one) => Object.values(one.weights) },
      ...(new Set(this.policies.map((one) => one.seed)).size > 1 ? [{ key: "seed", head: "seed", first: "", value: (one) => one.seed }] : []),
      ...names.map((name) => ({ key: name, head: name + ARROWS[this.better(name)], title: this.label(name), first: this.better(name) < 0 ? "" : "-", value: (one) => logic.mean(one, name), metric: name })),
    ];
  }

  /** A head that sorts: the best first, then the worst, then as it was. */
  head({ key, head, title = null, first }, index) {
    const { sort } = this.state;
    const order = { [key]: "ascending", [`-${key}`]: "descending" }[sort] ?? "none";
    const next = order === "none" ? first + key : sort === first + key ? (first ? key : `-${key}`) : "";
    const sign = el("span", { class: "sorted", "aria-hidden": "true" }, { ascending: "▲", descending: "▼", none: "" }[order]);
    return el("th", { scope: "col", class: index ? null : "text", title, "aria-sort": order }, el("button", { class: "sort", "data-key": `sort ${key}`, onclick: () => this.set({ sort: next }, ["table"]) }, ...breakable(head, /(?<=_)/), sign));
  }

  drawTable() {
    const columns = this.columns(), several = this.series.length > 1;
    const pick = (id) => this.set({ chosen: logic.click(this.state.chosen, id) });
    const cells = new Map(columns.filter((one) => one.metric).map((one) => [one.key, logic.alike(this.policies.map(one.value))])); // a column has one kind of number
    const by = columns.find(({ key }) => key === this.state.sort || `-${key}` === this.state.sort);
    const rows = logic.sorted(this.policies, by?.value, by && this.state.sort === `-${by.key}`).map((policy) => {
      const chosen = this.state.chosen.includes(policy.id);
      const swatch = several ? el("span", { class: "swatch" }) : null;
      if (swatch) swatch.style.color = this.color(policy);
      return el("tr", {
        class: `policy${chosen ? " chosen" : ""}${this.isIn(policy) ? "" : " out"}`, "data-id": policy.id, onclick: () => pick(policy.id),
      }, el("td", { class: "text" }, el("button", { class: "pick", "aria-pressed": String(chosen), "aria-label": this.title(policy), "data-key": `policy ${policy.id}` }, swatch, el("span", { dir: "auto" }, policy.series))),
      ...columns.slice(1).map(({ key }) => el("td", {}, cells.get(key)?.[policy.index] ?? String(policy[key] ?? "-"))));
    });
    byId("table").replaceChildren(el("h2", {}, this.policies.length ? logic.count(this.policies.length, "policy", "policies") : "No policy yet"),
      el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((one, index) => this.head(one, index)))), el("tbody", {}, ...rows))));
  }

  /** Who is dominated, and which runs failed; neither changes while the page is read. */
  drawTold() {
    const { told, dominated, failures } = this.data;
    const pairs = dominated.map(({ text, pair }) => {
      const chosen = pair.map((runs) => this.policies[runs[0]].id);
      return el("li", { dir: "auto" }, `${text} `, el("button", { class: "inline", "aria-label": `compare: ${text}`, onclick: () => this.set({ chosen }) }, "compare"));
    });
    byId("told-apart").replaceChildren(...(told ? [el("h3", {}, "Told apart"), el("p", { class: "small" }, `${told}. ${pairs.length ? "" : "No point is dominated: none is worse than another one on every axis."}`)] : []),
      ...(pairs.length ? [el("details", { open: pairs.length < 6 }, el("summary", {}, `${logic.count(pairs.length, "point")} dominated`), el("ul", { class: "small" }, ...pairs))] : []));
    byId("failures").replaceChildren(...(failures.length ? [el("h3", {}, `${logic.count(failures.length, "run")} gave no point`),
      ...failures.map((run) => el("p", { class: "small", dir: "auto" }, `${run.run}: ${run.status}: ${run.error}`))] : []));
  }
}
