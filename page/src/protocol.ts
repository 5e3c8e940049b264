// What the server says and is told; the server's side is annotation/messages.py and studio.py.

export interface Thing { id: number; name: string; colour: string }
export type Point = [number, number];
export interface Prompt { points: Point[]; labels: number[]; box?: [number, number, number, number] | null }
export type Percent = Record<string, number>;

export interface Welcome {
  type: "welcome"; name: string; frames: number; rate: number; width: number; height: number;
  viewWidth: number; viewHeight: number; folder: string; confidence: Record<string, Percent>;
  exports: { id: string; name: string; about: string }[];
}
export interface State {
  type: "state"; objects: Thing[]; annotated: number[]; undo: string; redo: string;
  next: Thing; version: number;
}
export interface Progress {
  type: "progress"; doing: string; done: number; total: number; rate: number; left: number | null;
}
export type Told =
  | Welcome | State | Progress
  | { type: "ack"; page: string; seq: number; saved: boolean }
  | { type: "refused"; page: string; seq: number; text: string }
  | { type: "saved"; problem: string }
  | { type: "prompts"; problem: string }
  | { type: "problem"; text: string }
  | { type: "exported"; path: string; text: string }
  | { type: "exporting"; done: number; total: number }
  | { type: "go"; frame: number }
  | { type: "pong" };

export type EditTool = "brush" | "erase" | "polygon" | "cut" | "box" | "click" | "fill" | "clear";
export interface Edit {
  type: "edit"; frame: number; object: number; tool: EditTool; points: Point[]; size: number; label: number;
}
export type Change =
  | Edit
  | { type: "object"; object: number; name: string; colour: string }
  | { type: "remove"; object: number }
  | { type: "undo" } | { type: "redo" };
export type Request =
  | { type: "hello" | "as"; page: string } | { type: "ping" } | { type: "look"; frame: number }
  | { type: "propagate"; first: number; last: number; direction: "forward" | "backward" | "both" }
  | { type: "update" } | { type: "stop" } | { type: "export"; format: string };

// A frame's mask as runs: where each ends, row by row, and whose it is.
export interface Mask {
  frame: number; width: number; height: number; confidence: Percent;
  prompts: Record<string, Prompt>; ends: Uint32Array; ids: Uint32Array;
}

export function readMask(data: ArrayBuffer): Mask {
  const length = new DataView(data).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length))) as Omit<Mask, "ends" | "ids">;
  const runs = new Uint32Array(data.slice(4 + length));
  const half = runs.length / 2;
  return { ...about, ends: runs.subarray(0, half), ids: runs.subarray(half) };
}
