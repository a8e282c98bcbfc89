// The slice viewer: a plane of an image, of one version or of two beside each other or as their difference.

import { exact, grayLook, labelLook, paint, paintDifference, robustWindow } from "./colours.js";
import { copying, make, shapeText, tell, voxelSize } from "./elements.js";
import { decode, Geometry, TILE, Tiles } from "./slices.js";
import { address, bytes, image as imageAt, json, path, placeOf, shown, url } from "./tree.js";

export const sliceKeys = [
  ["← → ↑ ↓", "move the picture (with Shift, further)"],
  [", .  or PgUp PgDn", "the slice before, the next (with Shift, ten)"],
  ["+ −", "nearer, further"],
  ["0", "all of the plane"],
  ["1", "one voxel a pixel"],
  ["p", "the next plane: xy, xz, yz"],
  ["c C   t T", "the next channel, time; the one before"],
  ["a", "contrast from what is shown"],
  ["d", "difference, side by side, alone"],
];
const MOST_TILES = 96;
const [NEAREST, FURTHEST] = [64, 1 / 65536];

export async function sliceView(main, names, signal, query) {
  const snapshot = names.slice(0, 3);
  const here = names.slice(4);
  const [image, facts, meta] = await Promise.all([
    imageAt(snapshot, here, signal),
    json([snapshot[0], "dataset.json"], signal),
    shown(snapshot, here, signal),
  ]);
  const viewer = new Viewer(main, { snapshot, here, image, facts, meta, signal });
  await viewer.begin(query);
}

class Viewer {
  constructor(main, told) {
    Object.assign(this, told);
    this.main = main;
    this.finest = this.image.levels[0];
    this.geometry = new Geometry(this.finest);
    this.labels = this.image.kind === "labels" && this.geometry.sample === null;
    this.tiles = new Tiles();
    this.panes = [];
    this.pictures = new Map();
    this.signal.addEventListener("abort", () => this.tiles.forget());
  }

  async begin(query) {
    const { geometry } = this;
    const plane = query.get("plane");
    const state = (this.state = {
      plane: geometry.planes.includes(plane) ? plane : "xy",
      at: {},
      level: query.get("level") ?? "auto",
      zoom: null,
      x: null,
      y: null,
      mode: ["side", "diff"].includes(query.get("mode")) ? query.get("mode") : "",
    });
    const number = (text) =>
      text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : null;
    const { shape } = this.finest;
    const inside = (value, count) => Math.min(count - 1, Math.max(0, Math.trunc(value)));
    for (const axis of Object.values(geometry.axis)) if (axis !== null) state.at[axis] = Math.floor(shape[axis] / 2);
    for (const other of geometry.others) state.at[other.axis] = inside(number(query.get(other.name)) ?? 0, other.count);
    const through = geometry.through(state.plane);
    if (through !== null) state.at[through] = inside(number(query.get("at")) ?? state.at[through], shape[through]);
    this.build();
    if (query.get("with")) await this.compare(query.get("with").split("/"), state.mode || "side");
    const [low, high] = [number(query.get("low")), number(query.get("high"))];
    if (low !== null && high !== null && high > low) this.setWindow(low, high);
    else await this.autoWindow();
    [state.zoom, state.x, state.y] = [number(query.get("zoom")), number(query.get("x")), number(query.get("y"))];
    if (state.zoom !== null) state.zoom = Math.min(NEAREST, Math.max(FURTHEST, state.zoom));
    this.layPanes();
    new ResizeObserver(() => this.resized()).observe(this.stage);
  }

  // -- controls ------------------------------------------------------------------------------------------------------

  build() {
    const { geometry, state, finest, snapshot, here, facts } = this;
    const name = here.length ? path(here) : snapshot[0];
    this.stage = make("div", { class: "stage" });
    this.readout = make("output", { class: "readout" });
    this.planes = make(
      "fieldset",
      { class: "choice" },
      make("legend", {}, "Plane"),
      geometry.planes.map((plane) =>
        make(
          "label",
          {},
          make("input", {
            type: "radio",
            name: "plane",
            value: plane,
            checked: plane === state.plane,
            change: () => this.setPlane(plane),
          }),
          plane,
        ),
      ),
    );
    this.position = this.slider(
      "Position",
      () => this.through,
      () => (this.through === null ? 1 : finest.shape[this.through]),
    );
    this.sliders = geometry.others.map((other) =>
      this.slider(
        this.titleOf(other),
        () => other.axis,
        () => other.count,
        other,
      ),
    );
    this.level = make(
      "select",
      {
        change: () => {
          state.level = this.level.value;
          this.refresh();
        },
      },
      make("option", { value: "auto" }, "by zoom"),
      this.image.levels.map((level) =>
        make(
          "option",
          { value: level.name, selected: level.name === state.level },
          `${level.name || "s0"}  ${shapeText(level.shape)}`,
        ),
      ),
    );
    const level = make("label", { class: "control" }, "Level ", this.level);
    this.low = make("input", {
      type: "number",
      step: "any",
      change: () => this.setWindow(Number(this.low.value), Number(this.high.value)),
    });
    this.high = make("input", {
      type: "number",
      step: "any",
      change: () => this.setWindow(Number(this.low.value), Number(this.high.value)),
    });
    this.lowRange = make("input", {
      type: "range",
      min: 0,
      max: 1000,
      "aria-label": "Black",
      input: () => this.dragWindow(),
    });
    this.highRange = make("input", {
      type: "range",
      min: 0,
      max: 1000,
      "aria-label": "White",
      input: () => this.dragWindow(),
    });
    const contrast = this.labels
      ? null
      : make(
          "fieldset",
          { class: "contrast" },
          make("legend", {}, "Contrast"),
          make("label", {}, "black ", this.low),
          this.lowRange,
          make("label", {}, "white ", this.high),
          this.highRange,
          make("button", { type: "button", class: "small", click: () => this.autoWindow() }, "auto"),
        );
    const zoom = make(
      "div",
      { class: "control zoom", role: "group", "aria-label": "Zoom" },
      make("button", { type: "button", "aria-label": "Further", click: () => this.zoomBy(1 / 1.5) }, "−"),
      make("button", { type: "button", "aria-label": "Nearer", click: () => this.zoomBy(1.5) }, "+"),
      make("button", { type: "button", click: () => this.fit() }, "fit"),
      make("button", { type: "button", click: () => this.zoomTo(1) }, "1:1"),
    );
    this.other = make("input", {
      list: "others",
      placeholder: "v3, main~2, a tag",
      "aria-label": "Version to compare with",
    });
    this.mode = make(
      "select",
      { "aria-label": "How to compare", change: () => this.setMode(this.mode.value) },
      [
        ["", "alone"],
        ["side", "side by side"],
        ["diff", "difference"],
      ].map(([value, text]) => make("option", { value }, text)),
    );
    const compare = make(
      "form",
      {
        class: "control compare",
        submit: (event) => {
          event.preventDefault();
          this.setMode(this.mode.value || "side");
        },
      },
      make("label", {}, "Compare with ", this.other),
      make(
        "datalist",
        { id: "others" },
        [...Object.keys(facts.branches), ...Object.keys(facts.tags)].map((ref) => make("option", { value: ref })),
      ),
      this.mode,
    );
    this.said = make("p", { class: "failed", role: "alert", hidden: true });
    this.links = make("p", { class: "actions" });
    this.main.append(
      make(
        "div",
        { class: "slice-title" },
        make(
          "h1",
          { tabindex: "-1" },
          name,
          make(
            "span",
            { class: "dim" },
            ` ${snapshot[2]} · ${shapeText(finest.shape)} · ${finest.dtype} · ${voxelSize(finest)}`,
          ),
        ),
      ),
      make(
        "div",
        { class: "viewer" },
        make(
          "form",
          { class: "controls", "aria-label": "What is shown", submit: (event) => event.preventDefault() },
          this.planes,
          this.position?.row,
          this.sliders.map((each) => each.row),
          contrast,
          level,
          zoom,
        ),
        make("div", { class: "seen" }, this.stage, this.readout, this.said, compare, this.links),
      ),
    );
    this.showPosition();
  }

  titleOf(other) {
    return { c: "Channel", t: "Time", z: "Depth" }[other.name] ?? other.name;
  }

  /** A slider with a number for an axis. */
  slider(title, axis, count, other = null) {
    if (!other && this.geometry.axis.z === null) return null;
    const set = (value) => this.setIndex(axis(), value);
    const range = make("input", {
      type: "range",
      min: 0,
      max: 0,
      "aria-label": title,
      input: () => set(Number(range.value)),
    });
    const number = make("input", {
      type: "number",
      min: 0,
      max: 0,
      "aria-label": `${title}, as a number`,
      change: () => set(Number(number.value)),
    });
    const named = make("span", { class: "dim channel" });
    const row = make("div", { class: "control slide" }, make("span", { class: "label" }, title), range, number, named);
    return {
      row,
      show: () => {
        const [value, last] = [this.state.at[axis()], count() - 1];
        for (const input of [range, number]) [input.max, input.value] = [last, value];
        named.textContent = other?.name === "c" ? String(this.meta.channels[value]?.label ?? "") : "";
      },
    };
  }

  get through() {
    return this.geometry.through(this.state.plane);
  }

  showPosition() {
    this.position?.show();
    for (const each of this.sliders) each.show();
  }

  setIndex(axis, value) {
    if (axis === null || !Number.isFinite(value)) return;
    const next = Math.min(this.finest.shape[axis] - 1, Math.max(0, Math.trunc(value)));
    const changed = next !== this.state.at[axis];
    this.state.at[axis] = next;
    this.showPosition();
    if (!changed) return;
    const other = this.geometry.others.find((each) => each.axis === axis);
    if (other?.name === "c") this.autoWindow(); // channels have windows of their own
    this.refresh();
    tell(`${other ? this.titleOf(other) : "Position"} ${next}`);
  }

  setPlane(plane) {
    if (plane === this.state.plane) return;
    this.state.plane = plane;
    for (const input of this.planes.querySelectorAll("input")) input.checked = input.value === plane;
    this.showPosition();
    this.fit();
    tell(`plane ${plane}`);
  }

  // -- contrast ------------------------------------------------------------------------------------------------------

  setWindow(low, high) {
    if (!(Number.isFinite(low) && Number.isFinite(high))) return;
    if (!(high > low)) high = low + (Number.isInteger(low) ? 1 : Math.abs(low) * 1e-6 || 1e-6);
    this.state.low = low;
    this.state.high = high;
    this.bounds = this.bounds ? [Math.min(this.bounds[0], low), Math.max(this.bounds[1], high)] : [low, high];
    this.low.value = Number(low.toPrecision(7));
    this.high.value = Number(high.toPrecision(7));
    const share = (value) => Math.round(((value - this.bounds[0]) / (this.bounds[1] - this.bounds[0])) * 1000);
    [this.lowRange.value, this.highRange.value] = [share(low), share(high)];
    this.repaint();
  }

  dragWindow() {
    const value = (range) => this.bounds[0] + (Number(range.value) / 1000) * (this.bounds[1] - this.bounds[0]);
    const whole = /^u?int/.test(this.finest.dtype) ? Math.round : (number) => number;
    this.setWindow(whole(value(this.lowRange)), whole(value(this.highRange)));
  }

  /** The window that the metadata give, else percentiles of the middle of the coarsest level. */
  async autoWindow() {
    if (this.labels) return;
    const { geometry, state } = this;
    const channel = geometry.others.find((other) => other.name === "c");
    const told = this.meta.channels[channel ? state.at[channel.axis] : 0]?.window;
    const limits = { uint8: [0, 255], bool: [0, 1], uint16: [0, 65535], int8: [-128, 127], int16: [-32768, 32767] }[
      this.finest.dtype
    ];
    this.bounds = null;
    if (Number.isFinite(told?.start) && Number.isFinite(told?.end) && told.start < told.end) {
      this.bounds = limits ?? [told.min ?? told.start, told.max ?? told.end];
      return this.setWindow(told.start, told.end);
    }
    const level = this.image.levels[this.image.levels.length - 1];
    const span = (axis) => {
      const from = Math.max(0, Math.floor((level.shape[axis] - TILE) / 2));
      return [from, Math.min(level.shape[axis], from + TILE)];
    };
    const [rows, columns] = [span(geometry.down("xy")), span(geometry.across("xy"))];
    const at = this.indices(level);
    if (geometry.axis.z !== null) at[geometry.axis.z] = Math.floor(level.shape[geometry.axis.z] / 2);
    try {
      const wanted = this.wanted(this.snapshot, level, at, "xy", rows, columns);
      const tile = decode(await bytes(wanted.names, this.signal), wanted.rows, wanted.columns);
      const [low, high] = robustWindow(tile);
      let [least, most] = [Infinity, -Infinity];
      for (const value of tile.data) [least, most] = [Math.min(least, Number(value)), Math.max(most, Number(value))];
      this.bounds =
        this.finest.dtype === "uint8"
          ? limits
          : [Math.min(low, least), Math.max(high, most)].map((value, at) =>
              Number.isFinite(value) ? value : [low, high][at],
            );
      this.setWindow(low, high);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.setWindow(...(limits ?? [0, 1]));
    }
  }

  get look() {
    return this.labels
      ? (this.colours ??= labelLook(this.meta.colours))
      : grayLook(this.state.low ?? 0, this.state.high ?? 255);
  }

  // -- comparing -----------------------------------------------------------------------------------------------------

  async compare(ref, mode) {
    const { here, snapshot, signal } = this;
    this.say("");
    try {
      const place = [snapshot[0], ...ref];
      const image = await imageAt(place, here, signal);
      this.second = { place, image };
      this.state.mode = mode;
      this.other.value = ref[1];
      if (mode === "diff") this.check();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.second = null;
      this.state.mode = "";
      this.say(`${ref[1]} cannot be compared: ${error.message}`);
    }
    this.mode.value = this.state.mode;
  }

  check() {
    const [a, b] = [this.finest, this.second.image.levels[0]];
    if (`${a.shape}` === `${b.shape}` && a.dtype === b.dtype) return true;
    this.state.mode = "side";
    this.say(
      `a difference needs images of one shape and type: ${this.second.place[2]} has ${shapeText(b.shape)} ${b.dtype}`,
    );
    return false;
  }

  async setMode(mode) {
    const said = this.other.value.trim();
    if (mode && !said) {
      this.mode.value = "";
      return this.other.focus();
    }
    if (mode) await this.compare(placeOf(this.snapshot[0], this.facts, said).slice(1), mode);
    else this.state.mode = "";
    this.layPanes();
    this.refresh();
  }

  say(text) {
    this.said.textContent = text;
    this.said.hidden = !text;
  }

  // -- panes ---------------------------------------------------------------------------------------------------------

  layPanes() {
    const { mode } = this.state;
    const versions =
      mode === "side"
        ? [this.second, { place: this.snapshot, image: this.image }]
        : [{ place: this.snapshot, image: this.image }];
    this.panes = versions.map(({ place, image }) => ({ place, image, before: mode === "diff" ? this.second : null }));
    this.stage.classList.toggle("two", this.panes.length > 1);
    this.stage.replaceChildren(
      ...this.panes.map((pane) => {
        const title = pane.before ? `${pane.before.place[2]} → ${pane.place[2]}` : pane.place[2];
        pane.canvas = make("canvas", {
          tabindex: "0",
          role: "img",
          "aria-label": `slice of ${title}; ? tells the keys`,
          "aria-describedby": "readout",
          keydown: (event) => this.key(event),
          wheel: (event) => this.wheel(event, pane),
          pointerdown: (event) => this.grab(event, pane),
          pointermove: (event) => this.point(event, pane),
          pointerleave: () => this.showReadout(null),
        });
        return make(
          "figure",
          {},
          pane.canvas,
          make(
            "figcaption",
            {},
            title,
            pane.before ? make("span", { class: "dim" }, " orange: grown, other label; blue: shrunk, no label") : null,
          ),
        );
      }),
    );
    this.readout.id = "readout";
    this.mode.value = mode;
    this.resized();
  }

  resized() {
    const ratio = window.devicePixelRatio || 1;
    let any = false;
    for (const { canvas } of this.panes) {
      const box = canvas.getBoundingClientRect();
      if (!box.width || !box.height) continue;
      any = true;
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
    }
    if (!any) return;
    if (this.state.zoom === null) this.fit();
    else {
      this.state.x ??= this.span.width / 2;
      this.state.y ??= this.span.height / 2;
      this.refresh();
    }
  }

  /** Voxels of the plane of the finest level, and how long one is along each side of the screen. */
  get span() {
    const { finest, geometry, state } = this;
    const [across, down] = [geometry.across(state.plane), geometry.down(state.plane)];
    let [sx, sy] = [finest.voxel_size[across], finest.voxel_size[down]];
    if (finest.units[across] !== finest.units[down] || !(sx > 0 && sy > 0)) [sx, sy] = [1, 1];
    const least = Math.min(sx, sy);
    return { across, down, width: finest.shape[across], height: finest.shape[down], sx: sx / least, sy: sy / least };
  }

  fit() {
    const {
      span,
      panes: [pane],
    } = this;
    if (!pane?.canvas.width) return;
    const zoom = Math.min(pane.canvas.width / (span.width * span.sx), pane.canvas.height / (span.height * span.sy));
    Object.assign(this.state, { zoom: zoom >= 2 ? Math.floor(zoom) : zoom, x: span.width / 2, y: span.height / 2 });
    this.refresh();
  }

  zoomTo(zoom, x = this.state.x, y = this.state.y) {
    const before = this.state.zoom;
    const next = Math.min(NEAREST, Math.max(FURTHEST, zoom));
    this.state.x = x + (this.state.x - x) * (before / next);
    this.state.y = y + (this.state.y - y) * (before / next);
    this.state.zoom = next;
    this.refresh();
  }

  zoomBy(factor, x, y) {
    this.zoomTo(this.state.zoom * factor, x, y);
  }

  moveBy(x, y) {
    const { span, state } = this;
    state.x = Math.min(span.width, Math.max(0, state.x + x / (state.zoom * span.sx)));
    state.y = Math.min(span.height, Math.max(0, state.y + y / (state.zoom * span.sy)));
    this.refresh();
  }

  // -- what is drawn -------------------------------------------------------------------------------------------------

  /** How many voxels of the finest level one of a level is long, along an axis. */
  factor(level, axis) {
    const [size, finest] = [level.voxel_size[axis], this.finest.voxel_size[axis]];
    if (size > 0 && finest > 0) return size / finest;
    return Math.max(1, Math.round(this.finest.shape[axis] / level.shape[axis]));
  }

  /** The index of the plane that is shown, for each axis of a level. */
  indices(level) {
    const at = { ...this.state.at };
    for (const axis of Object.values(this.geometry.axis)) {
      if (axis !== null) at[axis] = Math.min(level.shape[axis] - 1, Math.floor(at[axis] / this.factor(level, axis)));
    }
    for (const other of this.geometry.others) at[other.axis] = Math.min(level.shape[other.axis] - 1, at[other.axis]);
    return at;
  }

  /** The level whose voxels are as large as the screen's, or a little smaller. */
  levelNow(image) {
    const named = image.levels.findIndex((level) => level.name === this.state.level);
    if (named >= 0) return named;
    const { span, state } = this;
    const fits = (level) =>
      [
        [span.across, span.sx],
        [span.down, span.sy],
      ].every(([axis, side]) => {
        const long = this.factor(level, axis);
        return long <= 1 || long * side * state.zoom <= 1.01;
      });
    let found = 0;
    image.levels.forEach((level, at) => {
      if (fits(level)) found = at;
    });
    return found;
  }

  wanted(place, level, at, plane, rows, columns) {
    const names = [...place, ...level.place];
    const { geometry } = this;
    const name = geometry.cutout(plane, at, rows, columns);
    const all = [...names, "cutout", name];
    return { key: path(all), names: all, rows: rows[1] - rows[0], columns: columns[1] - columns[0] };
  }

  /** The tiles of a level that a canvas shows, the middle ones first. */
  visible(pane, place, level) {
    const { span, state } = this;
    const [fx, fy] = [this.factor(level, span.across), this.factor(level, span.down)];
    const [stepX, stepY] = [TILE * fx, TILE * fy];
    const [halfX, halfY] = [
      pane.canvas.width / 2 / (state.zoom * span.sx),
      pane.canvas.height / 2 / (state.zoom * span.sy),
    ];
    const at = this.indices(level);
    const [width, height] = [level.shape[span.across], level.shape[span.down]];
    const found = [];
    const range = (middle, half, step, count) => [
      Math.max(0, Math.floor((middle - half) / step)),
      Math.min(Math.ceil(count / TILE), Math.ceil((middle + half) / step)),
    ];
    const [firstRow, lastRow] = range(state.y, halfY, stepY, height);
    const [firstColumn, lastColumn] = range(state.x, halfX, stepX, width);
    if ((lastRow - firstRow) * (lastColumn - firstColumn) > MOST_TILES) return null;
    for (let row = firstRow; row < lastRow; row += 1) {
      for (let column = firstColumn; column < lastColumn; column += 1) {
        const rows = [row * TILE, Math.min(height, (row + 1) * TILE)];
        const columns = [column * TILE, Math.min(width, (column + 1) * TILE)];
        const far = Math.hypot((column + 0.5) * stepX - state.x, (row + 0.5) * stepY - state.y);
        found.push({
          ...this.wanted(place, level, at, state.plane, rows, columns),
          x: columns[0] * fx,
          y: rows[0] * fy,
          fx,
          fy,
          far,
        });
      }
    }
    return found.sort((a, b) => a.far - b.far);
  }

  refresh() {
    if (!this.panes.length || this.state.zoom === null) return;
    const wanted = [];
    let many = false;
    for (const pane of this.panes) {
      pane.layers = [];
      pane.canvas.dataset.state = "loading";
      const now = this.levelNow(pane.image);
      for (let at = now; at < pane.image.levels.length; at += 1) {
        const tiles = this.visible(pane, pane.place, pane.image.levels[at]);
        const earlier = pane.before
          ? this.visible(pane, pane.before.place, pane.before.image.levels[at] ?? pane.image.levels[at])
          : null;
        if (tiles === null) {
          many = true;
          continue;
        }
        if (at === now) wanted.push(...tiles, ...(earlier ?? []));
        pane.layers.unshift({ tiles, earlier });
      }
      pane.level = pane.image.levels[now];
    }
    this.say(
      many
        ? "Come nearer: the image has no coarser level for so large a part."
        : this.said.hidden || this.said.textContent.startsWith("Come nearer")
          ? ""
          : this.said.textContent,
    );
    this.tiles.want(wanted, () => this.schedule());
    this.schedule();
    this.remember();
    this.showLinks();
  }

  repaint() {
    this.pictures.clear();
    this.schedule();
    this.remember();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      if (!this.signal.aborted) for (const pane of this.panes) this.draw(pane);
    });
  }

  picture(tile, key, earlier) {
    const name = earlier ? `${earlier.key} ${key}` : key;
    let made = this.pictures.get(name);
    if (!made) {
      const before = earlier ? this.tiles.have(earlier.key) : null;
      if (earlier && (!before || before.error)) return null;
      made = new OffscreenCanvas(tile.columns, tile.rows);
      made
        .getContext("2d")
        .putImageData(earlier ? paintDifference(before, tile, this.look) : paint(tile, this.look), 0, 0);
      this.pictures.set(name, made);
      if (this.pictures.size > 2 * MOST_TILES) this.pictures.delete(this.pictures.keys().next().value);
    }
    return made;
  }

  draw(pane) {
    const { canvas, layers } = pane;
    if (!layers || !canvas.width) return;
    const { span, state } = this;
    const [zx, zy] = [state.zoom * span.sx, state.zoom * span.sy];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const left = Math.round(canvas.width / 2 - state.x * zx);
    const top = Math.round(canvas.height / 2 - state.y * zy);
    let missing = 0;
    let error = null;
    layers.forEach(({ tiles, earlier }, at) => {
      tiles.forEach((wanted, number) => {
        const tile = this.tiles.have(wanted.key);
        const before = earlier?.[number];
        if (tile?.error) error = tile.error;
        const picture = tile && !tile.error ? this.picture(tile, wanted.key, before) : null;
        if (!picture) {
          if (at === layers.length - 1 && !tile?.error) missing += 1;
          return;
        }
        const [x, y] = [Math.round(left + wanted.x * zx), Math.round(top + wanted.y * zy)];
        const [right, bottom] = [
          Math.round(left + (wanted.x + wanted.columns * wanted.fx) * zx),
          Math.round(top + (wanted.y + wanted.rows * wanted.fy) * zy),
        ];
        context.imageSmoothingEnabled = !this.labels && right - x < wanted.columns;
        context.imageSmoothingQuality = "high";
        context.drawImage(picture, x, y, right - x, bottom - y);
      });
    });
    if (error) this.say(error.message);
    Object.assign(canvas.dataset, {
      state: missing ? "loading" : "ready",
      left,
      top,
      zoom: state.zoom,
      level: pane.level.name || "s0",
    });
    canvas.setAttribute("aria-busy", String(missing > 0));
    this.showReadout(this.pointed);
  }

  // -- pointer and keys ----------------------------------------------------------------------------------------------

  /** The voxel of the finest level at a place on a canvas. */
  voxelAt(event, { canvas }) {
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    const { span, state } = this;
    const x =
      ((event.clientX - box.left) * ratio - Math.round(canvas.width / 2 - state.x * state.zoom * span.sx)) /
      (state.zoom * span.sx);
    const y =
      ((event.clientY - box.top) * ratio - Math.round(canvas.height / 2 - state.y * state.zoom * span.sy)) /
      (state.zoom * span.sy);
    return { x, y, inside: x >= 0 && y >= 0 && x < span.width && y < span.height };
  }

  wheel(event, pane) {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey || (event.shiftKey === false && event.altKey)) {
      const { x, y } = this.voxelAt(event, pane);
      return this.zoomBy(Math.exp(-event.deltaY / 300), x, y);
    }
    if (event.shiftKey && this.through !== null)
      return this.setIndex(this.through, this.state.at[this.through] + Math.sign(event.deltaY || event.deltaX));
    const { x, y } = this.voxelAt(event, pane);
    this.zoomBy(Math.exp(-event.deltaY / 400), x, y);
  }

  grab(event, pane) {
    if (event.button !== 0) return;
    pane.canvas.setPointerCapture(event.pointerId);
    this.dragged = { x: event.clientX, y: event.clientY };
    pane.canvas.addEventListener("pointerup", () => (this.dragged = null), { once: true });
    pane.canvas.addEventListener("pointercancel", () => (this.dragged = null), { once: true });
  }

  point(event, pane) {
    if (this.dragged) {
      const ratio = window.devicePixelRatio || 1;
      this.moveBy((this.dragged.x - event.clientX) * ratio, (this.dragged.y - event.clientY) * ratio);
      this.dragged = { x: event.clientX, y: event.clientY };
    }
    this.showReadout({ ...this.voxelAt(event, pane), pane });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { state, geometry } = this;
    const step = event.shiftKey ? 200 : 40;
    const slice = (by) =>
      this.through !== null && this.setIndex(this.through, state.at[this.through] + by * (event.shiftKey ? 10 : 1));
    const along = (name, by) => {
      const other = geometry.others.find((each) => each.name === name);
      if (other) this.setIndex(other.axis, state.at[other.axis] + by);
    };
    const acts = {
      ArrowLeft: () => this.moveBy(-step, 0),
      ArrowRight: () => this.moveBy(step, 0),
      ArrowUp: () => this.moveBy(0, -step),
      ArrowDown: () => this.moveBy(0, step),
      PageUp: () => slice(-1),
      PageDown: () => slice(1),
      ",": () => slice(-1),
      ".": () => slice(1),
      "<": () => slice(-1),
      ">": () => slice(1),
      "+": () => this.zoomBy(1.5),
      "=": () => this.zoomBy(1.5),
      "-": () => this.zoomBy(1 / 1.5),
      0: () => this.fit(),
      1: () => this.zoomTo(1),
      p: () => this.setPlane(geometry.planes[(geometry.planes.indexOf(state.plane) + 1) % geometry.planes.length]),
      c: () => along("c", 1),
      C: () => along("c", -1),
      t: () => along("t", 1),
      T: () => along("t", -1),
      a: () => this.autoWindow(),
      d: () =>
        this.other.value.trim()
          ? this.setMode({ "": "diff", diff: "side", side: "" }[state.mode]).then(() => this.panes[0].canvas.focus())
          : this.other.focus(),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  showReadout(pointed) {
    this.pointed = pointed;
    const { geometry, state, span } = this;
    const parts = [];
    const axes = Object.entries(geometry.axis).filter(([, axis]) => axis !== null);
    const { pane } = pointed ?? {};
    const here = pointed?.inside
      ? { ...state.at, [span.across]: Math.floor(pointed.x), [span.down]: Math.floor(pointed.y) }
      : null;
    if (here) {
      parts.push(axes.map(([name, axis]) => `${name} ${here[axis]}`).join("  "));
      const value = this.valueAt(pane, pointed);
      if (value !== null) parts.push(`value ${value}`);
    } else if (this.through !== null) {
      const [name] = axes.find(([, axis]) => axis === this.through);
      parts.push(`${name} ${state.at[this.through]} of ${this.finest.shape[this.through]}`);
    }
    const level = this.panes[0]?.level;
    if (level) parts.push(`level ${level.name || "s0"}`, `${Number((state.zoom * 100).toPrecision(3))} %`);
    this.readout.textContent = parts.join("  ·  ");
  }

  /** The voxel under the pointer, of the level that is shown there. */
  valueAt(pane, { x, y }) {
    if (!pane.layers?.length) return null;
    const { tiles, earlier } = pane.layers[pane.layers.length - 1];
    const of = (list) => {
      for (const wanted of list ?? []) {
        const [column, row] = [Math.floor((x - wanted.x) / wanted.fx), Math.floor((y - wanted.y) / wanted.fy)];
        const tile =
          row >= 0 && column >= 0 && row < wanted.rows && column < wanted.columns ? this.tiles.have(wanted.key) : null;
        if (tile && !tile.error) return exact(tile, row * tile.columns + column);
      }
      return null;
    };
    const [now, before] = [of(tiles), of(earlier)];
    return before === null ? now : `${before} → ${now}`;
  }

  // -- the address, and links to what is shown -----------------------------------------------------------------------

  remember() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => {
      if (this.signal.aborted || this.state.zoom === null) return;
      const { state, geometry } = this;
      const query = { plane: state.plane };
      if (this.through !== null) query.at = state.at[this.through];
      for (const other of geometry.others) query[other.name] = state.at[other.axis];
      if (!this.labels) Object.assign(query, { low: state.low, high: state.high });
      Object.assign(query, {
        zoom: Number(state.zoom.toPrecision(5)),
        x: Math.round(state.x * 10) / 10,
        y: Math.round(state.y * 10) / 10,
      });
      if (state.level !== "auto") query.level = state.level;
      if (state.mode) Object.assign(query, { with: this.second.place.slice(1).join("/"), mode: state.mode });
      history.replaceState(null, "", address([...this.snapshot, "view", ...this.here], query));
    }, 200);
  }

  showLinks() {
    const level = this.panes[0].level;
    const { state, geometry, finest } = this;
    const at = this.indices(level);
    const folders = geometry.folders(at);
    const stem = geometry.stem(state.plane, at, level);
    const folder = [...this.snapshot, ...level.place, ...folders, state.plane];
    const preview = [...this.snapshot, ...level.place, ...folders, "preview", state.plane, `${stem}.png`];
    const saved = [this.snapshot[0], ...this.here, this.snapshot[2], level.name, stem].filter(Boolean).join("-");
    const exactPng = /^(uint8|uint16|bool)$/.test(finest.dtype);
    const file = (ending) =>
      make(
        "a",
        { class: "button small", href: url([...folder, `${stem}${ending}`]), download: `${saved}${ending}` },
        ending.slice(1),
      );
    this.links.replaceChildren(
      "This slice as ",
      ...(exactPng ? [file(".png"), " "] : []),
      file(".tif"),
      " ",
      file(".npy"),
      " ",
      make("a", { class: "button small", href: url(preview), download: `${saved}-preview.png` }, "8-bit png"),
      " ",
      copying("copy path", path(folder, `${stem}${exactPng ? ".png" : ".tif"}`)),
    );
  }
}
