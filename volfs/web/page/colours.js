// Voxels as people see them: intensities through a window, labels in their colours. The same colours as in the server's
// own pictures (preview/, thumbnails): a label has one whatever it is looked at with.

const TABLE = 65536;
let table = null;

/** Red, green and blue of every label modulo 65535: hues step by the golden ratio. */
function labelTable() {
  if (table) return table;
  table = new Uint8Array(TABLE * 3);
  for (let n = 1; n < TABLE; n += 1) {
    const hue = (n * 0.618033988749895) % 1;
    const value = 0.7 + 0.3 * ((n * 0.754877666246693) % 1);
    const chroma = value * (0.55 + 0.4 * ((n * 0.569840290998053) % 1));
    [5, 3, 1].forEach((offset, channel) => {
      const wave = (offset + hue * 6) % 6;
      table[n * 3 + channel] = Math.round((value - chroma * Math.min(Math.max(Math.min(wave, 4 - wave), 0), 1)) * 255);
    });
  }
  return table;
}

/** How the labels of an image are coloured, from `image-label.colors` of its metadata. */
export function labelLook(colours) {
  const known = new Map();
  for (const each of colours) {
    const value = each?.["label-value"];
    const rgba = each?.rgba;
    if (!Number.isInteger(value) || !Array.isArray(rgba) || rgba.length < 3 || rgba.length > 4) continue;
    if (!rgba.every((part) => Number.isInteger(part) && part >= 0 && part <= 255)) continue;
    const opaque = (rgba[3] ?? 255) / 255;
    known.set(
      BigInt(value).toString(),
      rgba.slice(0, 3).map((part) => Math.round(part * opaque)),
    );
  }
  return { kind: "labels", known };
}

export const grayLook = (low, high) => ({ kind: "gray", low, high });

/** Pixels (RGBA) of a tile. Of one with samples: as they are where they have 8 bits, else through the window. */
export function paint(tile, look) {
  const out = new ImageData(tile.columns, tile.rows);
  const pixels = new Uint32Array(out.data.buffer);
  if (look.kind === "labels" && tile.samples === 1) paintLabels(tile, look, pixels);
  else if (tile.samples > 2) paintColours(tile, look, out.data);
  else {
    const gray = grays(tile, look);
    for (let at = 0; at < pixels.length; at += 1) pixels[at] = 0xff000000 | (gray[at] * 0x010101);
  }
  return out;
}

function paintLabels(tile, look, pixels) {
  const colours = labelTable();
  const { low, high } = halves(tile);
  const remembered = new Map();
  let before = -1;
  let beforeHigh = 0;
  let colour = 0;
  for (let at = 0; at < pixels.length; at += 1) {
    const small = low[at] >>> 0;
    const large = high ? high[at] >>> 0 : 0;
    if (small !== before || large !== beforeHigh) {
      before = small;
      beforeHigh = large;
      const number = large * 4294967296 + small;
      colour = large < 0x200000 ? remembered.get(number) : undefined;
      if (colour === undefined) {
        const given = look.known.size ? look.known.get(exact(tile, at)) : undefined;
        if (given) colour = 0xff000000 | (given[2] << 16) | (given[1] << 8) | given[0];
        else if (number === 0) colour = 0xff000000;
        else {
          const n = (((large % 65535) + (small % 65535)) % 65535) + 1; // 2^32 is 1 modulo 65535
          colour = 0xff000000 | (colours[n * 3 + 2] << 16) | (colours[n * 3 + 1] << 8) | colours[n * 3];
        }
        if (large < 0x200000) remembered.set(number, colour);
      }
    }
    pixels[at] = colour;
  }
}

/** The low and high 32 bits of each label, as two's complement of 64: what a negative label is to the server. */
function halves(tile) {
  const { data } = tile;
  if (data instanceof BigUint64Array || data instanceof BigInt64Array) {
    const both = new Uint32Array(data.buffer, data.byteOffset, data.length * 2);
    const low = new Uint32Array(data.length);
    const high = new Uint32Array(data.length);
    for (let at = 0; at < data.length; at += 1) {
      low[at] = both[2 * at];
      high[at] = both[2 * at + 1];
    }
    return { low, high };
  }
  if (data instanceof Int8Array || data instanceof Int16Array || data instanceof Int32Array) {
    return { low: data, high: Int32Array.from(data, (value) => (value < 0 ? -1 : 0)) };
  }
  return { low: data, high: null };
}

/** A voxel's value as text, exactly. */
export function exact(tile, at) {
  if (tile.samples > 1)
    return Array.from({ length: tile.samples }, (_, sample) => text(tile.data[at * tile.samples + sample])).join(", ");
  return text(tile.data[at]);
}

const text = (value) =>
  typeof value === "bigint" || Number.isInteger(value) ? value.toString() : Number(value).toPrecision(6);

function paintColours(tile, look, out) {
  const { data, samples } = tile;
  const scale = 255 / (look.high - look.low);
  const plain = data instanceof Uint8Array;
  for (let at = 0, from = 0, to = 0; at < tile.rows * tile.columns; at += 1, from += samples, to += 4) {
    for (let sample = 0; sample < 3; sample += 1) {
      const value = Number(data[from + sample]);
      out[to + sample] = plain ? value : (value - look.low) * scale;
    }
    out[to + 3] = 255;
  }
}

/** 8 bits for each pixel, through the window; not-a-number is black. */
function grays(tile, look) {
  const { data, samples } = tile;
  const length = tile.rows * tile.columns;
  const out = new Uint8ClampedArray(length); // rounds half to even, as the server does
  const scale = 255 / (look.high - look.low);
  if (data instanceof Uint8Array || data instanceof Uint16Array) {
    const map = new Uint8ClampedArray(data instanceof Uint8Array ? 256 : 65536);
    for (let value = 0; value < map.length; value += 1) map[value] = (value - look.low) * scale;
    for (let at = 0; at < length; at += 1) out[at] = map[data[at * samples]];
  } else for (let at = 0; at < length; at += 1) out[at] = (Number(data[at * samples]) - look.low) * scale;
  return out;
}

const GREW = 0xff000000 | (0 << 16) | (140 << 8) | 255;
const SHRANK = 0xff000000 | (255 << 16) | (110 << 8) | 0;

/** What differs between two tiles: unchanged in grey, grown or relabelled orange, shrunk or without its label blue. */
export function paintDifference(before, now, look) {
  const out = new ImageData(now.columns, now.rows);
  const pixels = new Uint32Array(out.data.buffer);
  const labels = look.kind === "labels" && now.samples === 1;
  const gray = labels || now.samples > 2 ? null : grays(now, look);
  const shown = gray ? null : labels ? null : paint(now, look);
  for (let at = 0; at < pixels.length; at += 1) {
    let differs = false;
    for (let sample = at * now.samples; sample < (at + 1) * now.samples; sample += 1) {
      const [a, b] = [before.data[sample], now.data[sample]];
      if (a !== b && !(a !== a && b !== b)) differs = true;
    }
    const first = at * now.samples;
    if (!differs) {
      if (labels) pixels[at] = now.data[at] == 0 ? 0xff000000 : 0xff808080;
      else if (gray) pixels[at] = 0xff000000 | (gray[at] * 0x010101);
      else {
        const mean = Math.round((shown.data[at * 4] + shown.data[at * 4 + 1] + shown.data[at * 4 + 2]) / 3);
        pixels[at] = 0xff000000 | (mean * 0x010101);
      }
    } else if (labels ? now.data[at] == 0 : now.data[first] < before.data[first]) pixels[at] = SHRANK;
    else pixels[at] = GREW;
  }
  return out;
}

/** A window from percentiles of a tile, so that a few hot or dead voxels do not decide. */
export function robustWindow(tile) {
  const values = Float64Array.from({ length: tile.data.length }, (_, at) => Number(tile.data[at]))
    .filter(Number.isFinite)
    .sort();
  if (!values.length) return [0, 1];
  const share = (percent) => {
    const at = ((values.length - 1) * percent) / 100;
    const below = Math.floor(at);
    return values[below] + (values[Math.min(below + 1, values.length - 1)] - values[below]) * (at - below);
  };
  let [low, high] = [share(0.5), share(99.8)];
  if (!(high > low)) [low, high] = [values[0], values[values.length - 1]];
  return high > low ? [low, high] : low > 0 ? [low - 1, low] : [low, low + 1];
}
