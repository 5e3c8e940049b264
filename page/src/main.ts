// The page: puts its parts together, and what people press into requests to the server.

import { Canvas } from "./canvas.js";
import { Connection, type Link } from "./connection.js";
import { fillSheet, listen, type Shortcut } from "./keys.js";
import { Model, type Tool } from "./model.js";
import { Objects } from "./objects.js";
import { Pictures } from "./pictures.js";
import type { Change, Edit, EditTool, Mask, Point, Progress, Told, Welcome } from "./protocol.js";
import { Timeline } from "./timeline.js";
import { element, icon } from "./elements.js";

const AHEAD = 6; // frames fetched before they are shown
const TOOLS: { tool: Tool; name: string; key: string; path: string; hint: string }[] = [
  { tool: "click", name: "Click", key: "C", path: "M5 3l6 15 2-6 6-2z", hint: "Click on the object; right-click on what does not belong to it" },
  { tool: "box", name: "Box", key: "X", path: "M4 5h14v12H4z", hint: "Drag a box around the object" },
  { tool: "brush", name: "Brush", key: "B", path: "M17 3l3 3-9 9-3-3zM8 12c-3 0-3 4-5 5 3 2 7 1 8-2", hint: "Drag over the object" },
  { tool: "erase", name: "Eraser", key: "E", path: "M4 14l8-9 7 6-6 7H7zM4 20h15", hint: "Drag over what does not belong to the object" },
  { tool: "polygon", name: "Polygon", key: "P", path: "M11 3l8 6-3 9H6L3 9z", hint: "Click the corners; Enter or a double click closes, Backspace takes the last one back" },
  { tool: "hand", name: "Move", key: "H", path: "M11 2v18M2 11h18M11 2L8 5m3-3l3 3M11 20l-3-3m3 3l3-3M2 11l3-3m-3 3l3 3M20 11l-3-3m3 3l-3 3", hint: "Drag to move the picture; the wheel zooms" },
];

const model = new Model();
const connection = new Connection({ told, masked, linked });
const pictures = new Pictures((frame) => { if (frame === model.frame) show(); });
const canvas = new Canvas(element("canvas", HTMLCanvasElement), model, { draw, pending: () => connection.pending(), size: setSize });
const timeline = new Timeline(element("timeline", HTMLCanvasElement), model, (frame) => seek(frame));
const objects = new Objects(model, change, () => { canvas.redraw(); timeline.redraw(); describe(); });
const looked = new Map<number, number>(); // frames whose mask was asked for, and when
let saved = "";
let exporting = false;

function told(message: Told): void {
  switch (message.type) {
    case "welcome": return welcome(message);
    case "state":
      model.update(message);
      looked.clear();
      objects.redraw();
      break;
    case "progress": return follow(message);
    case "ack": case "pong": break;
    case "saved": saved = message.problem; break;
    case "refused": say(message.text); exporting = false; break;
    case "problem": say(message.text); exporting = false; break;
    case "prompts": model.promptProblem = message.problem || null; break;
    case "exported": exported(message.path, message.text); break;
    case "exporting": element("export-about").textContent = `Writing… frame ${message.done} of ${message.total}`; return;
    case "go": seek(message.frame); break;
  }
  describe();
  show();
}

function welcome(video: Welcome): void {
  model.begin(video);
  looked.clear();
  model.forget();
  document.title = `${video.name} – s3 annotate`;
  element("name").textContent = video.name;
  element("frames").textContent = `of ${video.frames} (0 to ${video.frames - 1})`;
  for (const id of ["frame", "first", "last"]) element(id, HTMLInputElement).max = String(video.frames - 1);
  element("last", HTMLInputElement).value = String(video.frames - 1);
  setSize(restored?.size ?? Math.max(4, Math.round(video.height / 20)));
  formats(video);
  seek(restored?.frame ?? model.frame);
}

function masked(mask: Mask): void {
  looked.delete(mask.frame);
  model.take(mask);
  if (model.progress.doing && model.watching && element("watch", HTMLInputElement).checked && connectionFollows) {
    model.frame = mask.frame;
    element("frame", HTMLInputElement).value = String(mask.frame);
  }
  timeline.redraw();
  if (mask.frame === model.frame) { describe(); show(); }
}
let connectionFollows = false;

function linked(link: Link, failures: number): void {
  const dialog = element("taken", HTMLDialogElement);
  if (link === "taken" && !dialog.open) dialog.showModal();
  if (link === "open") { dialog.close(); looked.clear(); }
  const kept = connection?.unsent ?? 0;
  const banner = element("banner");
  banner.hidden = link !== "lost" || failures < 2;
  const again = failures > 8 ? " If the program has ended, start it again and open the address that it prints." : "";
  banner.textContent = `The connection is lost; trying again. ${kept ? `${kept} changes are kept and sent later.` : "What you draw is kept and sent later."}${again}`;
  describe(link);
}

function change(made: Change): void {
  connection.change(made);
  describe();
  canvas.redraw();
}

function draw(tool: EditTool, points: Point[], label: number): void {
  if (!model.video) return;
  if ((tool === "click" || tool === "box") && model.promptProblem !== null) return say(model.promptProblem);
  if (!model.object()) addObject();
  const edit: Edit = { type: "edit", frame: model.frame, object: model.selected, tool, points, size: model.size, label };
  change(edit);
  canvas.taken(edit);
}

function addObject(): void {
  const { id, name, colour } = model.state.next;
  model.selected = id;
  model.state = { ...model.state, objects: [...model.state.objects, { id, name, colour }], next: { id: id + 1, name: `Object ${id + 1}`, colour: "#4dabf7" } };
  objects.redraw();
  change({ type: "object", object: id, name, colour });
}

// Frames

function seek(frame: number, byHand = true): void {
  if (byHand) connectionFollows = connectionFollows && !model.progress.doing;
  model.frame = Math.min(model.frames - 1, Math.max(0, frame));
  element("frame", HTMLInputElement).value = String(model.frame);
  timeline.redraw();
  describe();
  show();
}

function show(): void {
  if (!model.video) return;
  const direction = 1;
  for (let step = 0; step <= (model.playing ? AHEAD : 1); step++) {
    const frame = model.frame + step * direction;
    if (frame >= model.frames) break;
    pictures.want(frame);
    look(frame);
  }
  if (model.frame > 0 && !model.playing) pictures.want(model.frame - 1);
  canvas.show(model.frame, pictures.get(model.frame));
}

function look(frame: number): void {
  const asked = looked.get(frame) ?? 0;
  if (model.mask(frame) || Date.now() - asked < 4000) return;
  if (connection.ask({ type: "look", frame })) looked.set(frame, Date.now());
}

function play(): void {
  model.playing = !model.playing;
  const button = element("play", HTMLButtonElement);
  button.setAttribute("aria-label", model.playing ? "Pause" : "Play");
  element("play-shape", SVGElement).setAttribute("d", model.playing ? "M3.5 3h3v10h-3zM9.5 3h3v10h-3z" : "M4 2.5v11L13.5 8z");
  if (!model.playing) return;
  if (model.frame >= model.frames - 1) seek(0);
  const rate = model.video?.rate ?? 24;
  let from = model.frame, begun = performance.now();
  const tick = (now: number): void => {
    if (!model.playing) return;
    const frame = Math.min(model.frames - 1, from + Math.floor((now - begun) / 1000 * rate));
    if (frame > model.frame) {
      const ready = pictures.get(model.frame + 1);
      // No frame is left out because the network or the disk is slow: time waits instead.
      if (ready) seek(frame - model.frame > 1 && !pictures.get(frame) ? model.frame + 1 : frame, false);
      if (!ready || frame !== model.frame) { show(); from = model.frame; begun = now; }
    }
    if (model.frame >= model.frames - 1) { play(); return; }
    requestAnimationFrame(tick);
  };
  show();
  requestAnimationFrame(tick);
}

function toAnnotated(direction: 1 | -1): void {
  const frames = direction > 0 ? model.state.annotated : [...model.state.annotated].reverse();
  const found = frames.find((frame) => (frame - model.frame) * direction > 0);
  if (found === undefined) say(direction > 0 ? "No painted frame after this one" : "No painted frame before this one");
  else seek(found);
}

function toDoubtful(): void {
  const doubts = [...model.confidence.keys()].filter((frame) => frame !== model.frame)
    .map((frame) => [frame, model.doubt(frame)] as const)
    .filter((one): one is readonly [number, number] => one[1] !== null && !model.state.annotated.includes(one[0]));
  const least = doubts.sort((a, b) => a[1] - b[1])[0];
  if (least) seek(least[0]);
  else say("Nothing was followed yet");
}

// Following

function propagate(first: number, last: number, direction: "forward" | "backward" | "both"): void {
  if (model.progress.doing) return;
  connectionFollows = true;
  if (!connection.ask({ type: "propagate", first, last, direction })) say("There is no connection at the moment");
}

function update(): void {
  if (model.progress.doing) return;
  connectionFollows = true;
  if (!connection.ask({ type: "update" })) say("There is no connection at the moment");
}

function stop(): void {
  if (model.progress.doing) connection.ask({ type: "stop" });
}

function follow(progress: Progress): void {
  const ended = model.progress.doing && !progress.doing;
  model.progress = progress;
  element("running").hidden = !progress.doing;
  element("follow-choices").hidden = Boolean(progress.doing);
  const bar = element("progress", HTMLProgressElement);
  if (progress.done) { bar.max = progress.total; bar.value = progress.done; } else bar.removeAttribute("value");
  const parts = [progress.done ? `${progress.done} of ${progress.total} frames` : `${progress.doing}…`];
  if (progress.rate) parts.push(`${progress.rate.toFixed(progress.rate < 10 ? 1 : 0)} frames/s`);
  if (progress.left !== null) parts.push(`${duration(progress.left)} left`);
  element("progress-about").textContent = parts.join(" · ");
  if (ended) { connectionFollows = false; describe(); show(); }
}

function duration(seconds: number): string {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}

// Export

function formats(video: Welcome): void {
  const box = element("formats");
  box.replaceChildren(...video.exports.map(({ id, name, about }, i) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "format", value: id, checked: !i });
    label.append(input, Object.assign(document.createElement("span"), { textContent: name }), Object.assign(document.createElement("small"), { textContent: about }));
    return label;
  }));
}

function runExport(): void {
  const chosen = document.querySelector<HTMLInputElement>("#formats input:checked");
  if (!chosen || exporting) return;
  exporting = connection.ask({ type: "export", format: chosen.value });
  element("export-about").textContent = exporting ? "Writing…" : "There is no connection at the moment";
}

function exported(path: string, text: string): void {
  exporting = false;
  element("export-about").textContent = `${text}: ${path}`;
}

// What the page says

function say(text: string): void {
  const status = element("status");
  status.textContent = text;
  if (element("export", HTMLDialogElement).open) element("export-about").textContent = text;
  clearTimeout(quiet);
  quiet = window.setTimeout(() => { status.textContent = ""; }, 6000);
}
let quiet = 0;
let link: Link = "connecting";

function describe(now: Link = link): void {
  link = now;
  const { state } = model;
  const undo = element("undo", HTMLButtonElement), redo = element("redo", HTMLButtonElement);
  undo.disabled = !state.undo && !connection?.unsent;
  redo.disabled = !state.redo;
  undo.title = state.undo ? `Undo: ${state.undo}` : "";
  redo.title = state.redo ? `Redo: ${state.redo}` : "";
  const waiting = connection?.unsent ?? 0;
  const line = !model.video ? "Opening…" : saved ? `Not saved: ${saved}` : link !== "open" ? "No connection" : waiting ? "Saving…" : "All changes saved";
  if (element("saved").textContent !== line) element("saved").textContent = line;
  element("saved").title = model.video ? `Project: ${model.video.folder}` : "";
  element("no-objects").hidden = state.objects.length > 0;
  element("frame-about").textContent = aboutFrame();
  for (const { tool, hint } of TOOLS) {
    const button = element(`tool-${tool}`, HTMLButtonElement);
    button.setAttribute("aria-pressed", String(tool === model.tool));
    if (tool === model.tool) element("hint").textContent = isPrompt(tool) && model.promptProblem !== null ? `Not available: ${model.promptProblem}` : hint;
  }
  element("size-box").hidden = model.tool !== "brush" && model.tool !== "erase";
  element("cut-box").hidden = model.tool !== "polygon";
  element("canvas").classList.toggle("hand", model.tool === "hand");
  for (const id of ["fill", "clear"]) element(id, HTMLButtonElement).disabled = !model.object();
  for (const id of ["update", "forward", "backward", "span"]) element(id, HTMLButtonElement).disabled = !state.annotated.length;
  timeline.redraw();
}

function isPrompt(tool: Tool): boolean { return tool === "click" || tool === "box"; }

function aboutFrame(): string {
  const kinds = [model.state.annotated.includes(model.frame) ? "painted" : "", model.confidence.has(model.frame) ? "followed" : ""];
  const kind = kinds.filter(Boolean).join(" and ") || "nothing painted or followed yet";
  const sure = model.confidence.get(model.frame)?.[String(model.selected)];
  const thing = model.object();
  return `Frame ${model.frame}: ${kind}${sure !== undefined && thing ? `; ${thing.name} ${sure} % sure` : ""}.`;
}

function setSize(value: number): void {
  model.size = Math.min(Math.max(1, Math.round(value)), 2000);
  const range = element("size", HTMLInputElement);
  range.max = String(Math.max(200, model.video?.height ?? 0));
  range.value = String(model.size);
  element("size-shown").textContent = `${model.size} px`;
  canvas.redraw();
}

function setTool(tool: Tool): void {
  if (tool !== model.tool) canvas.cancel();
  model.tool = tool;
  describe();
  canvas.redraw();
}

function act(tool: "fill" | "clear"): void {
  const thing = model.object();
  if (thing) draw(tool, [], 1);
}

function setMasks(shown: boolean): void {
  model.masksShown = shown;
  element("masks", HTMLInputElement).checked = shown;
  canvas.redraw();
}

function arrow(x: number, y: number, step: number): void {
  if (canvas.cursor) canvas.moveCursor(x * Math.max(1, step), y * Math.max(1, step));
  else if (x) seek(model.frame + x * step);
}

const shortcuts: Shortcut[] = [
  ...TOOLS.map(({ tool, name, key }): Shortcut => ({ keys: [key.toLowerCase()], shown: key, about: name, group: "Tools", run: () => setTool(tool) })),
  { keys: ["f"], shown: "F", about: "Fill holes of the object", group: "Tools", run: () => act("fill") },
  { keys: ["delete"], shown: "Delete", about: "Take back the object's mask on this frame", group: "Tools", run: () => act("clear") },
  { keys: ["["], shown: "[", about: "Smaller brush", group: "Tools", run: () => setSize(Math.min(model.size - 1, model.size / 1.25)) },
  { keys: ["]"], shown: "]", about: "Larger brush", group: "Tools", run: () => setSize(Math.max(model.size + 1, model.size * 1.25)) },
  { keys: ["k"], shown: "K", about: "Keyboard cursor: arrows move it, Enter draws", group: "Tools", run: () => { element("canvas").focus(); say(canvas.toggleCursor() ? "Arrows move the cursor, Enter draws, Shift+Enter clicks what does not belong" : "Keyboard cursor is off"); } },
  { keys: ["enter"], shown: "Enter", about: "Close the polygon; draw at the keyboard cursor", group: "Tools", run: () => { if (!canvas.cursor) canvas.close(); else canvas.pressCursor(false); } },
  { keys: ["ctrl+enter"], shown: "Ctrl Enter", about: "Close the polygon", group: "Tools", run: () => { canvas.close(); } },
  { keys: ["shift+enter"], shown: "Shift Enter", about: "Click at the keyboard cursor: not the object", group: "Tools", run: () => canvas.pressCursor(true) },
  { keys: ["backspace"], shown: "Backspace", about: "Take back the polygon's last corner", group: "Tools", run: () => { canvas.back(); } },
  { keys: ["escape"], shown: "Esc", about: "Drop what is begun", group: "Tools", run: () => { if (!canvas.cancel() && canvas.cursor) canvas.toggleCursor(); } },
  { keys: ["ctrl+z"], shown: "Ctrl Z", about: "Undo", group: "Changes", run: () => change({ type: "undo" }) },
  { keys: ["ctrl+y", "ctrl+shift+z"], shown: "Ctrl Y", about: "Redo", group: "Changes", run: () => change({ type: "redo" }) },
  { keys: ["a"], shown: "A", about: "Add an object", group: "Changes", run: addObject },
  ...Array.from({ length: 9 }, (_, i): Shortcut => ({ keys: [String(i + 1)], shown: i ? String(i + 1) : "1 … 9", about: "Select an object", group: i ? "" : "Changes", run: () => objects.select(i) })),
  { keys: ["ctrl+e"], shown: "Ctrl E", about: "Export", group: "Changes", run: () => element("export", HTMLDialogElement).showModal() },
  { keys: ["space"], shown: "Space", about: "Play or pause", group: "Frames", run: play },
  { keys: ["arrowleft"], shown: "←", about: "Previous frame", group: "Frames", run: () => arrow(-1, 0, 1) },
  { keys: ["arrowright"], shown: "→", about: "Next frame", group: "Frames", run: () => arrow(1, 0, 1) },
  { keys: ["shift+arrowleft"], shown: "Shift ←", about: "Ten frames back", group: "Frames", run: () => arrow(-1, 0, 10) },
  { keys: ["shift+arrowright"], shown: "Shift →", about: "Ten frames on", group: "Frames", run: () => arrow(1, 0, 10) },
  { keys: ["arrowup"], shown: "↑", about: "Keyboard cursor up", group: "", run: () => arrow(0, -1, 1) },
  { keys: ["arrowdown"], shown: "↓", about: "Keyboard cursor down", group: "", run: () => arrow(0, 1, 1) },
  { keys: ["shift+arrowup"], shown: "Shift ↑", about: "Keyboard cursor up", group: "", run: () => arrow(0, -1, 10) },
  { keys: ["shift+arrowdown"], shown: "Shift ↓", about: "Keyboard cursor down", group: "", run: () => arrow(0, 1, 10) },
  { keys: ["home"], shown: "Home", about: "First frame", group: "Frames", run: () => seek(0) },
  { keys: ["end"], shown: "End", about: "Last frame", group: "Frames", run: () => seek(model.frames - 1) },
  { keys: ["pageup"], shown: "Page Up", about: "Painted frame before", group: "Frames", run: () => toAnnotated(-1) },
  { keys: ["pagedown"], shown: "Page Down", about: "Painted frame after", group: "Frames", run: () => toAnnotated(1) },
  { keys: ["d"], shown: "D", about: "Frame that is least sure", group: "Frames", run: toDoubtful },
  { keys: ["g"], shown: "G", about: "Go to a frame", group: "Frames", run: () => element("frame", HTMLInputElement).select() },
  { keys: ["u"], shown: "U", about: "Follow what is new or changed", group: "Following", run: update },
  { keys: ["w"], shown: "W", about: "Follow forward from here", group: "Following", run: () => propagate(model.frame, model.frames - 1, "forward") },
  { keys: ["q"], shown: "Q", about: "Follow backward from here", group: "Following", run: () => propagate(0, model.frame, "backward") },
  { keys: ["s"], shown: "S", about: "Stop", group: "Following", run: stop },
  { keys: ["+", "="], shown: "+", about: "Zoom in", group: "View", run: () => canvas.zoom(1.25) },
  { keys: ["-"], shown: "−", about: "Zoom out", group: "View", run: () => canvas.zoom(0.8) },
  { keys: ["0"], shown: "0", about: "Fit the picture", group: "View", run: () => canvas.fit() },
  { keys: ["m"], shown: "M", about: "Show or hide masks", group: "View", run: () => setMasks(!model.masksShown) },
  { keys: ["?"], shown: "?", about: "This sheet", group: "View", run: () => element("help", HTMLDialogElement).showModal() },
];

// Where this tab was before it was reloaded.
interface Restored { frame: number; tool: Tool; selected: number; size: number; opacity: number; hidden: number[] }
const restored = ((): Restored | null => {
  try { return JSON.parse(sessionStorage.getItem("s3-annotate view") ?? "null") as Restored | null; } catch { return null; }
})();

function begin(): void {
  if (restored) {
    Object.assign(model, { tool: restored.tool, selected: restored.selected, opacity: restored.opacity, hidden: new Set(restored.hidden) });
    element("opacity", HTMLInputElement).value = String(Math.round(100 * restored.opacity));
  }
  const tools = element("tools");
  for (const { tool, name, key, path } of TOOLS) {
    const button = document.createElement("button");
    button.id = `tool-${tool}`;
    button.append(icon(path, 22), name, Object.assign(document.createElement("kbd"), { textContent: key }));
    button.addEventListener("click", () => setTool(tool));
    tools.append(button);
  }
  const press = (id: string, run: () => void): void => element(id).addEventListener("click", run);
  press("undo", () => change({ type: "undo" }));
  press("redo", () => change({ type: "redo" }));
  press("add", addObject);
  press("fill", () => act("fill"));
  press("clear", () => act("clear"));
  press("fit", () => canvas.fit());
  press("update", update);
  press("forward", () => propagate(model.frame, model.frames - 1, "forward"));
  press("backward", () => propagate(0, model.frame, "backward"));
  press("span", () => propagate(number("first"), number("last"), "both"));
  press("stop", stop);
  press("previous", () => seek(model.frame - 1));
  press("next", () => seek(model.frame + 1));
  press("play", play);
  press("open-help", () => element("help", HTMLDialogElement).showModal());
  press("open-export", () => { element("export-about").textContent = ""; element("export", HTMLDialogElement).showModal(); });
  press("export-go", runExport);
  press("export-close", () => element("export", HTMLDialogElement).close());
  press("take", () => connection.open());
  element("taken").addEventListener("cancel", (event) => event.preventDefault());
  element("frame").addEventListener("change", () => seek(number("frame")));
  element("size").addEventListener("input", () => setSize(number("size")));
  element("cut").addEventListener("change", () => { model.cutting = element("cut", HTMLInputElement).checked; });
  element("opacity").addEventListener("input", () => { model.opacity = number("opacity") / 100; canvas.redraw(); });
  element("masks").addEventListener("change", () => setMasks(element("masks", HTMLInputElement).checked));
  window.addEventListener("pagehide", () => {
    const { frame, tool, selected, size, opacity, hidden } = model;
    sessionStorage.setItem("s3-annotate view", JSON.stringify({ frame, tool, selected, size, opacity, hidden: [...hidden] }));
  });
  fillSheet(element("keys"), shortcuts.filter((one) => one.group));
  listen(shortcuts);
  describe();
  connection.open();
}

function number(id: string): number { return Math.round(Number(element(id, HTMLInputElement).value) || 0); }

begin();
