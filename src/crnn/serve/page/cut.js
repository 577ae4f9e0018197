// A part of a picture, cut out in a frame that is drawn around it: photographs show more than one word.

const STEP = 0.02; // of the picture's width or height, for each arrow key
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const LEAST = 0.01;

const part = (id) => document.getElementById(`cut${id}`);
let frame; // {x, y, width, height}, 0 to 1 of the picture
let parts = 0;

/** Let the user cut a part out of `file`: `{file, name}`, or null if they think better of it. */
export async function cut({ file, name }) {
  const bitmap = await createImageBitmap(file);
  const canvas = part("-picture");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // where it is transparent, as the service does
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  put({ x: 0.1, y: 0.3, width: 0.8, height: 0.4 });
  part("").returnValue = "";
  part("").showModal();
  part("-stage").focus();
  await new Promise((resolve) => part("").addEventListener("close", resolve, { once: true }));
  const found = part("").returnValue === "read" ? await taken(canvas, name) : null;
  canvas.width = canvas.height = 0; // gives its memory back
  return found;
}

async function taken(canvas, name) {
  const [x, y, right, bottom] = [frame.x, frame.y, frame.x + frame.width, frame.y + frame.height].map((share, n) =>
    Math.round(share * (n % 2 ? canvas.height : canvas.width)));
  const out = document.createElement("canvas");
  out.width = Math.max(1, right - x);
  out.height = Math.max(1, bottom - y);
  out.getContext("2d").drawImage(canvas, -x, -y);
  const blob = await new Promise((resolve) => out.toBlob(resolve, "image/png"));
  parts += 1;
  const named = `${name.replace(/\.\w+$/, "")}-part-${parts}.png`;
  return { file: new File([blob], named, { type: "image/png" }), name: named };
}

function put({ x, y, width, height }) {
  width = Math.min(Math.max(width, LEAST), 1);
  height = Math.min(Math.max(height, LEAST), 1);
  frame = { x: Math.min(Math.max(x, 0), 1 - width), y: Math.min(Math.max(y, 0), 1 - height), width, height };
  const [left, top, wide, high] = [frame.x, frame.y, width, height].map((share) => `${(100 * share).toFixed(1)}%`);
  Object.assign(part("-frame").style, { left, top, width: wide, height: high });
  part("-told").textContent = `The frame is ${left} from the left, ${top} from the top, ${wide} wide, ${high} high.`;
}

function at(event) {
  const { left, top, width, height } = part("-picture").getBoundingClientRect();
  const share = (value) => Math.min(Math.max(value, 0), 1);
  return [share((event.clientX - left) / width), share((event.clientY - top) / height)];
}

const stage = part("-stage");
stage.addEventListener("pointerdown", (event) => {
  event.preventDefault(); // no selection, no dragging of the picture
  stage.focus();
  stage.setPointerCapture(event.pointerId);
  const [x, y] = at(event);
  const draw = (moved) => {
    const [toX, toY] = at(moved);
    put({ x: Math.min(x, toX), y: Math.min(y, toY), width: Math.abs(toX - x), height: Math.abs(toY - y) });
  };
  stage.addEventListener("pointermove", draw);
  stage.addEventListener("lostpointercapture", () => stage.removeEventListener("pointermove", draw), { once: true });
});

stage.addEventListener("keydown", (event) => {
  const [right, down] = ARROWS[event.key] ?? [0, 0];
  if (!right && !down && event.key !== "Enter") return;
  event.preventDefault(); // or the same Enter would press the button that gets the focus back
  if (event.key === "Enter") return part("").close("read");
  const { x, y, width, height } = frame;
  if (event.shiftKey) put({ x, y, width: width + right, height: height + down });
  else put({ x: x + right, y: y + down, width, height });
});

part("-read").addEventListener("click", () => part("").close("read"));
part("-cancel").addEventListener("click", () => part("").close(""));
