// All frames in a line: which are painted, which followed, how sure the network was.

import type { Model } from "./model.js";

export class Timeline {
  private context: CanvasRenderingContext2D;
  private due = false;

  constructor(private element: HTMLCanvasElement, private model: Model, seek: (frame: number) => void) {
    this.context = element.getContext("2d")!;
    new ResizeObserver(() => this.redraw()).observe(element);
    const at = (event: PointerEvent) => seek(Math.round((event.offsetX - 6) / (element.clientWidth - 12) * (model.frames - 1)));
    element.addEventListener("pointerdown", (event) => { element.setPointerCapture(event.pointerId); at(event); });
    element.addEventListener("pointermove", (event) => { if (element.hasPointerCapture(event.pointerId)) at(event); });
  }

  redraw(): void {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.paint(); });
  }

  describe(): void {
    const { element, model } = this;
    const kind = model.state.annotated.includes(model.frame) ? ", painted" : model.confidence.has(model.frame) ? ", followed" : "";
    element.setAttribute("aria-valuemax", String(model.frames - 1));
    element.setAttribute("aria-valuenow", String(model.frame));
    element.setAttribute("aria-valuetext", `Frame ${model.frame} of ${model.frames}${kind}`);
  }

  private x(frame: number): number {
    return 6 + frame / Math.max(1, this.model.frames - 1) * (this.element.clientWidth - 12);
  }

  private paint(): void {
    const { element, context, model } = this;
    const dense = devicePixelRatio;
    [element.width, element.height] = [Math.round(element.clientWidth * dense), Math.round(element.clientHeight * dense)];
    context.setTransform(dense, 0, 0, dense, 0, 0);
    const height = element.clientHeight;
    context.fillStyle = "#0c0e11";
    context.fillRect(0, 0, element.clientWidth, height);
    const width = Math.max(1, (element.clientWidth - 12) / Math.max(1, model.frames - 1));
    this.paintFollowed(width, height);
    this.paintCurve(height);
    context.fillStyle = "#ffd43b";
    for (const frame of model.state.annotated) {
      context.fillRect(this.x(frame) - Math.max(1.5, Math.min(3, width / 2)), 2, Math.max(3, Math.min(6, width)), 10);
    }
    const x = this.x(model.frame);
    context.fillStyle = "#ffffff";
    context.fillRect(x - 1, 0, 2, height);
    context.beginPath();
    context.moveTo(x - 6, 0);
    context.lineTo(x + 6, 0);
    context.lineTo(x, 7);
    context.fill();
    this.describe();
  }

  private paintFollowed(width: number, height: number): void {
    this.context.fillStyle = "#3f5f7d";
    for (const frame of this.model.confidence.keys()) {
      this.context.fillRect(this.x(frame) - width / 2, height - 6, width + 0.5, 5);
    }
  }

  // The least of each column of pixels: a single bad frame of many thousands is still seen.
  private paintCurve(height: number): void {
    const { context, model } = this;
    const columns = new Map<number, number>();
    for (const frame of model.confidence.keys()) {
      const doubt = model.doubt(frame);
      if (doubt === null) continue;
      const column = Math.round(this.x(frame));
      columns.set(column, Math.min(doubt, columns.get(column) ?? 100));
    }
    const gap = Math.max(3, 3 * (this.element.clientWidth - 12) / Math.max(1, model.frames - 1));
    context.strokeStyle = "#63e6be";
    context.lineWidth = 1.5;
    context.beginPath();
    let before = -1e9;
    for (const [column, value] of [...columns].sort((a, b) => a[0] - b[0])) {
      const y = 16 + (100 - value) / 100 * (height - 28);
      if (column - before > gap) context.moveTo(column, y);
      else context.lineTo(column, y);
      before = column;
    }
    context.stroke();
  }
}
