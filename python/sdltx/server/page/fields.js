// Fields of the form, made from the table of options that the server tells; each reads and shows its value.

import { element } from "./dom.js";

const label = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

/** A list of numbers; what is none stays as it is, so that the server can name it. */
function numbersOf(text) {
  const parts = text.split(/[\s,;]+/).filter(Boolean);
  return parts.map((part) => (Number.isNaN(Number(part)) ? part : Number(part)));
}

/** Each kind of option: how its input is made, and what its text means. */
const KINDS = {
  // What is too large for a number here stays a text, so that the server can name it.
  whole: { input: () => ({ type: "number", step: "1" }), read: (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : text) },
  real: { input: () => ({ type: "number", step: "any" }), read: Number },
  duration: { input: () => ({ type: "text" }), read: (text) => (text === "auto" ? text : Number.parseFloat(text)) },
  text: { input: () => ({ type: "text" }), read: String },
  wholes: { input: () => ({ type: "text", placeholder: "1, 2" }), read: numbersOf },
  reals: { input: () => ({ type: "text", placeholder: "1, 0.5, 0" }), read: numbersOf },
};

function choice(id, name, choices, none) {
  const options = choices.map((one) => element("option", { value: one }, one));
  return element("select", { id, name }, element("option", { value: "" }, none), ...options);
}

/** A field with a label: `read()` is undefined where nothing is given, `show(value)` sets it. */
export class Field {
  constructor(name, row, { title = label(name), none = "as usual", hint = null, wide = false } = {}) {
    this.name = name;
    this.row = row;
    const id = `field-${name}`;
    if (row.kind === "flag") this.input = choice(id, name, ["yes", "no"], none);
    else if (row.choices?.length) this.input = choice(id, name, row.choices, none);
    else this.input = element("input", { id, name, autocomplete: "off", placeholder: none, ...KINDS[row.kind].input() });
    const text = hint ?? row.help;
    this.input.setAttribute("aria-describedby", `${id}-hint`);
    this.element = element(
      "div",
      { class: wide ? "field wide" : "field" },
      element("label", { for: id }, title),
      this.input,
      element("p", { class: "hint", id: `${id}-hint` }, text),
    );
  }

  read() {
    const text = this.input.value.trim();
    if (text === "") return undefined;
    if (this.row.kind === "flag") return text === "yes";
    return this.row.choices?.length ? text : KINDS[this.row.kind].read(text);
  }

  /** Whether something is typed that is no number, of which the browser tells nothing more. */
  get isBad() {
    return this.input.validity?.badInput ?? false;
  }

  show(value) {
    if (value === undefined || value === null) this.input.value = "";
    else if (this.row.kind === "flag") this.input.value = value ? "yes" : "no";
    else this.input.value = Array.isArray(value) ? value.join(", ") : String(value);
  }
}

/** Files of the server, each with how strongly it counts. */
export class LoraField {
  constructor(name, row, files) {
    this.name = name;
    this.entries = files.map((file, i) => ({
      file,
      strength: element("input", {
        id: `field-${name}-${i}`, type: "number", step: "any", placeholder: "not used", "aria-label": `${label(name)}: ${file}`,
      }),
    }));
    this.input = this.entries[0]?.strength ?? null;
    const rows = this.entries.map(({ file, strength }) => element("div", {}, element("span", { class: "hint" }, file), strength));
    this.element = element("fieldset", { class: "wide" }, element("legend", {}, label(name)), element("p", { class: "hint" }, row.help), ...rows);
  }

  read() {
    const used = this.entries.filter(({ strength }) => strength.value.trim() !== "");
    return used.length ? used.map(({ file, strength }) => [file, Number(strength.value)]) : undefined;
  }

  show(value) {
    const given = new Map((value ?? []).map((one) => (Array.isArray(one) ? one : [one, 1])));
    for (const { file, strength } of this.entries) strength.value = given.has(file) ? String(given.get(file)) : "";
  }
}

/** One file of the server. */
export class ServerFileField extends Field {
  constructor(name, row, files) {
    super(name, { ...row, choices: files });
  }

  read() {
    const value = super.read();
    return value === undefined || this.row.kind === "file" ? value : [value];
  }

  show(value) {
    super.show(Array.isArray(value) ? value[0] : value);
  }
}

/** What belongs to another video and has no field: it is sent along, and said. */
export class Carried {
  constructor() {
    this.values = {};
    this.text = element("span", {});
    this.drop = element("button", { type: "button", class: "quiet", onclick: () => this.clear() }, "Leave out");
    this.element = element("p", { class: "hint", hidden: true }, this.text, " ", this.drop);
  }

  read() {
    return this.values;
  }

  clear() {
    this.show({});
    this.element.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** notes: what cannot be sent along. */
  show(values, notes = []) {
    this.values = values;
    const names = Object.entries(values).map(([name, value]) => {
      if (name === "images") return value.map(({ frame }) => `a picture at frame ${frame ?? 0}`).join(", ");
      if (name === "references") return `${value.length} reference${value.length > 1 ? "s" : ""}`;
      return `${label(name).toLowerCase()} ${value}`;
    });
    const said = names.length ? [`From the other video, too: ${names.join(", ")}.`] : [];
    this.text.textContent = [...said, ...notes].join(" ");
    this.drop.hidden = names.length === 0;
    this.element.hidden = this.text.textContent === "";
  }
}

/** A file of this computer, or one that belongs to a video already. */
export class FileField {
  constructor(name, title, accept) {
    this.name = name;
    this.reference = null;
    const id = `field-${name}`;
    this.input = element("input", { id, type: "file", accept, onchange: () => this.changed() });
    this.shown = element("div", {});
    this.drop = element("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.clear() }, "Leave out");
    this.element = element("div", { class: "field" }, element("label", { for: id }, title), this.input, this.shown, this.drop);
  }

  /** A file, or the name of one as the server knows it. */
  read() {
    return this.input.files[0] ?? this.reference ?? undefined;
  }

  clear() {
    this.input.value = "";
    this.reference = null;
    this.changed();
    this.input.dispatchEvent(new Event("input", { bubbles: true }));
    this.input.focus();
  }

  show(reference) {
    this.input.value = "";
    this.reference = reference ?? null;
    this.changed();
  }

  changed() {
    const file = this.input.files[0];
    if (file) this.reference = null;
    this.drop.hidden = !file && !this.reference;
    this.shown.replaceChildren();
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
    if (this.reference) this.shown.append(element("p", { class: "hint" }, "The one of the other video."));
    if (!file) return;
    const address = (this.address = URL.createObjectURL(file));
    const kind = { image: "img", audio: "audio", video: "video" }[file.type.split("/")[0]];
    if (kind) this.shown.append(element(kind, { src: address, controls: kind !== "img", alt: `${this.name}: ${file.name}` }));
  }
}
