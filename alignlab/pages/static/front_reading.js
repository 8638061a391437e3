"use strict";
// front.html below the plot: read one policy, compare two. Texts reach the page as text nodes only, never as HTML.

const PAGE_OF_PROMPTS = 40;
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

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

/** A text that breaks where the pattern says, before anywhere else. */
const breakable = (text, at) => text.split(at).flatMap((part, index) => (index ? [el("wbr"), part] : [part]));

const byId = (id) => document.getElementById(id);

/** Redraw, and give the focus back to the new element of the same key; where there is none, to `otherwise`. */
function keepingFocus(redraw, otherwise = null) {
  const key = document.activeElement?.dataset?.key;
  redraw();
  if (key && !document.activeElement?.dataset?.key) (document.querySelector(`[data-key="${CSS.escape(key)}"]`) ?? otherwise)?.focus({ preventScroll: true });
}

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

/** Orders of the prompts by the number of chosen policies, the usual one first. */
const ORDERS = {
  1: { asked: "as asked", lowest: "lowest score first", highest: "highest score first" },
  2: { difference: "largest difference first", gains: "B better first", losses: "A better first", asked: "as asked" },
};

/** What the page shows of the chosen policies; `Page` holds its state and draws the rest. */
class Reading {
  async drawDetail() {
    const chosen = this.state.chosen.map((id) => this.policy.get(id));
    const target = byId("detail");
    const turn = this.turn = {};
    if (!chosen.length) {
      byId("told").textContent = "";
      target.replaceChildren(el("p", { class: "small" }, "No policy is chosen. Click one in the plot or in the table."));
      return;
    }
    const prompts = await unpack("prompts");
    const said = await Promise.all(chosen.map((policy) => unpack(`policy-${policy.index}`)));
    if (turn !== this.turn) return; // another click came first
    const sides = chosen.map((policy, index) => ({ policy, said: said[index], grouped: logic.byPrompt(said[index]) }));
    const parts = chosen.length === 1 ? this.onePolicy(sides[0]) : this.twoPolicies(sides);
    keepingFocus(() => target.replaceChildren(...parts, ...this.samples(prompts, sides)), target);
    byId("told").textContent = `Below: ${chosen.map((policy) => this.title(policy)).join(" compared with ")}`;
    this.drawCurve(sides);
  }

  facts(pairs) {
    return el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== null && value !== "").map(([name, value]) => el("div", { class: value.tagName ? "paths" : null }, el("dt", {}, ...breakable(name, /(?<=[._])/)), el("dd", {}, value))));
  }

  /** A link to a folder beside the page; only relative paths become links. */
  path(text) {
    const href = text.split("/").map(encodeURIComponent).join("/");
    const parts = text.split(/(?<=\/)/).map((part) => el("span", { class: "part" }, part)); // a line breaks between folders only
    return text.startsWith("/") ? el("span", {}, ...parts) : el("a", { href: `${href}/` }, ...parts);
  }

  onePolicy({ policy, said }) {
    const copy = el("button", { "aria-label": "copy the command", onclick: async () => {
      try { await navigator.clipboard.writeText(policy.command); copy.textContent = "copied"; } catch { copy.textContent = "select it"; }
    } }, "copy");
    const settings = Object.entries(policy.settings);
    return [
      el("h2", {}, this.title(policy)),
      this.facts([
        ["weights", Object.entries(policy.weights).map(([name, weight]) => `${name} ${weight}`).join(", ")], ["beta", policy.beta === null ? null : String(policy.beta)],
        ["loss", policy.loss], ["run", this.path(policy.run)], ["its evaluation", policy.evaluation === null ? null : this.path(policy.evaluation)],
        ["adapter", policy.adapter === null ? "none" : this.path(policy.adapter)],
        ["seconds of the run", policy.seconds === null ? null : logic.show(policy.seconds, 1)], ["samples", String(policy.samples)],
      ]),
      policy.unproven.length ? el("p", { class: "warning" }, `The reward of ${policy.unproven.join(", ")} was not shown to agree with its own labels.`) : null,
      el("h3", {}, "Command"),
      policy.command === null ? el("p", { class: "small" }, "No command of this version says the same; the settings below are what was run.") : el("div", {}, el("pre", { id: "command" }, policy.command), copy),
      el("details", {}, el("summary", {}, logic.count(settings.length, "setting")), this.facts(settings)),
      el("h3", {}, "Metrics"),
      this.table(["metric", "mean", "95 % interval", "n", "prompts"], this.data.metrics.filter((one) => policy.metrics[one.name]).map((one) => {
        const [,,, n, groups, missing] = policy.metrics[one.name];
        const [mean, ends] = logic.meanAndEnds(policy.metrics[one.name]);
        return [one.label, mean, ends ?? "unknown", missing ? `${n} (${missing} unscored)` : String(n), groups === null ? "-" : String(groups)];
      })),
      ...this.curves([{ policy, said }]),
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
      const [before, after, difference, ...shown] = logic.alike([logic.mean(a, one.metric), logic.mean(b, one.metric), one.mean === null ? null : sign * one.mean, ...(ends ?? [])]);
      return [name, before, after, difference, shown.join(" .. ") || "unknown", chance(one.p), chance(one.p_holm), String(one.groups)];
    });
    const none = this.data.compared ? "These two have no scores on the same prompts." : "So many policies are not compared pair by pair; collect fewer of them.";
    return [
      el("h2", {}, `A: ${this.title(a)}  ·  B: ${this.title(b)}`),
      el("div", { class: "row" }, el("button", { "data-key": "swap", onclick: () => this.set({ chosen: [b.id, a.id] }) }, "swap"),
        el("button", { "data-key": "A", onclick: () => this.set({ chosen: [a.id] }) }, "A alone"), el("button", { "data-key": "B", onclick: () => this.set({ chosen: [b.id] }) }, "B alone")),
      el("h3", {}, "Paired difference, B minus A, on the same prompts"),
      rows.length ? this.table(["metric", "A", "B", "B − A", "95 % interval", "p", "p by Holm", "prompts"], rows) : el("p", { class: "small" }, none),
      rows.length ? el("p", { class: "small" }, `Of these two trained policies; how much another seed would change them is not in it. Holm's p-values are corrected for ${this.data.differences.length === 1 ? "the one difference" : `all ${this.data.differences.length} differences`} between any two policies, on every metric with scores by prompt.`) : null,
      ...this.curves(sides),
    ].filter(Boolean);
  }

  table(heads, rows) {
    const cells = (tag, values) => values.map((value, index) => el(tag, { class: index ? null : "text", scope: tag === "th" ? "col" : null }, value));
    return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...cells("th", heads))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells("td", row))))));
  }

  // -- learning curves

  curves(sides) {
    const names = [...new Set(sides.flatMap(({ said }) => Object.keys(said.curves)))].filter((name) => name !== "step" && name !== "epoch");
    if (!names.length) return [el("p", { class: "small" }, `No learning curve: ${sides.length > 1 ? "neither run recorded the" : "the run recorded no"} steps of a training.`)];
    this.curve = names.includes(this.state.curve) ? this.state.curve : names.includes("loss") ? "loss" : names[0];
    const select = el("select", { "data-key": "curve" }, ...names.map((name) => el("option", { value: name, selected: name === this.curve }, name)));
    select.onchange = () => this.set({ curve: select.value }, ["detail"]);
    const none = sides.filter(({ said }) => !said.curves[this.curve]).map(({ policy }) => `${this.title(policy)} has no such curve: its run recorded none.`);
    return [el("h3", {}, "Learning curve"), el("div", { class: "row" }, el("label", {}, "of ", select), ...none.map((text) => el("span", { class: "small" }, text))), el("div", { class: "plot low", id: "curve", role: "group", "aria-label": "learning curve" })];
  }

  drawCurve(sides) {
    if (!byId("curve")) return;
    const theme = this.theme();
    const traces = sides.map(({ policy, said }, index) => ({ visible: this.curve in said.curves, x: said.curves.step ?? [], y: said.curves[this.curve] ?? [], mode: "lines+markers", connectgaps: true,
      name: logic.plain(this.title(policy)), line: { color: this.color(policy), dash: index ? "dash" : "solid" }, marker: { size: 4, symbol: this.style(policy.series).symbol } }));
    Plotly.newPlot("curve", traces, { ...theme.layout, xaxis: { ...theme.axis, title: { text: "step" } }, yaxis: theme.axis, showlegend: sides.length > 1 }, { responsive: true, displayModeBar: false });
  }

  // -- samples

  samples(prompts, sides) {
    const { state, data } = this;
    if (sides.some((side) => !side.said.prompt.length)) return [el("p", { class: "small" }, "No samples: this run has not been asked, or its prompts are beyond what the page keeps.")];
    const scores = [...new Set(sides.flatMap((side) => Object.keys(side.said.scores)))];
    const orders = ORDERS[sides.length], [usual] = Object.keys(orders);
    const shown = { category: state.category, score: scores.includes(state.score) ? state.score : scores[0] ?? "", order: state.order || usual };
    const list = el("div", {});
    const count = el("span", { class: "small", role: "status" });
    const refresh = (change) => {
      this.set(change, []);
      this.drawPrompts(list, count, prompts, sides, Object.assign(shown, change, { order: state.order || usual }));
    };
    const pick = (options, key, name = null) => {
      const select = el("select", { "aria-label": name, "data-key": key }, ...options.map(([value, text]) => el("option", { value, selected: value === shown[key] }, text)));
      select.onchange = () => refresh({ [key]: key === "order" && select.value === usual ? "" : select.value });
      return select;
    };
    const search = el("input", { type: "search", placeholder: "search prompts and responses", "aria-label": "search prompts and responses", id: "search", "data-key": "search", size: "24" });
    search.value = state.query;
    search.oninput = () => {
      state.query = search.value; // a redraw meanwhile has it too
      clearTimeout(this.typing);
      this.typing = setTimeout(() => refresh({}), 150);
    };
    const texts = el("input", { type: "checkbox", checked: state.texts, id: "texts" });
    texts.onchange = () => refresh({ texts: texts.checked });
    this.drawPrompts(list, count, prompts, sides, shown);
    return [
      el("h3", {}, "Samples by prompt"),
      data.prompts.kept < data.prompts.all ? el("p", { class: "small" }, `${data.prompts.kept} of ${data.prompts.all} prompts, so that the file stays small; all of them lie in generations.jsonl of each run.`) : null,
      data.folded ? el("p", { class: "small" }, "Prompts and responses may be harmful. Each is folded until you open it.") : null,
      el("div", { class: "row" }, search, data.categories.length ? pick([["", "all categories"], ...data.categories.map((one) => [one, one])], "category", "category") : null,
        scores.length ? el("label", {}, "score ", pick(scores.map((one) => [one, one]), "score")) : null, el("label", {}, "order ", pick(Object.entries(orders), "order")),
        el("label", {}, texts, "show prompts"), count),
      list,
    ].filter(Boolean);
  }

  drawPrompts(list, count, prompts, sides, { category, score, order }) {
    const rows = logic.arrange(prompts, sides, { query: this.state.query, category, metric: score, order });
    count.textContent = `${rows.length} of ${logic.count(prompts.length, "prompt")}${score && sides.length === 2 ? `; ${score} of A → B (B − A)` : ""}`;
    list.replaceChildren(...(rows.length ? [] : [el("p", { class: "small" }, "No prompt matches.")]));
    const more = (from) => {
      list.append(...rows.slice(from, from + PAGE_OF_PROMPTS).map((row) => this.prompt(prompts[row.index], row, sides, Boolean(score))));
      const left = rows.length - from - PAGE_OF_PROMPTS;
      if (left <= 0) return;
      const button = el("button", { onclick: () => {
        more(from + PAGE_OF_PROMPTS);
        button.nextElementSibling.firstElementChild.focus({ preventScroll: true });
        button.remove();
      } }, `${left} more`);
      list.append(button);
    };
    more(0);
  }

  prompt(prompt, row, sides, scored) {
    const { state } = this;
    const numbers = logic.alike([...row.means, row.difference], 2);
    const score = sides.length === 2 && row.difference !== null ? `${numbers[0]} → ${numbers[1]} (${row.difference > 0 ? "+" : ""}${numbers[2]})` : numbers[0];
    const ask = state.texts ? prompt.text.slice(0, 300) : `prompt ${row.index + 1}`;
    const made = el("details", { class: "prompt" }, el("summary", {}, el("span", { class: "ask", dir: "auto" }, ask), prompt.category ? el("span", { class: "tag", dir: "auto", title: prompt.category }, prompt.category) : null, scored ? el("span", { class: "scores" }, score) : null));
    made.addEventListener("toggle", () => {
      if (!made.open || made.childElementCount > 1) return;
      made.append(el("pre", { dir: "auto" }, prompt.text), el("div", { class: "sides" }, ...sides.map((side, index) => el("div", {},
        sides.length === 2 ? el("h3", {}, `${"AB"[index]}: ${this.title(side.policy)}`) : null,
        ...row.held[index].rows.flatMap((at) => [side.said.response[at] === "" ? el("p", { class: "small" }, "(an empty response)") : el("pre", { dir: "auto" }, side.said.response[at]),
          el("div", { class: "scores" }, Object.entries(side.said.scores).map(([name, values]) => `${name} ${logic.show(values[at], 2)}`).join("  ·  "))])))));
      for (const text of made.querySelectorAll("pre")) if (text.scrollHeight > text.clientHeight) text.tabIndex = 0; // so that keys scroll it
    });
    return made;
  }
}
