// Planes of an image in pieces: how they lie, what a piece is called in `cutout/`, and its voxels.

import { bytes } from "./tree.js";

export const TILE = 512;
const KEPT = 256 << 20;
const AT_ONCE = 6;
const NAME = /^[A-Za-z][A-Za-z_]*$/;
const THROUGH = { xy: "z", xz: "y", yz: "x" };
const TYPES = {
  u1: Uint8Array,
  b1: Uint8Array,
  i1: Int8Array,
  u2: Uint16Array,
  i2: Int16Array,
  u4: Uint32Array,
  i4: Int32Array,
  u8: BigUint64Array,
  i8: BigInt64Array,
  f4: Float32Array,
  f8: Float64Array,
};

/** How the slices of an image lie, from the description of its finest level: as the server places them. */
export class Geometry {
  constructor(info) {
    const { axes, shape } = info;
    const known = (name) => axes.indexOf(name);
    const named = known("y") >= 0 && known("x") >= 0;
    const last = shape.length - 1;
    this.axis = {
      x: named ? known("x") : last,
      y: named ? known("y") : last - 1,
      z: named ? known("z") : last - 2,
    };
    if (this.axis.z < 0) this.axis.z = null;
    this.sample = info.samples ? axes.indexOf(info.samples) : null;
    const space = Object.values(this.axis);
    const single = (name) => axes.filter((each) => each === name).length === 1;
    this.others = axes
      .map((name, axis) => ({
        axis,
        count: shape[axis],
        name: NAME.test(name ?? "") && single(name) ? name : `d${axis}_`,
      }))
      .filter(({ axis }) => !space.includes(axis) && axis !== this.sample)
      .map((other) => ({ ...other, name: ["x", "y", "z"].includes(other.name) ? `d${other.axis}_` : other.name }));
    this.planes = this.axis.z === null ? ["xy"] : ["xy", "xz", "yz"];
  }

  through(plane) {
    return this.axis[THROUGH[plane]];
  }

  down(plane) {
    return plane === "xy" ? this.axis.y : this.axis.z;
  }

  across(plane) {
    return plane === "yz" ? this.axis.y : this.axis.x;
  }

  /** The directories of the other axes between a level and its planes: `t0003`, `c01`. */
  folders(at) {
    const digits = ({ name, count }) => Math.max(name === "t" ? 4 : 2, String(count - 1).length);
    return this.others.map((other) => `${other.name}${String(at[other.axis]).padStart(digits(other), "0")}`);
  }

  /** What the slice of a plane of a level is called, without its ending: `z00012`. */
  stem(plane, at, level) {
    const through = this.through(plane);
    const [index, count] = through === null ? [0, 1] : [at[through], level.shape[through]];
    return `${THROUGH[plane]}${String(index).padStart(Math.max(5, String(count - 1).length), "0")}`;
  }

  /** What a box of a plane of a level is called in its `cutout/`. `at` has an index for each axis that is not shown. */
  cutout(plane, at, rows, columns) {
    const labels = new Map(
      Object.entries(this.axis)
        .filter(([, axis]) => axis !== null)
        .map(([name, axis]) => [axis, name]),
    );
    for (const other of this.others) labels.set(other.axis, other.name);
    const parts = [...labels.keys()]
      .sort((a, b) => a - b)
      .map((axis) => {
        if (axis === this.down(plane)) return `${labels.get(axis)}${rows[0]}-${rows[1]}`;
        if (axis === this.across(plane)) return `${labels.get(axis)}${columns[0]}-${columns[1]}`;
        return `${labels.get(axis)}${at[axis]}`;
      });
    return `${parts.join("_")}.npy`;
  }
}

/** The voxels in a NPY file, as a tile of so many rows and columns; samples of a pixel come last. */
export function decode(buffer, rows, columns) {
  const head = new DataView(buffer);
  const wide = head.getUint8(6) > 1;
  const start = wide ? 12 + head.getUint32(8, true) : 10 + head.getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, wide ? 12 : 10, start - (wide ? 12 : 10)));
  const shape = /'shape':\s*\(([^)]*)\)/
    .exec(header)[1]
    .split(",")
    .map((n) => n.trim())
    .filter(Boolean)
    .map(Number);
  const [, order, kind, width] = /'descr':\s*'([<>|=])([a-zA-Z])([0-9]+)'/.exec(header) ?? [null, "|", "V", "0"];
  const item = (buffer.byteLength - start) / shape.reduce((a, b) => a * b, 1);
  let data = voxels(buffer, start, order, kind, Number(width), item);
  const total = shape.reduce((a, b) => a * b, 1);
  const samples = total / (rows * columns);
  if (samples > 1 && shape[shape.length - 1] !== samples) {
    // samples first: put them last
    const moved = new data.constructor(total);
    for (let sample = 0; sample < samples; sample += 1) {
      for (let at = 0; at < rows * columns; at += 1) moved[at * samples + sample] = data[sample * rows * columns + at];
    }
    data = moved;
  }
  return { rows, columns, samples, data };
}

function voxels(buffer, start, order, kind, width, item) {
  let raw = buffer.slice(start);
  if (order === ">" && width > 1) {
    const from = new Uint8Array(raw);
    const to = new Uint8Array(raw.byteLength);
    for (let at = 0; at < from.length; at += 1) to[at] = from[at - (at % width) + width - 1 - (at % width)];
    raw = to.buffer;
  }
  if (kind === "f" && width === 2) return Float32Array.from(new Uint16Array(raw), half);
  if (kind === "c") {
    const parts = width === 8 ? new Float32Array(raw) : new Float64Array(raw);
    return Float64Array.from({ length: parts.length / 2 }, (_, at) => Math.hypot(parts[2 * at], parts[2 * at + 1]));
  }
  const type = TYPES[`${kind}${width}`];
  if (type) return new type(raw);
  const all = new Uint8Array(raw); // of what has no numbers, the first byte
  return Uint8Array.from({ length: all.length / item }, (_, at) => all[at * item]);
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * 2 ** -14 * (fraction / 1024);
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}

/** Tiles by their place in the tree: fetched a few at a time, the ones asked for last first, and remembered. */
export class Tiles {
  constructor() {
    this.kept = new Map();
    this.size = 0;
    this.waiting = [];
    this.running = new Map();
  }

  /** A tile if it is here, else undefined. */
  have(key) {
    const tile = this.kept.get(key);
    if (tile) {
      this.kept.delete(key);
      this.kept.set(key, tile);
    }
    return tile;
  }

  /** Want these tiles, { key, names, rows, columns }, and no others; `got` is called when one came or failed. */
  want(wanted, got) {
    const keys = new Set(wanted.map((each) => each.key));
    for (const [key, leaving] of this.running) if (!keys.has(key)) leaving.abort();
    this.waiting = wanted.filter((each) => !this.kept.has(each.key) && !this.running.has(each.key));
    this.got = got;
    this.next();
  }

  next() {
    while (this.running.size < AT_ONCE && this.waiting.length) this.fetch(this.waiting.shift());
  }

  async fetch({ key, names, rows, columns }) {
    const leaving = new AbortController();
    this.running.set(key, leaving);
    try {
      const tile = decode(await bytes(names, leaving.signal), rows, columns);
      this.keep(key, tile);
    } catch (error) {
      if (error.name !== "AbortError") this.keep(key, { error, data: { byteLength: 1 } });
    }
    this.running.delete(key);
    this.got?.();
    this.next();
  }

  keep(key, tile) {
    this.kept.set(key, tile);
    this.size += tile.data.byteLength;
    for (const [old, { data }] of this.kept) {
      if (this.size <= KEPT || old === key) break;
      this.kept.delete(old);
      this.size -= data.byteLength;
    }
  }

  forget() {
    this.want([], null);
    this.kept.clear();
    this.size = 0;
  }
}
