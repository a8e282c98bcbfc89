// The tree as the server shows it: names to URLs, listings, documents, and which images a snapshot has.

const ROOT = new URL("../../", import.meta.url).href;
const LEVEL = /^s[0-9]+$/;
const FIXED = new Set(["zarr", "files", "formats", ".volfs", "preview", "chunks", "cutout", "oblique"]);
const DEEPEST = 12;
const MOST_IMAGES = 500;

/** The URL of a place in the tree, from the names that lead there. */
export const url = (...names) => ROOT + names.flat().map(encodeURIComponent).join("/");

/** A place as a path of the tree, for people. */
export const path = (...names) => names.flat().join("/");

/** The address of a view of this page. */
export function address(names, query = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== ""));
  return `#/${names.flat().map(encodeURIComponent).join("/")}${asked.size ? `?${asked}` : ""}`;
}

async function ask(at, signal) {
  const answer = await fetch(at, { signal });
  if (!answer.ok) {
    const line = (await answer.text()).trim().split("\n")[0];
    const error = new Error(
      `${decodeURI(at.slice(ROOT.length)) || "/"}: ${line || answer.statusText || answer.status}`,
    );
    error.status = answer.status;
    throw error;
  }
  return answer;
}

export const json = async (names, signal) => (await ask(url(names), signal)).json();
export const text = async (names, signal) => (await ask(url(names), signal)).text();
export const bytes = async (names, signal) => (await ask(url(names), signal)).arrayBuffer();

/** The entries of a directory: name, type, size, mtime. */
export const list = async (names, signal) =>
  (await (await ask(`${url(names)}${names.length ? "/" : ""}?format=json`, signal)).json()).entries;

/** The images of a snapshot: path (names), kind, levels with their descriptions, finest first. */
export async function images(snapshot, signal) {
  const found = [];
  async function visit(names) {
    if (names.length > DEEPEST || found.length >= MOST_IMAGES) return;
    const entries = await list([...snapshot, ...names], signal);
    const folders = entries.filter((entry) => entry.type === "directory").map((entry) => entry.name);
    const levels = folders.filter((name) => LEVEL.test(name)).sort((a, b) => a.slice(1) - b.slice(1));
    const alone = entries.some((entry) => entry.name === "info.json");
    if (alone || (levels.length && folders.includes("formats"))) {
      const places = alone ? [[]] : levels.map((name) => [name]);
      const infos = await Promise.all(places.map((at) => json([...snapshot, ...names, ...at, "info.json"], signal)));
      const thumbnail = entries.some((entry) => entry.name === "thumbnail.png");
      found.push({
        path: names,
        kind: infos[0].kind,
        thumbnail,
        levels: infos.map((info, at) => ({ ...info, name: places[at][0] ?? "", place: [...names, ...places[at]] })),
      });
    }
    if (alone) return;
    const deeper = folders.filter(
      (name) => !LEVEL.test(name) && (names.length || !FIXED.has(name)) && name !== "formats",
    );
    await Promise.all(deeper.map((name) => visit([...names, name])));
  }
  await visit([]);
  return found.sort((a, b) => a.path.length - b.path.length || (path(a.path) < path(b.path) ? -1 : 1));
}

/** One image of a snapshot; an error that names it where there is none. */
export async function image(snapshot, names, signal) {
  const entries = await list([...snapshot, ...names], signal);
  const has = (name) => entries.some((entry) => entry.name === name);
  const levels = entries.map((entry) => entry.name).filter((name) => LEVEL.test(name));
  levels.sort((a, b) => a.slice(1) - b.slice(1));
  if (!levels.length && !has("info.json")) throw new Error(`${path(snapshot, names)} is no image`);
  const places = has("info.json") ? [[]] : levels.map((name) => [name]);
  const infos = await Promise.all(places.map((at) => json([...snapshot, ...names, ...at, "info.json"], signal)));
  return {
    path: names,
    kind: infos[0].kind,
    levels: infos.map((info, at) => ({ ...info, name: places[at][0] ?? "", place: [...names, ...places[at]] })),
  };
}

/** What the attributes of an image say of how it is shown: `omero` and `image-label`. */
export async function shown(snapshot, names, signal) {
  try {
    const attributes = (await json([...snapshot, "zarr", ...names, "zarr.json"], signal)).attributes ?? {};
    const holders = [attributes.ome, attributes].filter((holder) => holder && typeof holder === "object");
    const first = (key) => holders.map((holder) => holder[key]).find((value) => value && typeof value === "object");
    const channels = first("omero")?.channels;
    const colours = first("image-label")?.colors;
    return { channels: Array.isArray(channels) ? channels : [], colours: Array.isArray(colours) ? colours : [] };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { channels: [], colours: [] };
  }
}

/** The versions of a dataset, newest first, from the text that `log.txt` is: lines at the margin are the server's,
 *  those of messages are indented. */
export function parseLog(log) {
  const versions = [];
  let now = null;
  for (const line of log.split("\n")) {
    const begun = /^v([0-9]+)(?: {2}\((.*)\))?$/.exec(line);
    if (begun) {
      now = {
        number: Number(begun[1]),
        names: begun[2] ? begun[2].split(", ") : [],
        parents: [],
        author: "",
        time: "",
        message: [],
      };
      versions.push(now);
    } else if (!now) continue;
    else if (line.startsWith("    ")) now.message.push(line.slice(4));
    else if (line === "" && now.message.length) now.message.push("");
    else if (line.startsWith("parent  "))
      now.parents = [...line.slice(8).matchAll(/v([0-9]+)/g)].map((each) => Number(each[1]));
    else if (line.startsWith("author  ")) now.author = line.slice(8);
    else if (line.startsWith("date    ")) now.time = line.slice(8);
  }
  for (const version of versions) version.message = version.message.join("\n").trimEnd();
  return versions;
}

/** The place of a snapshot, from what a person calls it: a version, a branch or any expression for a version. */
export function placeOf(dataset, facts, said) {
  const name = said.trim();
  if (Object.hasOwn(facts.branches, name)) return [dataset, "branches", name];
  return [dataset, "versions", Object.hasOwn(facts.tags, name) ? facts.tags[name] : name];
}
