// The queue and the gallery: what the server tells of videos, kept up to date.

import { videos } from "./api.js";
import { ask, element, find, say, spellBytes, spellTime } from "./dom.js";

const PHASES = {
  preview: "Getting ready to show it", load: "Loading the model", enhance: "Writing the prompt out",
  encode: "Reading the prompt", denoise: "Making it", upscale: "Making it larger", sound: "Making its sound",
  decode: "Making its pictures", write: "Writing the file",
};
const MOST_AGAIN = 300; // videos that are over and shown again after the server was away
const IS_OVER = new Set(["completed", "failed"]);

function facts(video) {
  const told = video.sdltx;
  const shown = [`${video.size}, ${video.seconds} s`, `seed ${told.seed}`, `${told.num_inference_steps} steps`, told.recipe];
  if (video.status === "completed" && told.started_at) shown.push(`made in ${spellTime(video.completed_at - told.started_at)}`);
  return shown.join(" · ");
}

/** All options that were given. */
function settings(video) {
  const rows = Object.entries(video.sdltx.request).flatMap(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value)),
  ]);
  return element("details", {}, element("summary", {}, "Settings"), element("dl", { class: "facts" }, ...rows));
}

/** One that waits or is made. Its elements stay, so that who uses it is not thrown out. */
class Waiting {
  constructor(video, problem) {
    this.glance = element("img", { class: "glance", alt: "", hidden: true });
    this.empty = element("div", { class: "glance" });
    this.bar = element("progress", { max: 100, "aria-label": `Progress of: ${video.prompt}` });
    this.state = element("p", { class: "facts" });
    this.stop = element("button", { type: "button", class: "quiet", "aria-label": `Cancel: ${video.prompt}` }, "Cancel");
    this.stop.addEventListener("click", async () => {
      this.stop.disabled = true;
      await videos.cancel(video.id).catch((error) => {
        this.stop.disabled = false;
        problem(error);
      });
    });
    this.element = element(
      "li",
      { "data-id": video.id },
      element("div", {}, this.glance, this.empty),
      element("div", {}, element("h3", { class: "prompt" }, video.prompt), this.bar, this.state, this.stop),
    );
    this.update(video);
  }

  /** before: how many come before it. */
  place(before) {
    if (before === this.before) return;
    this.before = before;
    this.update(this.video);
  }

  update(video) {
    this.video = video;
    const { phase, phase_done: done, phase_total: total, seconds_left: left, queue_position, preview } = video.sdltx;
    const position = this.before ?? queue_position;
    if (video.status === "queued" && (!phase || done === total)) {
      const time = left === null ? "" : `, takes about ${spellTime(left)}`;
      this.state.textContent = `${video.size}, ${video.seconds} s: ${position ? `${position} before it` : "next"}${time}`;
      this.bar.hidden = true;
    } else {
      this.bar.hidden = false;
      if (video.status === "queued") this.bar.removeAttribute("value");
      else this.bar.value = video.progress;
      const part = phase === "denoise" && total ? ` ${Math.round((100 * done) / total)} %` : "";
      this.state.textContent = `${PHASES[phase] ?? "Beginning"}${part}${left === null || video.status === "queued" ? "" : `, ${spellTime(left)} left`}`;
    }
    if (preview && this.step !== preview) {
      this.step = preview;
      this.glance.src = videos.preview(video.id, preview);
      this.glance.alt = `What it looks like after ${preview} steps`;
      this.glance.hidden = false;
      this.empty.hidden = true;
    }
  }
}

/** One that is over. */
function done(video, { problem, fill }) {
  const format = video.sdltx.format;
  const again = async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    await videos.remix(video.id, { seed }).then(() => say("Another one is in the queue.")).catch(problem);
  };
  const remove = async () => {
    if (await ask(`Remove “${video.prompt.slice(0, 80)}” for good?`)) await videos.remove(video.id).catch(problem);
  };
  const button = (text, act) => element("button", { type: "button", class: "quiet", onclick: act, "aria-label": `${text}: ${video.prompt}` }, text);
  const buttons = [
    button("Again with another seed", again),
    button("Use its settings", () => fill({ ...video.sdltx.request, format }, video.id)),
    video.status === "completed"
      ? element("a", { class: "button quiet", href: videos.content(video.id, "?download=1"), download: true, "aria-label": `Download: ${video.prompt}` }, "Download")
      : null,
    button("Remove", remove),
  ];
  let shown;
  const address = videos.content(video.id);
  if (video.status === "failed") {
    shown = element("p", { class: "problem" }, video.error?.code === "cancelled" ? "Cancelled." : (video.error?.message ?? "It failed."));
  } else if (format === "wav") shown = element("audio", { src: address, controls: true, preload: "none" });
  else if (format === "gif" || format === "webp") shown = element("img", { src: address, alt: video.prompt, loading: "lazy" });
  else {
    const poster = videos.content(video.id, "?variant=thumbnail");
    shown = element("video", { src: address, poster, controls: true, preload: "none", loop: true, "aria-label": video.prompt });
  }
  return element(
    "li",
    { "data-id": video.id },
    shown,
    element("h3", { class: "prompt" }, video.prompt),
    element("p", { class: "facts" }, facts(video) + (video.sdltx.memory ? ` · ${spellBytes(video.sdltx.memory)}` : "")),
    settings(video),
    element("div", { class: "buttons" }, ...buttons),
  );
}

/** All pages of a list. */
async function all(list) {
  let page = await list();
  const found = [...page.data];
  while (page.has_more) {
    page = await list(page.last_id);
    found.push(...page.data);
  }
  return found;
}

/** Entries in the order of these videos, with the rest behind or before them; elements move only if they must, as films would stop. */
function inOrder(entries, wanted, list, restFirst = false) {
  const named = wanted.map(({ id }) => id).filter((id) => entries.has(id));
  const rest = [...entries.keys()].filter((id) => !named.includes(id));
  const ids = restFirst ? [...rest, ...named] : [...named, ...rest];
  const sorted = new Map([...ids].map((id) => [id, entries.get(id)]));
  const elements = [...sorted.values()].map(({ element: shown }) => shown);
  if (elements.some((one, place) => list.children[place] !== one)) list.replaceChildren(...elements);
  return sorted;
}

export class Shelf {
  constructor({ problem, fill }) {
    this.tools = { problem, fill };
    this.queue = find("queue");
    this.gallery = find("gallery");
    this.waiting = new Map();
    this.over = new Map();
    this.last = null;
    this.changed = new Set();
    this.gone = new Set();
    find("older").addEventListener("click", () => this.#older().catch(problem));
  }

  /** Shows what the server has now: all that wait, and as many that are over as were shown. */
  async load() {
    this.changed = new Set(); // while it asks
    this.gone = new Set();
    const waiting = await all(videos.waiting);
    waiting.sort((one, other) => one.sdltx.queue_position - other.sdltx.queue_position);
    const over = [];
    let page = null;
    do {
      page = await videos.list(page?.last_id);
      over.push(...page.data.filter(({ status }) => IS_OVER.has(status)));
    } while (page.has_more && over.length < Math.min(this.over.size, MOST_AGAIN));
    const known = new Set([...waiting, ...over].map(({ id }) => id));
    for (const id of [...this.waiting.keys(), ...this.over.keys()]) {
      if (!known.has(id) && !this.changed.has(id)) this.remove(id);
    }
    for (const video of [...waiting, ...over]) {
      if (!this.gone.has(video.id)) this.update(video, true);
    }
    this.waiting = inOrder(this.waiting, waiting, this.queue);
    this.over = inOrder(this.over, over, this.gallery, true);
    this.last = page.last_id;
    find("older").hidden = !page.has_more;
    this.#tidy();
  }

  async #older() {
    // The last one that is shown, as others may have been removed.
    const page = await videos.list(this.gallery.lastElementChild?.dataset.id ?? this.last);
    for (const video of page.data) this.update(video, true);
    this.last = page.last_id ?? this.last;
    find("older").hidden = !page.has_more;
  }

  /** A video is new, or changed. */
  update(video, older = false) {
    this.changed.add(video.id);
    if (IS_OVER.has(video.status)) {
      const was = this.waiting.get(video.id);
      this.#drop(this.waiting, video.id);
      if (this.over.has(video.id)) return;
      const card = done(video, this.tools);
      this.over.set(video.id, { element: card });
      if (older) this.gallery.append(card);
      else this.gallery.prepend(card);
      if (was) say(video.status === "completed" ? `Done: ${video.prompt}` : `It was not made: ${video.error?.message ?? ""}`);
    } else if (this.over.has(video.id)) return; // an answer that was on its way meanwhile
    else if (this.waiting.has(video.id)) this.waiting.get(video.id).update(video);
    else {
      const entry = new Waiting(video, this.tools.problem);
      this.waiting.set(video.id, entry);
      this.queue.append(entry.element);
    }
    this.#tidy();
  }

  remove(id) {
    this.gone.add(id);
    this.#drop(this.waiting, id);
    this.#drop(this.over, id);
    this.#tidy();
  }

  #drop(from, id) {
    from.get(id)?.element.remove();
    from.delete(id);
  }

  #tidy() {
    [...this.waiting.values()].forEach((entry, place) => entry.place(place));
    find("queue-empty").hidden = this.waiting.size > 0;
    find("gallery-empty").hidden = this.over.size > 0;
    document.title = this.waiting.size ? `(${this.waiting.size}) sdltx` : "sdltx";
  }
}
