// Pictures from wherever people have them: chosen, dropped (folders too), pasted.

const PICTURE = /\.(avif|bmp|gif|heic|heif|ico|jfif|jp2|jpe?g|pbm|pgm|png|pnm|ppm|tga|tiff?|webp)$/i;

/** Chosen files as `{file, name}`. */
export function chosen(list) {
  return Array.from(list, (file) => ({ file, name: file.name }));
}

/** The pictures in a paste as `{file, name}`. They have no names of their own worth keeping. */
export function pasted(data, count) {
  return Array.from(data.files, (file, n) => {
    const kind = file.type.split("/")[1]?.split("+")[0] ?? "bin";
    return { file, name: file.name === "image.png" || !file.name ? `pasted-${count + n + 1}.${kind}` : file.name };
  });
}

/**
 * What was dropped as `{pictures, others}`: files as they are, and of folders, all the way down, what is named like a
 * picture; `others` counts what else lay there. Call it in the drop's own event: the browser forgets the data after it.
 */
export async function dropped(data) {
  const entries = Array.from(data.items, (item) => item.kind === "file" && (item.webkitGetAsEntry?.() ?? item.getAsFile()));
  const found = { pictures: [], others: 0 };
  for (const entry of entries) {
    if (entry instanceof File) found.pictures.push({ file: entry, name: entry.name });
    else if (entry) await walk(entry, found, true);
  }
  return found;
}

async function walk(entry, found, given) {
  if (entry.isDirectory) {
    const reader = entry.createReader();
    const inside = [];
    let some;
    do { // it gives a hundred at a time
      some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      inside.push(...some);
    } while (some.length);
    inside.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    for (const each of inside) await walk(each, found, false);
  } else if (given || PICTURE.test(entry.name)) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.pictures.push({ file, name: given ? entry.name : entry.fullPath.slice(1) });
  } else {
    found.others += 1;
  }
}
