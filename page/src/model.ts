// What the page knows: the server's state, and what is shown of it.

import type { Mask, Percent, Progress, State, Thing, Welcome } from "./protocol.js";

export type Tool = "brush" | "erase" | "polygon" | "box" | "click" | "hand";
const MOST_MASKS = 600;

export class Model {
  video: Welcome | null = null;
  state: State = { type: "state", objects: [], annotated: [], undo: "", redo: "", next: { id: 1, name: "Object 1", colour: "#ff6b5e" }, version: 0 };
  progress: Progress = { type: "progress", doing: "", done: 0, total: 0, rate: 0, left: null };
  confidence = new Map<number, Percent>();
  frame = 0;
  tool: Tool = "brush";
  cutting = false;
  size = 24;
  opacity = 0.5;
  masksShown = true;
  selected = 0;
  hidden = new Set<number>();
  promptProblem: string | null = "The prompt head is being loaded";
  playing = false;
  watching = true; // the frame that is being followed
  private masks = new Map<number, Mask>();

  get frames(): number { return this.video?.frames ?? 1; }

  mask(frame: number): Mask | undefined { return this.masks.get(frame); }

  take(mask: Mask): void {
    this.masks.delete(mask.frame);
    this.masks.set(mask.frame, mask);
    if (Object.keys(mask.confidence).length) this.confidence.set(mask.frame, mask.confidence);
    for (const frame of this.masks.keys()) {
      if (this.masks.size <= MOST_MASKS) break;
      this.masks.delete(frame);
    }
  }

  forget(): void { this.masks.clear(); }

  object(id = this.selected): Thing | undefined { return this.state.objects.find((thing) => thing.id === id); }

  begin(video: Welcome): void {
    this.video = video;
    this.confidence = new Map(Object.entries(video.confidence).map(([frame, value]) => [Number(frame), value]));
    this.frame = Math.min(this.frame, video.frames - 1);
  }

  update(state: State): void {
    if (state.version !== this.state.version) this.forget();
    this.state = state;
    if (!this.object()) this.selected = state.objects[0]?.id ?? 0;
  }

  // The least sure object of a frame that is shown, in percent; null where nothing was followed.
  doubt(frame: number): number | null {
    const values = Object.entries(this.confidence.get(frame) ?? {})
      .filter(([id, value]) => value > 0 && !this.hidden.has(Number(id)) && this.object(Number(id)))
      .map(([, value]) => value);
    return values.length ? Math.min(...values) : null;
  }
}
