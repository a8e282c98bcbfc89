// Links into Neuroglancer, whose built client the same server shows if it is installed.

import { make } from "./elements.js";
import { json, url } from "./tree.js";

const CLIENT = [".volfs", "neuroglancer", "v", "volfs"];
const MISSING = "pip install 'volfs[neuroglancer]' on the server, and start it again";
let there = null;

/** Whether the server has the client: asked once. */
const isThere = () =>
  (there ??= json([".volfs", "page", "extras.json"]).then(
    (extras) => extras.neuroglancer === true,
    () => false,
  ));

/** The layers that show images of a snapshot. */
export function layersOf(snapshot, images) {
  return images
    .filter((image) => image.levels[0].name)
    .map((image) => ({
      type: image.kind === "labels" ? "segmentation" : "image",
      source: `zarr://${url(snapshot, "zarr", image.path)}/`,
      name: image.path.length ? image.path.join("/") : snapshot[0],
    }));
}

/** A link that shows layers in Neuroglancer; where it is not installed, a button that says what to install. */
export function neuroglancer(label, layers) {
  if (!layers.length) return null;
  const state = encodeURIComponent(JSON.stringify({ layers, layout: "4panel" }));
  const goal = make(
    "a",
    { class: "button", href: `${url(CLIENT)}/#!${state}`, target: "_blank", rel: "noopener" },
    label,
  );
  isThere().then((found) => {
    if (found) return;
    const said = make("span", { class: "dim", hidden: true, role: "status" }, MISSING);
    goal.replaceWith(
      make(
        "button",
        { type: "button", "aria-label": `${label}: not installed`, click: () => (said.hidden = !said.hidden) },
        `${label}…`,
      ),
      said,
    );
  });
  return goal;
}
