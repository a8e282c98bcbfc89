// The history of a dataset as a list with a graph: any number of versions, of which only those in view are elements.

import { draw, link, make, tell, when } from "./elements.js";
import { address } from "./tree.js";

const ROW = 52;
const LANE = 16;
const WIDEST = 160;
const COLOURS = 8;
const MARGIN = 6;

/** Where each version stands, and which lines pass it: a first parent keeps its child's lane.
 *  Versions come newest first; of each: lane, and lines [from lane, to lane, colour] in its lower and upper half. */
export function lanes(versions) {
  const open = []; // by lane: the version that the line leads down to
  let widest = 1;
  const free = () => {
    const at = open.indexOf(null);
    return at < 0 ? open.push(null) - 1 : at;
  };
  const there = new Set(versions.map((version) => version.number));
  const rows = versions.map((version) => {
    let lane = open.indexOf(version.number);
    if (lane < 0) lane = free();
    const upper = [];
    open.forEach((target, at) => {
      if (target === null) return;
      upper.push([at, target === version.number ? lane : at, at]);
      if (target === version.number && at !== lane) open[at] = null;
    });
    open[lane] = null;
    const lower = [];
    const before = open.map((target, at) => [target, at]).filter(([target]) => target !== null);
    version.parents
      .filter((parent) => there.has(parent))
      .forEach((parent, order) => {
        let to = order === 0 ? lane : open.indexOf(parent);
        if (to < 0) to = free();
        open[to] = parent;
        lower.push([lane, to, to]);
      });
    for (const [, at] of before) lower.push([at, at, at]);
    widest = Math.max(widest, open.length);
    while (open.length && open[open.length - 1] === null) open.pop();
    return { lane, upper, lower };
  });
  return { rows, widest };
}

/** The list of versions. `refs` gives the branches and tags of each number. */
export function history(dataset, versions, refs) {
  const graph = lanes(versions);
  const step = Math.min(LANE, WIDEST / graph.widest);
  const width = Math.ceil(step * graph.widest) + 8;
  const place = new Map(versions.map((version, at) => [version.number, at]));
  let shown = versions;
  let active = 0;
  const drawn = new Map();

  const rows = make("ol", { class: "rows" });
  const box = make("div", { class: "history", tabindex: "-1", scroll: paint, keydown: move }, rows);
  const found = make("span", { class: "found" });
  const field = make("input", {
    type: "search",
    placeholder: "Filter: message, author, version, branch, tag",
    "aria-label": "Filter versions",
    input: filter,
  });
  const whole = make("div", { class: "history-frame" }, make("div", { class: "filter" }, field, found), box);

  const centre = (lane) => 6 + lane * step + step / 2;

  function lines(at) {
    const { lane, upper, lower } = graph.rows[at];
    const half = ROW / 2;
    const path = (from, to, top) => {
      const [a, b, y] = [centre(from), centre(to), top ? 0 : half];
      return a === b
        ? `M${a} ${y}v${half}`
        : `M${a} ${y}C${a} ${y + half * 0.6} ${b} ${y + half * 0.4} ${b} ${y + half}`;
    };
    const stroke = (half_lines, top) =>
      half_lines.map(([from, to, colour]) =>
        draw("path", { d: path(from, to, top), class: `lane lane-${colour % COLOURS}` }),
      );
    return draw(
      "svg",
      { width, height: ROW, class: "graph", "aria-hidden": "true" },
      stroke(upper, true),
      stroke(lower, false),
      draw("circle", { cx: centre(lane), cy: half, r: 5, class: `dot lane-${lane % COLOURS}` }),
    );
  }

  function row(at) {
    const version = shown[at];
    const dropped = version.names.includes("dropped");
    const [subject] = version.message.split("\n");
    const badges = refs.get(version.number) ?? [];
    const merged =
      version.parents.length > 1
        ? `merges ${version.parents
            .slice(1)
            .map((n) => `v${n}`)
            .join(", ")}`
        : null;
    const goal = address([dataset, "versions", `v${version.number}`]);
    const name = dropped
      ? make("span", { class: "name" }, `v${version.number}`)
      : make(
          "a",
          { class: "name", href: goal, tabindex: at === active ? "0" : "-1", focus: () => (active = at) },
          `v${version.number}`,
        );
    const item = make(
      "li",
      { "aria-setsize": shown.length, "aria-posinset": at + 1, class: dropped ? "row dropped" : "row" },
      shown === versions ? lines(place.get(version.number)) : null,
      make(
        "div",
        { class: "said" },
        make(
          "div",
          { class: "first" },
          name,
          badges.map(({ kind, name: ref, to }) =>
            link(to, make("span", { class: `badge ${kind}`, title: `${kind} ${ref}` }, ref)),
          ),
          dropped ? make("span", { class: "badge dropped" }, "dropped") : null,
          make("span", { class: "subject" }, subject),
        ),
        make("div", { class: "second" }, version.author, " · ", when(version.time), merged ? ` · ${merged}` : null),
      ),
    );
    item.style.transform = `translateY(${at * ROW}px)`;
    return item;
  }

  function paint() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN);
    const last = Math.min(shown.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + MARGIN);
    const keep = active >= 0 && active < shown.length ? active : -1;
    for (const [at, item] of drawn) {
      if ((at < first || at >= last) && at !== keep) {
        item.remove();
        drawn.delete(at);
      }
    }
    for (let at = first; at < last; at += 1) if (!drawn.has(at)) add(at);
    if (keep >= 0 && !drawn.has(keep)) add(keep);
  }

  function add(at) {
    const item = row(at);
    drawn.set(at, item);
    const after = [...drawn.keys()].filter((other) => other > at);
    rows.insertBefore(item, after.length ? drawn.get(Math.min(...after)) : null);
  }

  function show(list) {
    shown = list;
    active = 0;
    for (const item of drawn.values()) item.remove();
    drawn.clear();
    rows.style.height = `${shown.length * ROW}px`;
    box.scrollTop = 0;
    found.textContent = shown === versions ? "" : `${shown.length} of ${versions.length}`;
    paint();
  }

  function filter() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return show(versions);
    show(
      versions.filter((version) => {
        const names = (refs.get(version.number) ?? []).map((ref) => ref.name);
        const all = `v${version.number} ${version.message} ${version.author} ${names.join(" ")}`.toLowerCase();
        return words.every((word) => all.includes(word));
      }),
    );
    tell(`${shown.length} versions`);
  }

  function move(event) {
    const page = Math.max(1, Math.floor(box.clientHeight / ROW) - 1);
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey || !shown.length) return;
    event.preventDefault();
    const before = active;
    active = Math.min(shown.length - 1, Math.max(0, active + by));
    const top = active * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
    for (const at of [before, active]) {
      drawn.get(at)?.remove();
      drawn.delete(at);
    }
    paint();
    drawn.get(active)?.querySelector("a, .name")?.focus({ preventScroll: true });
  }

  rows.style.height = `${versions.length * ROW}px`;
  new ResizeObserver(paint).observe(box);
  return whole;
}
