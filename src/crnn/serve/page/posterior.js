// The CTC posterior of a word: kept small, drawn over the picture, told frame by frame.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320, LETTERS = 20, LANE = 88; // the drawing's own units: letters above, probabilities 0 to 1 below
const KEPT = 24; // classes of a word, the most probable ones: a large charset has thousands, and most are nowhere
const SHOWN = 0.05, NAMED = 0.2, FAINT = 0.005; // a class is drawn, a peak gets a letter, a bar can be seen

/** What is kept of the server's `posterior`: the blank and the classes that matter, in order of their highest value. */
export function keep({ classes, frames, centres }) {
  const peaks = classes.map((symbol, k) => ({ symbol, k, peak: Math.max(...frames.map((frame) => frame[k])) }));
  const best = peaks.slice(1).filter((it) => it.peak >= FAINT).sort((a, b) => b.peak - a.peak).slice(0, KEPT);
  return { centres, curves: [peaks[0], ...best].map(({ symbol, k, peak }) =>
    ({ symbol, peak, values: Float32Array.from(frames, (frame) => frame[k]) })) };
}

/** The three most probable classes of frame `t`, in words. */
export function told({ curves, centres }, t) {
  const best = curves.map(({ symbol, values }) => [symbol || "none", values[t]]).sort((a, b) => b[1] - a[1]);
  const shares = best.slice(0, 3).filter(([, value], n) => n === 0 || value >= FAINT);
  return `Frame ${t + 1} of ${centres.length}: ` + shares.map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ");
}

/** The text of the most probable class of each frame: what the network reads by itself. */
export function alone({ curves, centres }) {
  const best = centres.map((_, t) => curves.reduce((a, b) => (b.values[t] > a.values[t] ? b : a)).symbol);
  return best.filter((symbol, t) => symbol !== best[t - 1]).join(""); // the blank's symbol is empty
}

/** The drawing as SVG, without the picture behind it. `word` is the server's, with `posterior` as `keep` leaves it. */
export function draw(word) {
  const { curves, centres } = word.posterior;
  const bars = frames(centres, word.width);
  const [blank, ...others] = curves;
  const marks = [shape("path", { d: steps(blank.values, bars), class: "line" })], letters = [];
  for (const { symbol, values } of others.filter(({ peak }) => peak >= SHOWN)) {
    const read = centres.map((centre) => word.characters.some((it) => it.character === symbol && near(it.span, centre, centres)));
    for (const kind of ["read", "rival"]) {
      const here = values.map((value, t) => (read[t] === (kind === "read") ? value : 0));
      const path = blocks(here, bars);
      if (path) marks.push(shape("path", { d: path, class: `area ${kind}` }));
    }
    for (const t of tops(values)) {
      const middle = Math.min(Math.max((bars[t][0] + bars[t][1]) / 2, 7), WIDTH - 7);
      const letter = shape("text", { x: middle, y: height(values[t]) - 4, class: `letter${read[t] ? "" : " rival"}` });
      letter.textContent = symbol;
      letters.push(letter);
    }
  }
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${LETTERS + LANE}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(shape("rect", { class: "frame", y: LETTERS, width: 0, height: LANE }), ...marks, ...letters);
  return svg;
}

/** Mark frame `t` in a drawing. */
export function mark(svg, word, t) {
  const [left, right] = frames(word.posterior.centres, word.width)[t];
  const frame = svg.querySelector(".frame");
  frame.setAttribute("x", left);
  frame.setAttribute("width", right - left);
}

/** The frame at the place `share`, 0 to 1, of the picture's width. */
export function frameAt({ centres }, width, share) {
  const bars = frames(centres, width);
  const found = bars.findIndex(([, right]) => share * WIDTH < right);
  return found < 0 ? bars.length - 1 : found;
}

// [left, right] of each frame in the drawing: half-way to its neighbours, within the picture.
function frames(centres, width) {
  const half = pitch(centres) / 2, scale = WIDTH / width;
  const inside = (x) => Math.min(Math.max(x * scale, 0), WIDTH);
  return centres.map((centre) => [inside(centre - half), inside(centre + half)]);
}

function pitch(centres) {
  return centres.length > 1 ? (centres.at(-1) - centres[0]) / (centres.length - 1) : Infinity;
}

// A character's span, and a frame to each side of it: the slopes of its peak belong to it.
function near([left, right], centre, centres) {
  return left - pitch(centres) <= centre && centre <= right + pitch(centres);
}

function height(value) {
  return LETTERS + LANE * (1 - value);
}

// The frames of the peaks worth a letter: of each run of frames above half of what that takes, the highest.
function tops(values) {
  const found = [];
  let best = -1;
  for (let t = 0; t <= values.length; t++) {
    if (t < values.length && values[t] >= NAMED / 2) {
      if (best < 0 || values[t] > values[best]) best = t;
    } else if (best >= 0) {
      if (values[best] >= NAMED) found.push(best);
      best = -1;
    }
  }
  return found;
}

// An SVG path around the bars of one class, without those too low to be seen.
function blocks(values, bars) {
  let path = "", inside = false;
  values.forEach((value, t) => {
    if (value >= FAINT) {
      path += `${inside ? "" : `M${bars[t][0].toFixed(1)} ${height(0)}`}V${height(value).toFixed(1)}H${bars[t][1].toFixed(1)}`;
    } else if (inside) {
      path += `V${height(0)}Z`;
    }
    inside = value >= FAINT;
  });
  return inside ? `${path}V${height(0)}Z` : path;
}

// An SVG path along the tops of the bars of one class.
function steps(values, bars) {
  const parts = Array.from(values, (value, t) => `V${height(value).toFixed(1)}H${bars[t][1].toFixed(1)}`);
  return `M${bars[0][0].toFixed(1)} ${height(values[0]).toFixed(1)}${parts.join("")}`;
}

function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
