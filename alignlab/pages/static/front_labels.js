"use strict";
// Where the labels of a plot's points go. Everything is in pixels, y downward, and without a document; tests run it under node.

const labels = {
  /** Pixels between a point and its label's edge that are tried, and the directions of each. */
  GAPS: [6, 9, 13, 18, 25, 34, 46], STEPS: 24,
  /** Pixels that a label keeps free around itself. */
  ROOM: 2,
  /** What counts against a place, in pixels of distance: each line that crosses it, and each pixel nearer to another point than to its own. */
  CROSSED: 9, STRANGER: 1.5,

  /** Whether a segment [x0, y0, x1, y1] touches a box [left, top, right, bottom]. */
  touches([x0, y0, x1, y1], [left, top, right, bottom]) {
    let from = 0, to = 1;
    for (const [start, step, low, high] of [[x0, x1 - x0, left, right], [y0, y1 - y0, top, bottom]]) {
      if (step === 0) {
        if (start < low || start > high) return false;
        continue;
      }
      const ends = [(low - start) / step, (high - start) / step];
      from = Math.max(from, Math.min(...ends));
      to = Math.min(to, Math.max(...ends));
    }
    return from <= to;
  },

  overlap(one, other) {
    return one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
  },

  /** Offset of each label's centre from its point, null where no place is free of bars, marks and other labels.
   * `points`: {x, y, size: [width, height]}, the most important first; `bars` and `lines`: segments, `marks`: boxes; `frame`: a box. */
  place(points, { bars, lines, marks, frame }) {
    const held = [], leaders = [];
    return points.map((point) => {
      const reach = labels.GAPS.at(-1) + point.size[0];
      const near = [point.x - reach, point.y - reach, point.x + reach, point.y + reach];
      const hard = [...bars, ...leaders].filter((one) => labels.touches(one, near));
      const soft = lines.filter((one) => labels.touches(one, near)), boxes = marks.filter((one) => labels.overlap(one, near));
      let best = null, least = Infinity;
      for (const gap of labels.GAPS) {
        for (let step = 0; step < labels.STEPS; step += 1) {
          const angle = Math.PI * (0.25 + 2 * step / labels.STEPS);
          const [x, y] = [Math.cos(angle) * (point.size[0] / 2 + gap), -Math.sin(angle) * (point.size[1] / 2 + gap)];
          const [half, tall] = [point.size[0] / 2 + labels.ROOM, point.size[1] / 2 + labels.ROOM];
          const box = [point.x + x - half, point.y + y - tall, point.x + x + half, point.y + y + tall];
          const leader = [point.x, point.y, point.x + x, point.y + y];
          if (gap >= least || box[0] < frame[0] || box[1] < frame[1] || box[2] > frame[2] || box[3] > frame[3]) continue;
          if (held.some((one) => labels.overlap(one, box) || labels.touches(leader, one)) || boxes.some((one) => labels.overlap(one, box))) continue;
          if (hard.some((one) => labels.touches(one, box))) continue;
          const away = (other) => Math.hypot(other.x - point.x - x, other.y - point.y - y);
          const cost = gap + labels.CROSSED * soft.filter((one) => labels.touches(one, box)).length + labels.STRANGER * (away(point) - Math.min(...points.map(away)));
          if (cost < least) [least, best] = [cost, { x, y, gap, box, leader }];
        }
      }
      if (best) {
        held.push(best.box);
        if (best.gap > labels.GAPS[1]) leaders.push(best.leader);
      }
      return best && { x: best.x, y: best.y, far: best.gap > labels.GAPS[1] };
    });
  },
};

if (typeof module !== "undefined") module.exports = labels;
