// One picture's place in the list: the picture, its text and what the network saw, or why there is none.

import { alone, draw, frameAt, mark, told } from "./posterior.js";

const THUMB = { width: 640, height: 224 }; // twice what is shown, for dense screens: some kilobytes each
const UNSURE = 0.5;
const LARGE = 400; // pixels of height beyond which a picture is seldom one word cut out

// Drawings exist only near the window, however long the list is. The cards are observed, for what is in them has no place
// of its own while the browser leaves them out (content-visibility).
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) target.near(isIntersecting);
}, { rootMargin: "100%" });

/** Give `picture` an empty card, an <li>. `remove` and `cut` are called when the user asks for it. */
export function make(picture, { remove, cut }) {
  const button = (kind, text, called) => {
    const made = tag("button", { type: "button", class: `small ${kind}`, "aria-label": `${text}: ${picture.name}` }, text);
    made.addEventListener("click", called);
    return made;
  };
  const buttons = [button("part", "Read a part", cut), button("remove", "Remove", remove)];
  picture.about = tag("p", { class: "about" }, tag("span", {}, picture.name), ...buttons);
  picture.card = tag("li", { class: "card" });
  wait(picture);
}

/** Say that the picture is to be read. */
export function wait(picture) {
  clear(picture);
  fill(picture, heading("waiting", "text none"));
}

/** Say what became of it: show `picture.word`, the server's answer. */
export async function show(picture) {
  const { word } = picture;
  clear(picture);
  if (word.error) {
    picture.card.classList.add("failed");
    fill(picture, heading("Not read"), tag("p", { class: "advice" }, word.error.message));
    return;
  }
  picture.card.classList.add("answered");
  const thumb = tag("div", { class: "thumb" });
  fill(picture, top(word), thumb, ...lane(picture), ...(word.text ? [characters(word)] : []), ...advice(word));
  picture.about.firstChild.textContent = `${picture.name} · ${word.width}\u00a0×\u00a0${word.height}`;
  const image = await small(picture.file, word).catch(() => null);
  if (picture.word !== word || !picture.card.isConnected) return; // read again or removed in the meantime
  if (!image) {
    thumb.textContent = "Your browser cannot show this kind of picture.";
    return;
  }
  picture.thumb = URL.createObjectURL(image);
  thumb.append(tag("img", { src: picture.thumb, alt: `The picture ${picture.name}` }));
  picture.card.querySelector(".lane")?.prepend(tag("img", { src: picture.thumb, alt: "" }));
}

/** Give back what a card holds besides its elements. */
export function clear(picture) {
  near.unobserve(picture.card);
  URL.revokeObjectURL(picture.thumb);
  picture.thumb = undefined;
  picture.card.classList.remove("answered", "failed");
}

function fill(picture, ...parts) {
  picture.card.replaceChildren(...parts, picture.about);
}

function heading(text, kind = "text") {
  return tag("h3", { class: kind }, text);
}

function top({ text, confidence, kept }) {
  const unsure = confidence < UNSURE;
  const lines = [confidence.toFixed(3), tag("small", {}, unsure ? "confidence, unsure" : "confidence")];
  if (kept != null) {
    const fit = kept < 0.0005 ? "below 0.001" : kept.toFixed(3);
    lines.push(kept < UNSURE ? tag("small", { class: "low" }, `fit ${fit}, low`) : tag("small", {}, `fit ${fit}`));
  }
  return tag("div", { class: "top" }, text ? heading(text) : heading("no text", "text none"),
    tag("p", { class: unsure ? "confidence low" : "confidence" }, ...lines));
}

function characters(word) {
  const items = word.characters.map(({ character, score }) =>
    tag("li", { class: score < UNSURE ? "low" : "" }, tag("b", {}, character), score.toFixed(2)));
  return tag("ul", { class: "characters", "aria-label": "Each character and its score" }, ...items);
}

function advice(word) {
  const found = [];
  const wrote = alone(word.posterior);
  if (word.kept != null && wrote !== word.text) found.push(`Without the list, it reads ${wrote ? `“${wrote}”` : "nothing"}.`);
  if (word.height > LARGE && word.width < 4 * word.height) {
    found.push("Is there more than one word in it? The network reads one: choose it with “Read a part”.");
  }
  return found.map((text) => tag("p", { class: "advice" }, text));
}

// The posterior over the picture, and the numbers of the frame that is pointed at.
function lane({ name, word, card }) {
  const line = tag("p", { class: "told", "aria-hidden": "true" });
  const last = word.posterior.centres.length - 1;
  const place = tag("div", { class: "lane", role: "slider", tabindex: 0, "aria-label": `What the network saw in ${name}`,
    "aria-valuemin": 1, "aria-valuemax": last + 1 });
  let at = 0;
  let pointed = false;

  function go(t) {
    at = Math.min(Math.max(t, 0), last);
    const text = told(word.posterior, at);
    place.setAttribute("aria-valuenow", at + 1);
    place.setAttribute("aria-valuetext", text);
    if (!pointed) return;
    line.textContent = text;
    const svg = place.querySelector("svg");
    if (svg) mark(svg, word, at);
  }

  go(0);
  card.near = (visible) => {
    place.querySelector("svg")?.remove();
    if (!visible) return;
    place.append(draw(word));
    go(at);
  };
  near.observe(card);
  place.addEventListener("pointermove", (event) => {
    const { left, width } = place.getBoundingClientRect();
    pointed = true;
    go(frameAt(word.posterior, word.width, (event.clientX - left) / width));
  });
  const keys = { ArrowLeft: () => at - 1, ArrowDown: () => at - 1, ArrowRight: () => at + 1, ArrowUp: () => at + 1,
    PageDown: () => at - 5, PageUp: () => at + 5, Home: () => 0, End: () => last };
  place.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const next = pointed ? keys[event.key]() : at;
    pointed = true;
    go(next);
  });
  return [place, line];
}

// A small copy, on white where the picture is transparent. One after the other: large ones take much memory to open.
let turn = Promise.resolve();

function small(file, size) {
  const made = turn.then(() => shrink(file, size));
  turn = made.catch(() => {});
  return made;
}

async function shrink(file, { width, height }) {
  const scale = Math.min(1, THUMB.width / width, THUMB.height / height);
  const size = { resizeWidth: Math.max(1, Math.round(width * scale)), resizeHeight: Math.max(1, Math.round(height * scale)) };
  const bitmap = await createImageBitmap(file, { ...size, resizeQuality: "high" });
  const canvas = tag("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.85));
}

// An element with attributes and children; text is never taken for markup.
function tag(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
