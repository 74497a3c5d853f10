// What the page asks of the server, which is what programs ask of it.

import { find } from "./dom.js";

/** What the server said when it refused: one line, and the field that it is about, if it names one. */
export class Refused extends Error {
  constructor(status, message) {
    const named = /^\[([\w-]+)\] /.exec(message);
    super(named ? message.slice(named[0].length) : message);
    this.status = status;
    this.field = named ? named[1] : null;
  }
}

let login = null;

/** Sends the token that was typed; returns what is wrong with it, null for nothing. */
async function logIn() {
  try {
    const answer = await fetch("session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: find("token").value }),
    });
    return answer.ok ? null : (await answer.json()).error.message;
  } catch {
    return "the server does not answer";
  }
}

/** Asks for the token, once for all who wait; resolves when the server knows us. */
function loggedIn() {
  login ??= new Promise((resolve) => {
    const dialog = find("login");
    const problem = find("login-problem");
    dialog.onclose = () => login && dialog.showModal(); // nothing works without
    dialog.querySelector("form").onsubmit = async (event) => {
      event.preventDefault();
      const wrong = await logIn();
      problem.hidden = wrong === null;
      problem.textContent = wrong ?? "";
      if (wrong !== null) return;
      login = null;
      dialog.close();
      resolve();
    };
    dialog.showModal();
  });
  return login;
}

/** Sends a request; objects as JSON, forms as they are. Throws Refused. */
export async function send(method, path, body = null) {
  const options = { method };
  if (body instanceof FormData) options.body = body;
  else if (body !== null) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw new Refused(0, "the server does not answer; is it still running?");
  }
  if (answer.status === 401) {
    await loggedIn();
    return send(method, path, body);
  }
  const told = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, told?.error?.message ?? `the server answered with ${answer.status}`);
  return told;
}

export const videos = {
  list: (after) => send("GET", `v1/videos?limit=30${after ? `&after=${after}` : ""}`),
  waiting: (after) => send("GET", `v1/videos?waiting=true&order=asc&limit=100${after ? `&after=${after}` : ""}`),
  create: (body) => send("POST", "v1/videos", body),
  plan: (body) => send("POST", "v1/plans", body),
  remix: (id, changes) => send("POST", `v1/videos/${id}/remix`, changes),
  cancel: (id) => send("POST", `v1/videos/${id}/cancel`),
  remove: (id) => send("DELETE", `v1/videos/${id}`),
  content: (id, query = "") => `v1/videos/${id}/content${query}`,
  preview: (id, step) => `v1/videos/${id}/preview?step=${step}`,
};

/** Opens the stream of events; returns what closes it. */
function connect(tell) {
  let again = null;
  let source = null;
  const open = () => {
    source = new EventSource("v1/events");
    source.addEventListener("ready", () => tell("opened"));
    source.addEventListener("video", (event) => tell("changed", JSON.parse(event.data)));
    source.addEventListener("deleted", (event) => tell("removed", JSON.parse(event.data).id));
    source.onerror = () => {
      tell("lost");
      if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
      clearTimeout(again);
      again = setTimeout(async () => {
        await send("GET", "v1/models").catch(() => null); // which asks for a token, if that is what is missing
        open();
      }, 3000);
    };
  };
  open();
  return () => {
    clearTimeout(again);
    source.close();
  };
}

/**
 * Hears of all videos: opened() each time there is a connection, changed(video), removed(id), lost().
 *
 * Browsers have six connections to a server, and a stream takes one for good. So one tab has it, and tells the others.
 */
export function listen(handlers) {
  if (!navigator.locks) {
    // Not over plain HTTP to another machine: there each tab has its own while somebody looks at it.
    let close = null;
    const look = () => {
      if (document.hidden) {
        close?.();
        close = null;
      } else close ??= connect((kind, value) => handlers[kind](value));
    };
    document.addEventListener("visibilitychange", look);
    look();
    return;
  }
  const channel = new BroadcastChannel("sdltx-events");
  channel.onmessage = ({ data: [kind, value] }) => handlers[kind](value);
  const tell = (kind, value) => {
    handlers[kind](value);
    channel.postMessage([kind, value]);
  };
  const lead = () => {
    connect(tell);
    return new Promise(() => {}); // until the tab is closed
  };
  navigator.locks.request("sdltx-events", { ifAvailable: true }, (lock) => {
    if (lock) return lead();
    handlers.opened(); // what there is; another tab tells what changes
    navigator.locks.request("sdltx-events", lead);
    return null;
  });
}
