// The page: takes pictures in, has them read in groups, keeps the list.

import { clear, make, show, wait } from "./card.js";
import { cut } from "./cut.js";
import { chosen, dropped, pasted } from "./gather.js";
import { keep } from "./posterior.js";
import { copy, save, written } from "./results.js";
import { groupSize, model, read, Refused } from "./service.js";

const MOST = 2000; // pictures on the page: with so many, its process has 200 MB more than without (Chromium 156)
const EXAMPLES = ["regency.jpg", "kl58xwt.jpg", "coffee.jpg"];

const part = (id) => document.getElementById(id);
const pictures = []; // {file, name, card, word once it is answered}
let key = "";
let info = null; // what GET /v1/model says
let running = null; // the AbortController of the reading under way
let working = Promise.resolve(); // settles when that has ended
let pastes = 0;

function add(found) {
  const room = MOST - pictures.length;
  const over = found.length - room;
  complain(over > 0 ? `This page takes ${MOST} pictures; ${over} were left out. For more, use crnn read.` : "");
  const first = pictures.length;
  for (const picture of found.slice(0, room)) {
    make(picture, { remove: () => remove(picture), cut: () => cutOut(picture) });
    pictures.push(picture);
  }
  part("cards").append(...pictures.slice(first).map(({ card }) => card));
  refresh();
  if (first) pictures[first]?.card.scrollIntoView({ block: "nearest" });
  work();
}

function remove(picture) {
  const place = pictures.indexOf(picture);
  pictures.splice(place, 1);
  clear(picture);
  picture.card.remove();
  refresh();
  const next = pictures[place] ?? pictures.at(-1);
  (next?.card.querySelector(".remove") ?? part("choose")).focus();
  tell(`${picture.name} was removed.`);
}

async function cutOut(picture) {
  try {
    const found = await cut(picture);
    if (found) add([found]);
  } catch {
    complain("The picture cannot be opened any more.");
  }
}

const left = () => pictures.filter(({ word }) => !word);

/** Read what is left, a group at a time, until it is done, stopped or refused. */
function work() {
  if (!running && left().length) working = readLeft((running = new AbortController()).signal);
}

async function readLeft(signal) {
  tell(`Reading ${count(left().length)}…`);
  refresh();
  try {
    await learn();
    let most = Infinity;
    while (left().length && !signal.aborted) {
      const next = left();
      const group = next.slice(0, Math.min(most, groupSize(next, info.limits)));
      if (await refuseHere(group)) continue;
      const words = await attempt(group, signal);
      most = words ? Infinity : Math.ceil(group.length / 2); // of a refused group, find out which picture it was
      words?.forEach((word, n) => answer(group[n], word));
      refresh();
    }
  } catch (error) {
    if (!signal.aborted) stumble(error);
  } finally {
    running = null;
    refresh();
    tell(summary());
  }
}

/** The words of a group; null if the server takes none of it, which ends a group of one. */
async function attempt(group, signal) {
  const lexicon = part("lexicon").value.trim();
  const waiting = (seconds) => tell(`The server is busy. Going on in ${seconds} s…`);
  try {
    return await read(group, { key, lexicon, signal, waiting });
  } catch (error) {
    const ours = error instanceof Refused && error.status < 500 && ![0, 401, 403, 429].includes(error.status);
    if (!ours || error.code?.startsWith("lexicon")) throw error;
    if (group.length === 1) answer(group[0], { text: null, error: { code: "refused", message: error.message } });
    return null;
  }
}

/** Answer what need not be sent: files that are too large or gone. Whether there were any. */
async function refuseHere(group) {
  const checked = await Promise.all(group.map(async (picture) => {
    const { file } = picture;
    const gone = await file.slice(0, 1).arrayBuffer().then(() => false, () => true);
    const large = file.size > info.limits.bytes;
    if (!gone && !large) return false;
    const sizes = [file.size, info.limits.bytes].map((bytes) => `${(bytes / 1e6).toFixed(1)} MB`);
    const error = gone
      ? { code: "gone", message: "The file cannot be read any more." }
      : { code: "too_large", message: `The file has ${sizes[0]}, and this server takes ${sizes[1]}.` };
    answer(picture, { text: null, error });
    return true;
  }));
  return checked.some(Boolean);
}

function answer(picture, word) {
  if (!pictures.includes(picture)) return; // removed in the meantime
  if (!word.error) word.posterior = keep(word.posterior);
  picture.word = word;
  show(picture);
}

function stumble(error) {
  if (error.status === 401 || error.status === 403) {
    part("key-why").textContent = key ? "The server does not accept this API key." : "This server asks for an API key.";
    part("key-form").hidden = false;
    part("key").focus();
  } else {
    complain(error.message);
  }
}

async function learn() {
  if (info) return;
  info = await model(key);
  part("model").textContent = `crnn ${info.version}, ${info.file}, in ${info.engine.name} (${info.engine.precision})`;
}

// What there is to see and to do now.
function refresh() {
  const done = pictures.length - left().length;
  document.body.classList.toggle("filled", pictures.length > 0);
  part("results").hidden = !pictures.length;
  part("progress").hidden = done === pictures.length;
  part("bar").max = pictures.length || 1;
  part("bar").value = done;
  part("stop").textContent = running ? "Stop" : "Go on";
  part("again").disabled = !pictures.length;
  for (const button of document.querySelectorAll(".tools [data-save], .tools [data-copy]")) button.disabled = !done;
}

function summary() {
  const failed = pictures.filter(({ word }) => word?.error).length;
  const parts = [`${count(pictures.length - left().length - failed)} read`];
  if (failed) parts.push(`${failed} could not be read`);
  if (left().length) parts.push(`${left().length} waiting`);
  return pictures.length ? `${parts.join(", ")}.` : "";
}

const count = (n) => `${n} picture${n === 1 ? "" : "s"}`;
const tell = (text) => { part("status").textContent = text; };

function complain(text) {
  part("alert").textContent = text;
  part("alert").hidden = !text;
}

function halt() {
  running?.abort();
  return working;
}

// Only browsers that can take a photograph for a page know the property.
const camera = "capture" in HTMLInputElement.prototype;
for (const element of document.querySelectorAll("#photograph, [for=photograph]")) element.hidden = !camera;

for (const id of ["choose", "photograph"]) {
  part(id).addEventListener("change", ({ target }) => {
    add(chosen(target.files));
    target.value = ""; // so that the same file can be chosen again
  });
}

part("examples").addEventListener("click", async () => {
  try {
    add(await Promise.all(EXAMPLES.map(async (name) => {
      const got = await fetch(`static/examples/${name}`);
      return { file: new File([await got.blob()], name), name };
    })));
  } catch {
    complain("The server cannot be reached.");
  }
});

document.addEventListener("paste", (event) => {
  const found = pasted(event.clipboardData, pastes);
  if (!found.length) return;
  event.preventDefault();
  pastes += found.length;
  add(found);
});

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // the browser would leave the page and show the file
    document.body.classList.toggle("over", name === "dragover" || name === "dragenter");
  });
}

window.addEventListener("drop", async (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  try {
    const { pictures: found, others } = await dropped(event.dataTransfer);
    add(found);
    if (others) complain(`${others} files in the folder are not named like pictures and were left out.`);
  } catch {
    complain("What was dropped could not be opened.");
  }
});

part("stop").addEventListener("click", () => {
  if (running) return halt();
  complain("");
  work();
});

part("again").addEventListener("click", async () => {
  await halt();
  complain("");
  for (const picture of pictures) {
    delete picture.word;
    wait(picture);
  }
  part("results").scrollIntoView({ block: "nearest" });
  work();
});

part("clear").addEventListener("click", async () => {
  await halt();
  for (const picture of pictures.splice(0)) clear(picture);
  part("cards").replaceChildren();
  refresh();
  tell("The list is empty.");
  part("choose").focus();
});

for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => save(written(pictures, button.dataset.save), button.dataset.save));
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const form = button.dataset.copy;
    try {
      await copy(written(pictures, form));
      tell(`The results are on the clipboard, as ${form.toUpperCase()}.`);
    } catch {
      complain("The browser did not allow copying; download the results instead.");
    }
  });
}

part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = part("key").value;
  part("key-form").hidden = true;
  learn().then(work, stumble);
});

refresh();
learn().catch(stumble);
