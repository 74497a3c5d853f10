// Puts the page together.

import { listen, send } from "./api.js";
import { find } from "./dom.js";
import { Form } from "./form.js";
import { Shelf } from "./shelf.js";

const THEME = "sdltx-theme";

/** As the system has it, unless somebody chose. */
function themes() {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = localStorage.getItem(THEME);
  if (chosen) root.dataset.theme = chosen;
  find("theme").addEventListener("click", () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    localStorage.setItem(THEME, root.dataset.theme);
  });
}

let told = ""; // the last problem that was not one of the form

function problem(error) {
  const shown = find("problem");
  told = shown.textContent = error.message;
  shown.hidden = false;
}

/** The server answers, so it is over. */
function solved() {
  const shown = find("problem");
  if (told && shown.textContent === told) shown.hidden = true;
  told = "";
}

async function begin() {
  themes();
  const table = await send("GET", "v1/options");
  const { id, sdltx } = table.model;
  find("model").textContent = `${id} ${sdltx.version} on ${sdltx.device}`;
  const form = new Form(table);
  const fill = (request, video) => {
    form.fill(request, video);
    find("prompt").focus();
    find("make").scrollIntoView({ block: "start" });
  };
  const shelf = new Shelf({ problem, fill });
  find("make").addEventListener("made", (event) => shelf.update(event.detail));
  const connection = find("connection");
  listen({
    opened: () => {
      connection.textContent = "";
      solved();
      shelf.load().catch(problem); // what happened while nobody listened
    },
    changed: (video) => {
      shelf.update(video);
      if (video.status === "completed") form.refresh(); // by what it took
    },
    removed: (video) => shelf.remove(video),
    lost: () => {
      connection.textContent = "The server does not answer; trying again.";
    },
  });
}

find("make").addEventListener("submit", (event) => event.preventDefault()); // also before there is a form
begin().catch(problem);
