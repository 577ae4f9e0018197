// Results as CSV and JSON, saved or copied.

/** The results of `pictures` that the server has answered, as `form` ("csv" or "json") writes them. */
export function written(pictures, form) {
  const answered = pictures.filter(({ word }) => word);
  return form === "csv" ? csv(answered) : JSON.stringify(answered.map(record), null, 1) + "\n";
}

/** Hand `text` to the browser as a file to download. */
export function save(text, form) {
  // Excel takes a CSV file for the local code page unless it begins with a byte-order mark.
  const parts = form === "csv" ? ["\ufeff", text] : [text];
  const kind = form === "csv" ? "text/csv;charset=utf-8" : "application/json";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: kind }));
  link.download = `words.${form}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the download has begun long before
}

/** Put `text` on the clipboard. Raises an error where the browser allows it in no way. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea"); // without https the browser has no clipboard for us but this one
  field.value = text;
  field.className = "unseen";
  const before = document.activeElement;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  if (!done) throw new Error("The browser does not allow copying.");
}

function record({ name, word }) {
  const { text, confidence, kept, characters, error } = word;
  return { text, confidence, source: name, ...(kept == null ? {} : { kept }), ...(error ? { error } : { characters }) };
}

function csv(pictures) {
  const rows = pictures.map(({ name, word: { text, confidence, error } }) =>
    [text ?? "", confidence?.toFixed(6) ?? "", name, error?.message ?? ""]);
  return [["text", "confidence", "source", "error"], ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

// A spreadsheet runs a cell that begins like a formula, and a file's name may be one. An apostrophe makes it text.
function cell(value) {
  const harmless = /^[\s]*[=+\-@\t\r\n＝＋－＠]/u.test(value) ? `'${value}` : value;
  return `"${harmless.replaceAll('"', '""')}"`;
}
