// Elements from names and text. Whatever comes from a store goes through here as text, and is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** An element. Attributes that are functions listen to the event of that name; children are text or elements. */
export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** The same for drawings. */
export const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** A link to another view of this page. */
export const link = (to, ...children) => make("a", { href: to }, ...children);

/** Say something to those who hear the page and do not see it. */
export function tell(text) {
  document.getElementById("told").textContent = text;
}

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  for (; bytes >= 1024 && unit < units.length - 1; unit += 1) bytes /= 1024;
  return `${unit && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

export const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const SPANS = [
  ["year", 31557600],
  ["month", 2629800],
  ["week", 604800],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];

/** A time as people say it, with the exact one in its title. */
export function when(iso) {
  const seconds = Math.min(0, (new Date(iso) - Date.now()) / 1000); // versions are a second apart, however fast made
  const [unit, span] = SPANS.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
  return make("time", { datetime: iso, title: iso }, relative.format(Math.round(seconds / span), unit));
}

const SHORT = {
  nanometer: "nm",
  micrometer: "µm",
  millimeter: "mm",
  centimeter: "cm",
  meter: "m",
  angstrom: "Å",
  second: "s",
  millisecond: "ms",
};

/** Voxel sizes with their units: "8 × 8 × 40 nm"; those of axes without a unit have none. */
export function voxelSize(info) {
  const space = info.axes.map((axis, at) => at).filter((at) => info.units[at]); // not channels, nor what has no unit
  if (!space.length) return "no unit known";
  const units = space.map((at) => SHORT[info.units[at]] ?? info.units[at]);
  const sizes = space.map((at) => Number(info.voxel_size[at].toPrecision(6)));
  if (new Set(units).size === 1) return `${sizes.join(" × ")} ${units[0]}`;
  return sizes.map((each, at) => `${each} ${units[at]}`).join(" × ");
}

export const shapeText = (shape) => shape.map((n) => n.toLocaleString("en")).join(" × ");

/** A button that copies a text. */
export function copying(label, text) {
  const button = make("button", { type: "button", class: "small", title: text, click: copy }, label);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // not on a secure origin
      const area = make("textarea", { class: "sr-only", value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "copied";
    tell(`copied ${text}`);
    setTimeout(() => (button.textContent = label), 1200);
  }
  return button;
}

/** What is shown while something is on its way, or instead of what could not be had. */
export const waiting = (text = "Loading…") => make("p", { class: "waiting" }, text);
export const failed = (error) => make("p", { class: "failed", role: "alert" }, error?.message ?? String(error));
