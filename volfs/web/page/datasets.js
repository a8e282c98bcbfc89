// What a store holds: a card for each dataset, with its thumbnail.

import { count, failed, link, make, shapeText, voxelSize, when } from "./elements.js";
import { address, json, list, url } from "./tree.js";

export async function datasetsView(main, none, signal) {
  const entries = await list([], signal);
  const names = entries
    .filter((entry) => entry.type === "directory" && entry.name !== ".volfs")
    .map((entry) => entry.name);
  const cards = make("ul", { class: "cards" });
  const found = make("span", { class: "found" });
  const field = make("input", {
    type: "search",
    placeholder: "Filter datasets",
    "aria-label": "Filter datasets",
    input: filter,
  });
  main.append(
    make("h1", { tabindex: "-1" }, "Datasets"),
    make("p", { class: "lead" }, count(names.length, "dataset"), " in this store"),
  );
  if (names.length > 8) main.append(make("div", { class: "filter" }, field, found));
  if (!names.length)
    main.append(make("p", {}, "There is none yet: ", make("code", {}, "volfs import NAME FILES"), " makes one."));
  main.append(cards);

  const watch = new IntersectionObserver(
    (seen) => {
      for (const each of seen.filter((one) => one.isIntersecting)) {
        watch.unobserve(each.target);
        fillCard(each.target, signal);
      }
    },
    { rootMargin: "300px" },
  );
  signal.addEventListener("abort", () => watch.disconnect());
  for (const name of names) {
    const card = make(
      "li",
      { class: "card" },
      make("div", { class: "picture" }),
      make("h2", {}, link(address([name]), name)),
      make("div", { class: "facts" }),
    );
    card.name = name;
    cards.append(card);
    watch.observe(card);
  }

  function filter() {
    let seen = 0;
    for (const card of cards.children) {
      card.hidden = !card.name.toLowerCase().includes(field.value.trim().toLowerCase());
      seen += !card.hidden;
    }
    found.textContent = field.value.trim() ? `${seen} of ${names.length}` : "";
  }
}

async function fillCard(card, signal) {
  const facts = card.querySelector(".facts");
  try {
    const told = await json([card.name, "dataset.json"], signal);
    const [image] = told.images;
    card.querySelector(".picture").append(thumbnail([card.name, "branches", told.default_branch, "thumbnail.png"]));
    facts.append(
      make("p", {}, image ? `${image.axes.join(" ")} · ${shapeText(image.shape)} · ${image.dtype}` : "no images"),
      image ? make("p", {}, voxelSize(image)) : null,
      make(
        "p",
        { class: "dim" },
        told.latest ? [told.latest, ", ", when(told.latest_time), " · "] : "no version yet · ",
        count(Object.keys(told.branches).length, "branch").replace(/branchs$/, "branches"),
        " · ",
        count(told.images.length, "image"),
      ),
    );
  } catch (error) {
    if (error.name !== "AbortError") facts.append(failed(error));
  }
}

/** A thumbnail that takes its place away where there is none. */
export function thumbnail(place, alternative = "", labels = false) {
  const picture = make("img", {
    src: url(place),
    alt: alternative,
    loading: "lazy",
    decoding: "async",
    class: labels && "labels",
  });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { class: "no-picture" }, "no picture")));
  return picture;
}
