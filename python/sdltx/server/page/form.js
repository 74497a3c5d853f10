// The form: what is asked for, what it will cost, and what is wrong with it.

import { videos } from "./api.js";
import { element, find, say, spellBytes, spellTime } from "./dom.js";
import { Carried, Field, FileField, LoraField, ServerFileField } from "./fields.js";

const KEPT = "sdltx-form";
const MOST_ASKED_WITH = 32 * 2 ** 20; // bytes of files that are sent to ask what a video costs
const PAUSE = 400; // ms after the last key until the cost is asked for
// What people change, before all the rest.
const USUAL = ["seconds", "recipe", "num_inference_steps", "guidance_scale", "seed", "frame_rate"];
const GROUPS = {
  prompt: "Prompt", enhancement: "Prompt written out", clip: "Clip", recipe: "Recipe", guidance: "Guidance",
  material: "Film and references", decoding: "Decoding",
};
const LEFT_OUT = new Set(["prompt", "width", "height", "num_frames", "duration", "tiling"]);
const SHAPES = [["wide", 16, 9], ["tall", 9, 16], ["square", 1, 1]];

/** Sizes with about as many pixels as the model's own, in other shapes. */
function sizesOf({ width, height }, limit) {
  const own = `${width}x${height}`;
  const sizes = new Map();
  for (const scale of [1, 0.5]) {
    for (const [name, across, down] of SHAPES) {
      const unit = Math.sqrt((width * height * scale) / (across * down));
      const [w, h] = [across, down].map((part) => Math.max(64, Math.round((part * unit) / 64) * 64));
      const size = `${w}x${h}`;
      if (w * h <= limit && size !== own && !sizes.has(size)) sizes.set(size, scale === 1 ? name : `${name}, smaller`);
    }
  }
  return sizes;
}

export class Form {
  constructor(table) {
    this.element = find("make");
    this.prompt = find("prompt");
    this.problem = find("problem");
    this.table = table;
    this.timer = null;
    this.asked = 0;
    this.byCost = false; // whether the problem that is shown is one of the cost
    this.carried = new Carried();
    this.begun = null; // the sound of another video, and where it began
    const image = "image/*";
    this.files = [
      new FileField("input_reference", "First picture", image),
      new FileField("last_image", "Last picture", image),
      new FileField("sound", "Sound", "audio/*,video/*"),
    ];
    this.material = [new FileField("film", "Film", "video/*"), new FileField("mask", "Mask of the film", "image/*,video/*")];
    find("files").append(...this.files.map((field) => field.element));
    find("files").after(this.carried.element);
    this.fields = this.#fields();
    this.element.addEventListener("input", () => this.#changed());
    this.element.addEventListener("submit", (event) => this.#submit(event));
    this.element.addEventListener("reset", () => setTimeout(() => this.fill({ prompt: "" }, null)));
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) this.element.requestSubmit();
    });
    this.#restore();
    this.#changed();
  }

  #fields() {
    const { options, files, formats, limits, model } = this.table;
    const own = model.sdltx.defaults;
    const length = (own.num_frames / own.frame_rate).toFixed(1);
    const size = new Field("size", { kind: "text", choices: [...sizesOf(own, limits.pixels).keys()], help: "" }, {
      title: "Size", none: `${own.width}x${own.height} (the model's own)`, hint: "Pixels; others below.",
    });
    const names = sizesOf(own, limits.pixels);
    for (const option of size.input.options) if (option.value) option.textContent = `${option.value} (${names.get(option.value)})`;
    const made = [size];
    for (const name of USUAL) {
      const row = name === "seconds" ? { kind: "real", help: "" } : options[name];
      const titles = {
        seconds: { title: "Seconds", none: length, hint: `Up to ${limits.seconds}; or as long as the sound.` },
        recipe: { title: "Recipe", none: "as fits the model", hint: "How it is made." },
        num_inference_steps: { title: "Steps", none: String(own.steps), hint: "More take longer." },
        guidance_scale: { title: "Guidance", hint: "1: none; more follows the prompt closer." },
        seed: { title: "Seed", none: "a new one", hint: "The same one gives the same video." },
        frame_rate: { title: "Frame rate", none: String(own.frame_rate), hint: "Frames per second." },
      };
      made.push(new Field(name, row, titles[name]));
    }
    find("usual").append(...made.map((field) => field.element));
    const others = find("others");
    const groups = new Map();
    const formatField = new Field("format", { kind: "text", choices: formats, help: "" }, { none: "mp4", hint: "Of the file." });
    made.push(formatField);
    for (const name of ["width", "height", "num_frames"]) {
      const field = new Field(name, options[name]);
      made.push(field);
      groups.set("clip", [...(groups.get("clip") ?? []), field]);
    }
    groups.get("clip").push(formatField);
    for (const [name, row] of Object.entries(options)) {
      if (LEFT_OUT.has(name) || USUAL.includes(name)) continue;
      let field;
      if (row.kind === "loras") field = files.length ? new LoraField(name, row, files) : null;
      else if (row.kind === "file" || row.kind === "files") field = files.length ? new ServerFileField(name, row, files) : null;
      else field = new Field(name, row, { wide: row.kind === "text" && !row.choices?.length });
      if (field === null) continue;
      made.push(field);
      groups.set(row.group, [...(groups.get(row.group) ?? []), field]);
    }
    for (const [group, fields] of groups) {
      const holder = element("div", { class: "fields" }, ...fields.map((field) => field.element));
      if (group === "material") holder.prepend(...this.material.map((field) => field.element));
      others.append(element("fieldset", {}, element("legend", {}, GROUPS[group] ?? group), holder));
    }
    return made;
  }

  /** What is asked for, by name, without files of this computer. */
  options() {
    const told = { prompt: this.prompt.value };
    for (const field of this.fields) {
      const value = field.read();
      if (value !== undefined) told[field.name] = value;
    }
    if (told.width !== undefined || told.height !== undefined) delete told.size;
    if (told.num_frames !== undefined) delete told.seconds;
    return told;
  }

  /** The same as it is sent: JSON, or a form where there are files. */
  body() {
    const told = { ...this.carried.read(), ...this.options() };
    if (told.seconds !== undefined || told.num_frames !== undefined) delete told.duration;
    const form = new FormData();
    let parts = 0;
    for (const field of [...this.files, ...this.material]) {
      const value = field.read();
      if (value instanceof File) {
        form.append(field.name, value);
        parts += 1;
      } else if (value !== undefined) told[field.name] = value;
    }
    if (this.begun && told.sound === this.begun.file) told.sound = this.begun;
    if (!parts) return told;
    for (const [name, value] of Object.entries(told)) form.append(name, typeof value === "object" ? JSON.stringify(value) : String(value));
    return form;
  }

  /** Bytes of files of this computer. */
  #bytes() {
    const files = [...this.files, ...this.material].map((field) => field.read()).filter((value) => value instanceof File);
    return files.reduce((sum, file) => sum + file.size, 0);
  }

  /** Says which field has something that is no number; whether there is one. */
  #hasBad(goThere) {
    const bad = this.fields.find((field) => field.isBad);
    if (bad) this.#showProblem({ message: "that is no number", field: bad.name }, goThere);
    return bad !== undefined;
  }

  /** Shows the options of a request; id: of the video that its files belong to. */
  fill(request, id) {
    const shown = { ...request };
    const carried = {};
    const notes = [];
    if (shown.duration === "auto") carried.duration = "auto";
    else if (shown.duration !== undefined) shown.seconds = Number.parseFloat(shown.duration);
    if (shown.seed !== undefined && !Number.isSafeInteger(shown.seed)) {
      delete shown.seed;
      notes.push("Its seed is too large for a browser and left out.");
    }
    if (shown.width && shown.height && [...this.fields[0].input.options].some(({ value }) => value === `${shown.width}x${shown.height}`)) {
      shown.size = `${shown.width}x${shown.height}`;
      delete shown.width;
      delete shown.height;
    }
    this.prompt.value = shown.prompt ?? "";
    for (const field of this.fields) field.show(shown[field.name]);
    const named = (one) => (one ? `${id}/${one}` : null);
    const images = shown.images ?? [];
    const [first, last, sound] = this.files;
    const plain = (one, frame) => one.frame === frame && one.strength === undefined && one.crf === undefined;
    const one = images.find((image) => plain(image, 0));
    const other = images.find((image) => plain(image, -1));
    first.show(named(one?.path));
    last.show(named(other?.path));
    sound.show(named(shown.sound?.path));
    const others = images.filter((image) => image !== one && image !== other).map(({ path, ...rest }) => ({ file: named(path), ...rest }));
    if (others.length) carried.images = others;
    if (shown.references?.length) {
      carried.references = shown.references.map(({ path, attention, ...rest }) => ({
        file: named(path), ...(attention ? { attention: named(attention) } : {}), ...rest,
      }));
    }
    this.begun = shown.sound?.start ? { file: named(shown.sound.path), start: shown.sound.start } : null;
    if (shown.tiling) carried.tiling = shown.tiling;
    this.carried.show(carried, notes);
    this.material[0].show(named(shown.film?.path));
    this.material[1].show(named(shown.film?.mask));
    this.#changed();
  }

  /** What is known of costs may have changed. */
  refresh() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#showCost(), PAUSE);
  }

  #restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
      if (!kept) return;
      this.prompt.value = kept.prompt ?? "";
      for (const field of this.fields) field.show(kept[field.name]);
    } catch {
      sessionStorage.removeItem(KEPT);
    }
  }

  #changed() {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify(this.options()));
    } catch {
      // A browser that keeps nothing is no reason to stop.
    }
    this.#clearProblem();
    this.asked += 1; // an answer on its way is of something else
    this.refresh();
  }

  async #showCost() {
    const cost = find("cost");
    const turn = ++this.asked;
    if (this.#hasBad(false)) {
      cost.replaceChildren();
      return;
    }
    if (this.#bytes() > MOST_ASKED_WITH) {
      cost.textContent = "Its files are too large to ask what it costs.";
      return;
    }
    try {
      const body = this.body();
      if (!this.prompt.value && body instanceof FormData) body.set("prompt", " ");
      else if (!this.prompt.value) body.prompt = " ";
      const plan = await videos.plan(body);
      if (turn !== this.asked) return;
      const time = plan.estimated_seconds === null ? "how long it takes is known after the first one" : `about ${spellTime(plan.estimated_seconds)}`;
      const frames = plan.result_frames ?? plan.num_frames;
      const lines = [
        element("strong", {}, `${plan.size}, ${plan.seconds} s`),
        ` (${frames} pictures): ${time}, ${spellBytes(plan.memory)} of memory`,
      ];
      const doubts = [...(plan.misfit ? [`It does not fit now: ${plan.misfit}`] : []), ...plan.doubts];
      if (doubts.length) lines.push(element("ul", {}, ...doubts.map((text) => element("li", {}, text))));
      cost.replaceChildren(...lines);
      if (this.byCost) this.#clearProblem();
    } catch (error) {
      if (turn !== this.asked) return;
      cost.replaceChildren();
      if (error.status === 422) {
        this.#showProblem(error);
        this.byCost = true;
      }
      else cost.textContent = error.message;
    }
  }

  async #submit(event) {
    event.preventDefault();
    const button = find("submit");
    if (button.disabled) return; // it is on its way
    this.#clearProblem();
    if (this.#hasBad(true)) return;
    if (!this.prompt.value.trim()) {
      this.#showProblem({ message: "Write what is to be seen and heard.", field: "prompt" }, true);
      return;
    }
    button.disabled = true;
    try {
      const video = await videos.create(this.body());
      say(`The video is in the queue: ${video.prompt}`);
      this.element.dispatchEvent(new CustomEvent("made", { detail: video }));
    } catch (error) {
      this.#showProblem(error, true);
    } finally {
      button.disabled = false;
    }
  }

  #fieldOf(name) {
    if (name === "prompt") return this.prompt;
    return [...this.fields, ...this.files, ...this.material].find((field) => field.name === name)?.input ?? null;
  }

  #showProblem(error, goThere = false) {
    const named = this.#fieldOf(error.field);
    this.problem.textContent = named && error.field !== "prompt" ? `${error.field}: ${error.message}` : error.message;
    this.problem.hidden = false;
    const input = named ?? this.#fieldOf(error.message.split(" ")[0]); // "width 100 is not a multiple of 32"
    if (!input) return;
    input.setAttribute("aria-invalid", "true");
    if (!goThere) return;
    input.closest("details")?.setAttribute("open", "");
    input.focus();
    input.scrollIntoView({ block: "center" });
  }

  #clearProblem() {
    this.byCost = false;
    this.problem.hidden = true;
    for (const input of this.element.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  }
}
