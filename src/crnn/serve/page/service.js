// The server's answers. Addresses are relative, so that the page works below a proxy's prefix too.

const GROUP = { pictures: 16, bytes: 2 << 20 }; // small enough that results appear as they come, and for slow lines
const PATIENCE = 5; // times that a busy server is asked again
const LONGEST_WAIT = 30; // seconds

/**
 * An answer that is no result, or none at all: `status` is 0 if the server was not reached. `code` is the server's name
 * for it, `after` the seconds it asks to wait for.
 */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** What `GET /v1/model` says. */
export async function model(key) {
  return (await call("v1/model", { headers: headers(key) })).json();
}

/** How many of the `pictures`, from the first, go into one request. At least one. */
export function groupSize(pictures, limits) {
  const most = Math.min(GROUP.pictures, limits.images);
  const room = Math.min(GROUP.bytes, limits.bytes - 65536); // the multipart form takes some itself
  let count = 0, bytes = 0;
  for (const { file } of pictures.slice(0, most)) {
    bytes += file.size + 1024;
    if (count && bytes > room) break;
    count += 1;
  }
  return count;
}

/**
 * Read one group of pictures: the server's `words`, in their order. A busy server is asked again; `waiting(seconds)` is
 * called before each wait. Raises Refused, or what `signal` was aborted with.
 */
export async function read(pictures, { key, lexicon, signal, waiting }) {
  for (let asked = 1; ; asked++) {
    const body = new FormData();
    for (const { file, name } of pictures) body.append("images", file, name);
    if (lexicon) body.append("lexicon", lexicon);
    try {
      const address = "v1/read?characters=true&posterior=true";
      const answer = await call(address, { method: "POST", headers: headers(key), body, signal });
      const { words } = await answer.json().catch(() => ({}));
      if (words?.length !== pictures.length) throw new Refused("The server's answer cannot be understood.", 502);
      return words;
    } catch (error) {
      if (!(error instanceof Refused) || ![429, 503].includes(error.status) || asked > PATIENCE) throw error;
      const seconds = Math.min(error.after || asked, LONGEST_WAIT);
      waiting(seconds);
      await pause(seconds * 1000, signal);
    }
  }
}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function call(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.", 0);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  const refused = new Refused(said.error?.message ?? `The server answered ${answer.status}.`, answer.status);
  refused.code = said.error?.code;
  refused.after = Number(answer.headers.get("Retry-After"));
  throw refused;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", stop); resolve(); }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
