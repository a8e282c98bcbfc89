// From the address to a view; the bar above, themes, keys.

import { failed, link, make, waiting } from "./elements.js";
import { datasetsView } from "./datasets.js";
import { datasetView } from "./dataset.js";
import { address } from "./tree.js";
import { versionView } from "./version.js";
import { sliceView, sliceKeys } from "./viewer.js";

const main = document.getElementById("main");
const keys = document.getElementById("keys");
const GENERAL = [
  ["?", "these keys"],
  ["Tab, Shift+Tab", "from one control to the next"],
  ["↑ ↓ PgUp PgDn Home End", "in the history: from version to version"],
  ["Enter", "open"],
  ["/", "to the filter"],
  ["u", "one step up"],
];
const THEMES = ["auto", "light", "dark"];
let leaving = new AbortController();
let help = GENERAL;

function asked() {
  const [place, query] = location.hash.replace(/^#\/?/, "").split("?");
  try {
    return [place.split("/").filter(Boolean).map(decodeURIComponent), new URLSearchParams(query ?? "")];
  } catch {
    return [[], new URLSearchParams()];
  }
}

function viewOf(names) {
  if (names.length === 0) return datasetsView;
  if (names.length === 1) return datasetView;
  if (names.length === 3 && ["versions", "branches"].includes(names[1])) return versionView;
  if (names.length >= 4 && names[3] === "view") return sliceView;
  return async () => {
    throw new Error("this page has no such view");
  };
}

function trail(names) {
  const steps = [["volfs", []]];
  if (names.length >= 1) steps.push([names[0], names.slice(0, 1)]);
  if (names.length >= 3) steps.push([names[2], names.slice(0, 3)]);
  if (names.length >= 4) steps.push([names.slice(4).join("/") || "slices", names]);
  return steps;
}

async function go() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [names, query] = asked();
  const steps = trail(names);
  document.title = steps
    .map(([text]) => text)
    .reverse()
    .join(" · ");
  document.getElementById("trail").replaceChildren(
    make(
      "ol",
      {},
      steps.map(([text, to], at) =>
        make(
          "li",
          {},
          at === steps.length - 1 ? make("span", { "aria-current": "page" }, text) : link(address(to), text),
        ),
      ),
    ),
  );
  main.className = names[3] === "view" ? "wide" : "";
  help = names[3] === "view" ? [...sliceKeys, ...GENERAL] : GENERAL;
  const place = make("div", { class: "view" });
  const wait = waiting();
  main.replaceChildren(wait);
  try {
    await viewOf(names)(place, names, signal, query);
    if (signal.aborted) return;
    main.replaceChildren(place);
    const title = main.querySelector("h1");
    if (document.activeElement === document.body || document.activeElement === null)
      title?.focus({ preventScroll: true });
    main.dataset.ready = location.hash;
  } catch (error) {
    if (signal.aborted) return;
    main.replaceChildren(
      make("h1", { tabindex: "-1" }, "Not shown"),
      failed(error),
      make("p", {}, link(address([]), "All datasets")),
    );
  }
}

function theme(next) {
  const now = next ?? localStorage.getItem("theme") ?? "auto";
  if (now === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = now;
  localStorage.setItem("theme", now);
  document.getElementById("theme").textContent = `Theme: ${now}`;
}

function showKeys() {
  document
    .getElementById("keys-list")
    .replaceChildren(...help.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)]));
  keys.showModal();
}

document.getElementById("theme").addEventListener("click", () => {
  const now = localStorage.getItem("theme") ?? "auto";
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});
document.getElementById("help").addEventListener("click", showKeys);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  if (/^(input|select|textarea)$/i.test(event.target.tagName) && event.target.type !== "range") return;
  if (event.key === "?") showKeys();
  else if (event.key === "/") {
    const field = main.querySelector("input[type=search]");
    if (!field) return;
    event.preventDefault();
    field.focus();
  } else if (event.key === "u") {
    const steps = trail(asked()[0]);
    if (steps.length > 1) location.hash = address(steps[steps.length - 2][1]);
  }
});
window.addEventListener("hashchange", go);
theme();
go();
