// A dataset: its history, branches, tags, and the images that the default branch has.

import { copying, count, link, make, when } from "./elements.js";
import { history } from "./history.js";
import { thumbnail } from "./datasets.js";
import { address, json, parseLog, path, text } from "./tree.js";

export async function datasetView(main, [dataset], signal) {
  const [facts, log] = await Promise.all([json([dataset, "dataset.json"], signal), text([dataset, "log.txt"], signal)]);
  const versions = parseLog(log);
  const refs = new Map();
  const note = (number, ref) => refs.set(number, [...(refs.get(number) ?? []), ref]);
  for (const [name, version] of Object.entries(facts.branches)) {
    if (version) note(Number(version.slice(1)), { kind: "branch", name, to: address([dataset, "branches", name]) });
  }
  for (const [name, version] of Object.entries(facts.tags)) {
    note(Number(version.slice(1)), { kind: "tag", name, to: address([dataset, "versions", version]) });
  }
  const branches = Object.entries(facts.branches).map(([name, version]) =>
    make(
      "li",
      {},
      link(address([dataset, "branches", name]), make("span", { class: "badge branch" }, name)),
      name === facts.default_branch ? make("span", { class: "dim" }, "default ") : null,
      make("span", { class: "dim" }, `at ${version ?? "no version yet"}`),
    ),
  );
  const tags = Object.entries(facts.tags).map(([name, version]) =>
    make(
      "li",
      {},
      link(address([dataset, "versions", version]), make("span", { class: "badge tag" }, name)),
      make("span", { class: "dim" }, `at ${version}`),
    ),
  );
  const images = facts.images.map((image) =>
    make(
      "li",
      {},
      link(
        address([dataset, "branches", facts.default_branch, "view", ...image.path.split("/").filter(Boolean)]),
        image.path || dataset,
      ),
      make(
        "span",
        { class: "dim" },
        ` ${image.kind === "labels" ? "labels, " : ""}${image.dtype}, ${image.shape.join(" × ")}`,
      ),
    ),
  );
  const begun = facts.latest !== null;
  main.append(
    make(
      "div",
      { class: "title" },
      begun
        ? make(
            "div",
            { class: "picture little" },
            thumbnail([dataset, "branches", facts.default_branch, "thumbnail.png"]),
          )
        : null,
      make(
        "div",
        {},
        make("h1", { tabindex: "-1" }, dataset),
        make(
          "p",
          { class: "lead" },
          count(versions.length, "version"),
          begun ? [", the newest ", when(facts.latest_time)] : null,
        ),
        make(
          "p",
          { class: "actions" },
          copying("copy path", path(dataset)),
          make("a", { class: "button small", href: plain(dataset) }, "plain listing"),
        ),
      ),
    ),
    make(
      "div",
      { class: "columns" },
      make(
        "section",
        { "aria-labelledby": "history" },
        make("h2", { id: "history" }, "History"),
        versions.length ? history(dataset, versions, refs) : make("p", {}, "Nothing has been committed yet."),
      ),
      make("aside", {}, section("Branches", branches), section("Tags", tags), section("Images", images)),
    ),
  );
}

const section = (title, items) =>
  make(
    "section",
    {},
    make("h2", {}, title),
    items.length ? make("ul", { class: "plain" }, items) : make("p", { class: "dim" }, "none"),
  );

const plain = (dataset) => `${new URL("../../", import.meta.url).href}${encodeURIComponent(dataset)}/`;
