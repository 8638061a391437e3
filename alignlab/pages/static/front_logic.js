"use strict";
// The logic of front.html, without a document; tests run it under node too.

const logic = {
  /** A number as people read it; null is unknown, never 0. */
  show(value, digits = 3) {
    return logic.alike([value], digits)[0];
  },

  /** Numbers that stand beside each other, all to the same decimals: the largest one's. */
  alike(values, digits = 3) {
    const most = Math.max(0, ...values.map((value) => Math.abs(value ?? 0)));
    const places = most > 0 && most < 10 ** -digits ? Math.min(digits - 1 - Math.floor(Math.log10(most)), 9) : digits;
    return values.map((value) => (value === null || value === undefined ? "unknown" : value.toFixed(places).replace(/^-(?=[0.]+$)/, "")));
  },

  /** Mean and both ends of its interval, these as one text; null where they are unknown. */
  meanAndEnds([mean, low, high]) {
    const [shown, ...ends] = logic.alike(low === null || high === null ? [mean] : [mean, low, high]);
    return [shown, ends.length ? ends.join(" .. ") : null];
  },

  /** Mean with its 95 % interval. */
  withInterval(metric) {
    if (!metric || metric[0] === null) return "unknown";
    const [mean, ends] = logic.meanAndEnds(metric);
    return `${mean} [${ends ?? "interval unknown"}]`;
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

  /** Policies that no other one beats on all metrics; one of which nobody knows which way is better does not count. */
  best(policies, names, betters) {
    const position = (policy) => names.map((name, index) => {
      const value = logic.mean(policy, name);
      return value === null ? null : value * betters[index];
    });
    const known = policies.map(position);
    return policies.filter((_, own) => !known[own].includes(null) && !known.some((other, index) =>
      index !== own && !other.includes(null) && other.every((value, axis) => value >= known[own][axis]) &&
      other.some((value, axis) => value > known[own][axis])));
  },

  /** Policies as "which w" names them: w by method where there are several, by seed where only some seeds of it are in. */
  named(met, all) {
    const weighed = all.filter((one) => one.w !== "-");
    const several = new Set(weighed.map((one) => one.series)).size > 1;
    const alike = (one, other) => one.series === other.series && one.w === other.w;
    const shown = (one, index) => {
      if (met.findIndex((other) => alike(one, other)) !== index) return [];
      const seeds = met.filter((other) => alike(one, other)).map((other) => other.seed);
      const w = one.w.includes(",") ? `(${one.w})` : one.w;
      return [[one, seeds.length === weighed.filter((other) => alike(one, other)).length ? w : `${w} (seed${seeds.length > 1 ? "s" : ""} ${seeds.join(", ")})`]];
    };
    const found = met.flatMap((one, index) => (one.w === "-" ? [] : shown(one, index)));
    const others = [...new Set(met.filter((one) => one.w === "-").map((one) => one.series))];
    return [
      ...[...new Set(found.map(([one]) => one.series))].map((series) => `${several ? `${series} ` : ""}w = ${found.filter(([one]) => one.series === series).map(([, text]) => text).join(", ")}`),
      ...others.map((name) => (name === "reference" ? "the reference" : `${name} (no w)`)),
    ].join("; ");
  },

  /** Policies in the order of a value (number, text or list of numbers); those without one last, and as they were where there is none to sort by. */
  sorted(policies, value, down = false) {
    if (!value) return policies;
    const isKnown = (one) => one !== null && one !== undefined && one.length !== 0;
    const compare = (a, b) => {
      if (!Array.isArray(a)) return a < b ? -1 : Number(a > b);
      const at = a.findIndex((one, index) => one !== b[index]);
      return at < 0 ? 0 : compare(a[at], b[at]);
    };
    return policies.map((one) => [one, value(one)]).sort(([, a], [, b]) =>
      isKnown(b) - isKnown(a) || (isKnown(a) ? compare(a, b) * (down ? -1 : 1) : 0)).map(([one]) => one);
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

  /** Settings of a series as means over seeds and whether all of it is in, in the order of the weight that varies; what a line joins. */
  line(policies, x, y, isIn = () => true) {
    const groups = new Map();
    for (const policy of policies) {
      const weights = Object.values(policy.weights);
      const point = [logic.mean(policy, x), logic.mean(policy, y)];
      if (!weights.length || point.includes(null)) continue;
      const key = JSON.stringify(weights);
      if (!groups.has(key)) groups.set(key, { weights, points: [], strong: true });
      groups.get(key).points.push(point);
      groups.get(key).strong &&= isIn(policy);
    }
    const settings = [...groups.values()];
    if (!settings.length || settings[0].weights.length !== 2) return [];
    const index = new Set(settings.map((one) => one.weights[0])).size > 1 ? 0 : 1;
    settings.sort((a, b) => a.weights[index] - b.weights[index]);
    return settings.map((one) => [...[0, 1].map((axis) => one.points.reduce((sum, p) => sum + p[axis], 0) / one.points.length), one.strong]);
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

  /** `1 policy`, `2 policies`. */
  count(number, one, many = `${one}s`) {
    return `${number} ${number === 1 ? one : many}`;
  },

  /** Text in which control and direction characters show as their code. */
  visible(text) {
    return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}]/gu, (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
  },

  /** The end of a path that so many characters hold. */
  tail(path, most) {
    const text = path.replace(/^(\.\.\/)+/, "");
    return text.length <= most ? text : `…${text.slice(1 - most)}`;
  },

  /** A text in lines of so many characters, broken between words; `within`: and within those that are longer. */
  wrapped(text, most, within = false) {
    const lines = [];
    for (const word of text.split(" ").flatMap((one) => (within ? one.match(new RegExp(`.{1,${most}}`, "gsu")) ?? [""] : [one]))) {
      const last = lines.at(-1);
      if (last !== undefined && last.length + 1 + word.length <= most) lines[lines.length - 1] = `${last} ${word}`;
      else lines.push(word);
    }
    return lines;
  },

  /** Policies within a box over parallel axes: in its heights on every axis that it covers, or on the one nearest to it. */
  inBox(heights, { x, y }) {
    const [left, right] = [Math.min(...x), Math.max(...x)], [low, high] = [Math.min(...y), Math.max(...y)];
    const last = Math.max(0, ...heights.map(({ at }) => at.length - 1));
    let axes = [...Array(last + 1).keys()].filter((axis) => left <= axis && axis <= right);
    if (!axes.length) axes = [Math.min(last, Math.max(0, Math.round((left + right) / 2)))];
    return heights.filter(({ at }) => axes.every((axis) => at[axis] !== null && low <= at[axis] && at[axis] <= high)).map(({ id }) => id);
  },

  /** What differs from the defaults, as a link keeps it; the items of a list are joined by dots. */
  toHash(state, defaults) {
    const item = (text) => String(text).replace(/%/g, "%25").replace(/\./g, "%2E");
    const kept = Object.entries(state).filter(([name, value]) => String(value) !== String(defaults[name]) && value !== null);
    return new URLSearchParams(kept.map(([name, value]) => [name, Array.isArray(value) ? value.map(item).join(".") : String(value)])).toString();
  },

  /** The state that a link says, over the defaults; `odd`: name and text of what is unknown in it, which is left out.
   * `known` has the values that a name may take; a name without any takes every text. */
  fromHash(hash, defaults, known = {}) {
    const state = { ...defaults }, odd = [];
    const item = (text) => text.replace(/%2E/gi, ".").replace(/%25/g, "%");
    for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
      const usual = Object.hasOwn(defaults, name) ? defaults[name] : undefined;
      const may = (value) => !Object.hasOwn(known, name) || known[name].includes(value);
      let value = may(text) ? text : undefined, wrong = text;
      if (usual === undefined) value = undefined;
      else if (Array.isArray(usual)) {
        const items = [...new Set(text.split(".").filter(Boolean).map(item))];
        value = items.filter(may);
        wrong = items.filter((one) => !may(one)).join(", ");
      } else if (typeof usual === "boolean") value = { true: true, false: false }[text];
      else if (usual === null) value = text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : undefined;
      if (value !== undefined) state[name] = value;
      if (value === undefined || (Array.isArray(usual) && wrong)) odd.push([name, wrong]);
    }
    return { state, odd };
  },
};

if (typeof module !== "undefined") module.exports = logic;
