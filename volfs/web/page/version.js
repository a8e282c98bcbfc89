// A version or a branch: who made it, what changed, and its images with all that can be done with them.

import { copying, count, failed, link, make, shapeText, size, voxelSize, waiting, when } from "./elements.js";
import { thumbnail } from "./datasets.js";
import { layersOf, neuroglancer } from "./neuroglancer.js";
import { address, images, json, list, path, placeOf, text, url } from "./tree.js";

export async function versionView(main, [dataset, kind, ref], signal) {
  const place = [dataset, kind, ref];
  const branch = kind === "branches";
  const [facts, status] = await Promise.all([
    json([dataset, "dataset.json"], signal),
    branch ? json([...place, ".volfs", "status.json"], signal) : null,
  ]);
  const version = branch ? status.head : ref;
  const about = version ? await json([dataset, "versions", version, "version.json"], signal) : null;
  if (about && !branch && about.version !== ref) {
    // an expression: go to the version that it means
    location.replace(address([dataset, "versions", about.version]));
    return;
  }
  const named = [
    ...Object.entries(facts.branches)
      .filter(([, at]) => at === about?.version)
      .map(([name]) => badge("branch", name, [dataset, "branches", name])),
    ...Object.entries(facts.tags)
      .filter(([, at]) => at === about?.version)
      .map(([name]) => badge("tag", name, [dataset, "versions", facts.tags[name]])),
  ];
  const [subject, ...rest] = (about?.message ?? "").split("\n");
  const changes = branch ? status.changes : about.changes;
  const parent = branch ? about?.version : about.parents[0];
  main.append(
    make(
      "div",
      { class: "title" },
      about ? make("div", { class: "picture little" }, thumbnail([...place, "thumbnail.png"])) : null,
      make(
        "div",
        {},
        make("h1", { tabindex: "-1" }, branch ? `Branch ${ref}` : ref, " ", named),
        about
          ? make(
              "p",
              { class: "subject" },
              branch ? ["at ", link(address([dataset, "versions", about.version]), about.version), ": "] : null,
              subject || "(no message)",
            )
          : make("p", {}, "no version yet"),
        rest.some((line) => line.trim()) ? make("pre", { class: "message" }, rest.join("\n").trim()) : null,
        about
          ? make(
              "p",
              { class: "dim" },
              about.author,
              " · ",
              when(about.time),
              " · ",
              about.parents.length
                ? [
                    "parents ",
                    about.parents.map((each, at) => [at ? ", " : "", link(address([dataset, "versions", each]), each)]),
                  ]
                : "no parent",
            )
          : null,
        make(
          "p",
          { class: "actions" },
          copying("copy path", path(place)),
          copying("copy URL", url(place)),
          make("a", { class: "button small", href: `${url(place)}/` }, "plain listing"),
          about ? copying("copy content id", about.content_id) : null,
        ),
        about?.meta
          ? make(
              "dl",
              { class: "meta" },
              Object.entries(about.meta).map(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]),
            )
          : null,
      ),
    ),
  );
  if (!about) return;

  const shown = make("section", {}, make("h2", {}, "Images"), waiting());
  main.append(
    make(
      "div",
      { class: "columns" },
      shown,
      make("aside", {}, changed(dataset, facts, place, branch ? "uncommitted" : "version", changes, parent, signal)),
    ),
  );
  try {
    const found = await images(place, signal);
    shown.lastChild.remove();
    if (found.length > 1)
      shown.append(make("p", { class: "actions" }, neuroglancer("all in Neuroglancer", layersOf(place, found))));
    shown.append(
      found.length
        ? make(
            "ul",
            { class: "images" },
            found.map((image) => card(place, image, signal)),
          )
        : make("p", {}, "There are none."),
    );
  } catch (error) {
    if (error.name === "AbortError") throw error;
    shown.lastChild.replaceWith(failed(error));
  }
}

const badge = (kind, name, to) => link(address(to), make("span", { class: `badge ${kind}` }, name));

function card(place, image, signal) {
  const [finest] = image.levels;
  const name = image.path.length ? path(image.path) : place[0];
  const view = address([...place, "view", ...image.path]);
  const several = image.levels.length > 1;
  return make(
    "li",
    { class: "image" },
    make(
      "a",
      { class: "picture", href: view, tabindex: "-1", "aria-hidden": "true" },
      image.thumbnail || !image.path.length
        ? thumbnail([...place, ...image.path, "thumbnail.png"], "", image.kind === "labels")
        : make("span", { class: "no-picture" }, "no picture"),
    ),
    make(
      "div",
      { class: "about" },
      make(
        "h3",
        {},
        link(view, name),
        image.kind === "labels" ? make("span", { class: "badge labels" }, "labels") : null,
      ),
      make("p", {}, [finest.axes.join(" "), shapeText(finest.shape), finest.dtype, voxelSize(finest)].join(" · ")),
      several
        ? make(
            "details",
            {},
            make("summary", {}, count(image.levels.length, "level")),
            make(
              "table",
              {},
              make(
                "thead",
                {},
                make(
                  "tr",
                  {},
                  ["level", "shape", "voxel size", "chunks"].map((head) => make("th", { scope: "col" }, head)),
                ),
              ),
              make(
                "tbody",
                {},
                image.levels.map((level) =>
                  make(
                    "tr",
                    {},
                    make("th", { scope: "row" }, level.name),
                    make("td", {}, shapeText(level.shape)),
                    make("td", {}, voxelSize(level)),
                    make("td", {}, shapeText(level.chunk_shape)),
                  ),
                ),
              ),
            ),
          )
        : null,
      make(
        "p",
        { class: "actions" },
        make("a", { class: "button", href: view }, "View slices"),
        neuroglancer("Neuroglancer", layersOf(place, [image])),
        copying("copy path", path(place, image.path)),
      ),
      downloads(place, image, signal),
    ),
  );
}

/** Every file of a level, and every directory format, listed when somebody looks. */
function downloads(place, image, signal) {
  const files = make("div", { class: "downloads" });
  const box = make(
    "details",
    { toggle: () => box.open && !files.childElementCount && fill(image.levels[0]) },
    make("summary", {}, "Download as…"),
    files,
  );

  async function fill(level) {
    files.replaceChildren(waiting());
    try {
      const entries = await list([...place, ...level.place], signal);
      const formats = await list([...place, ...image.path, "formats"], signal).catch(() => []);
      const saved = [place[0], ...image.path, place[2], level.name].filter(Boolean).join("-");
      const choice =
        image.levels.length > 1
          ? make(
              "label",
              {},
              "level ",
              make(
                "select",
                { change: (event) => fill(image.levels[event.target.selectedIndex]) },
                image.levels.map((each) => make("option", { selected: each === level }, each.name)),
              ),
            )
          : null;
      const volumes = entries.filter((entry) => entry.type === "file" && entry.name.startsWith("volume."));
      files.replaceChildren(
        ...[
          choice,
          make(
            "ul",
            { class: "files" },
            volumes.map((entry) =>
              make(
                "li",
                {},
                make(
                  "a",
                  { href: url(place, level.place, entry.name), download: `${saved}${entry.name.slice(6)}` },
                  entry.name.slice(6),
                ),
                make("span", { class: "dim" }, ` ${size(entry.size)}`),
              ),
            ),
          ),
          formats.length ? make("p", { class: "dim" }, "Directories, for programs that open a URL:") : null,
          make(
            "ul",
            { class: "files" },
            formats.map((entry) =>
              make(
                "li",
                {},
                entry.type === "directory"
                  ? [
                      make("a", { href: `${url(place, image.path, "formats", entry.name)}/` }, `${entry.name}/`),
                      " ",
                      copying("copy URL", `${url(place, image.path, "formats", entry.name)}/`),
                    ]
                  : make(
                      "a",
                      { href: url(place, image.path, "formats", entry.name), download: entry.name },
                      entry.name,
                    ),
              ),
            ),
          ),
          make(
            "p",
            { class: "dim" },
            "Single slices and boxes: in the slice viewer, or by name, as ",
            make("code", {}, "cutout/z0-64_y0-512_x0-512.tif"),
            ".",
          ),
        ].filter(Boolean),
      );
    } catch (error) {
      if (error.name !== "AbortError") files.replaceChildren(failed(error));
    }
  }
  return box;
}

function changed(dataset, facts, place, what, changes, parent, signal) {
  const box = make("section", {}, make("h2", {}, what === "uncommitted" ? "Not committed" : "What changed"));
  if (changes.length) {
    box.append(
      make(
        "table",
        { class: "changes" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            ["where", "put", "removed", "size"].map((head) => make("th", { scope: "col" }, head)),
          ),
        ),
        make(
          "tbody",
          {},
          changes.map((each) =>
            make(
              "tr",
              {},
              make("th", { scope: "row" }, each.path),
              make("td", {}, each.put),
              make("td", {}, each.removed),
              make("td", {}, size(each.bytes)),
            ),
          ),
        ),
      ),
    );
  } else box.append(make("p", { class: "dim" }, what === "uncommitted" ? "nothing" : "no keys"));

  const field = make("input", {
    value: parent ?? "",
    list: "refs",
    "aria-label": "Version to compare with",
    placeholder: "v3, main~2, a tag",
  });
  const options = make(
    "datalist",
    { id: "refs" },
    [...Object.keys(facts.branches), ...Object.keys(facts.tags)].map((name) => make("option", { value: name })),
  );
  const lines = make("div", { class: "lines" });
  const form = make(
    "form",
    { class: "compare", submit: compare },
    make("label", {}, "Compare with ", field),
    options,
    make("button", { name: "see" }, "side by side"),
    make("button", { name: "difference", type: "button", click: () => see("diff") }, "difference"),
    what === "version" ? make("button", { type: "button", click: tellChanges }, "as text") : null,
  );
  box.append(form, lines);

  function compare(event) {
    event.preventDefault();
    see("side");
  }
  function see(mode) {
    const other = placeOf(dataset, facts, field.value);
    if (!field.value.trim()) return field.focus();
    location.hash = address([...place, "view"], { with: other.slice(1).join("/"), mode });
  }
  async function tellChanges() {
    if (!field.value.trim()) return field.focus();
    lines.replaceChildren(waiting());
    try {
      const other = placeOf(dataset, facts, field.value);
      const pair = `${other[1] === "branches" ? facts.branches[other[2]] : other[2]}..${place[2]}`;
      const told = await text([dataset, "diffs", pair, "changed.txt"], signal);
      lines.replaceChildren(make("pre", { class: "message" }, told || "nothing differs\n"));
    } catch (error) {
      if (error.name !== "AbortError") lines.replaceChildren(failed(error));
    }
  }
  return box;
}
