// The picture: a frame, its masks, what is being drawn, and drawing itself. Positions are pixels of
// the video's full size.

import type { Change, Edit, EditTool, Mask, Point } from "./protocol.js";
import type { Model } from "./model.js";
import type { Picture } from "./pictures.js";

interface Handlers {
  draw(tool: EditTool, points: Point[], label: number): void;
  pending(): Change[];
  size(value: number): void;
}

export class Canvas {
  private context: CanvasRenderingContext2D;
  private overlay = document.createElement("canvas");
  private overlayOf = "";
  private picture: Picture | undefined;
  private pictureFrame = -1;
  private scale = 0; // screen pixels per pixel of the video; 0: as large as fits
  private left = 0;
  private top = 0;
  private points: Point[] = [];
  private drawing = false;
  private negative = false;
  private panning: { x: number; y: number } | null = null;
  private pointer: Point | null = null;
  private applied: { edit: Edit; mask: Mask | undefined }[] = [];
  private due = false;
  cursor: Point | null = null; // of the keyboard

  constructor(private element: HTMLCanvasElement, private model: Model, private handlers: Handlers) {
    this.context = element.getContext("2d")!;
    new ResizeObserver(() => this.redraw()).observe(element);
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    element.addEventListener("pointerup", (event) => this.up(event));
    element.addEventListener("pointercancel", () => this.cancel());
    element.addEventListener("pointerleave", () => { this.pointer = null; this.redraw(); });
    element.addEventListener("dblclick", () => this.close());
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  show(frame: number, picture: Picture | undefined): void {
    if (frame !== this.pictureFrame && this.model.tool !== "hand") this.cancel();
    if (picture || frame !== this.pictureFrame) this.picture = picture ?? this.picture;
    this.pictureFrame = frame;
    this.redraw();
  }

  // The server has taken an edit: it is drawn until the frame's new mask comes.
  taken(edit: Edit): void { this.applied.push({ edit, mask: this.model.mask(edit.frame) }); }

  redraw(): void {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.paint(); });
  }

  zoom(factor: number, centre?: Point): void {
    const at = centre ?? this.toVideo(this.element.clientWidth / 2, this.element.clientHeight / 2);
    const before = this.toScreen(at);
    this.settle();
    this.scale = Math.min(40, Math.max(0.05, this.scale * factor));
    this.left = before[0] - at[0] * this.scale;
    this.top = before[1] - at[1] * this.scale;
    this.redraw();
  }

  fit(): void { this.scale = 0; this.redraw(); }

  get zoomed(): number { return this.placement().scale; }

  // What is begun and not finished, such as a polygon, is dropped; tells whether there was any.
  cancel(): boolean {
    const begun = this.points.length > 0;
    this.points = [];
    this.drawing = false;
    this.panning = null;
    this.redraw();
    return begun;
  }

  back(): boolean {
    if (this.model.tool !== "polygon" || !this.points.length) return false;
    this.points.pop();
    this.redraw();
    return true;
  }

  close(): boolean {
    if (this.model.tool !== "polygon" || this.points.length < 3) return false;
    this.finish(this.model.cutting ? "cut" : "polygon");
    return true;
  }

  // The keyboard's own pointer: moved by arrows, pressed by Enter.
  toggleCursor(): boolean {
    const video = this.model.video;
    this.cursor = this.cursor || !video ? null : [video.width / 2, video.height / 2];
    this.cancel();
    return this.cursor !== null;
  }

  moveCursor(x: number, y: number): void {
    const video = this.model.video;
    if (!this.cursor || !video) return;
    this.cursor = [
      Math.min(video.width - 0.5, Math.max(0.5, this.cursor[0] + x)),
      Math.min(video.height - 0.5, Math.max(0.5, this.cursor[1] + y)),
    ];
    if (this.drawing) this.extend(this.cursor);
    this.redraw();
  }

  pressCursor(negative: boolean): void {
    if (!this.cursor) return;
    if (this.drawing) this.release();
    else this.press(this.cursor, negative);
  }

  private down(event: PointerEvent): void {
    this.element.focus();
    if (!this.model.video) return;  // where a pixel lies is known once the server has said hello
    this.element.setPointerCapture(event.pointerId);
    if (event.button === 1 || this.model.tool === "hand") {
      this.panning = { x: event.offsetX, y: event.offsetY };
      return;
    }
    if (event.button === 0 || this.model.tool === "click") {
      this.press(this.toVideo(event.offsetX, event.offsetY), event.button === 2 || event.altKey);
    }
  }

  private move(event: PointerEvent): void {
    if (this.panning) {
      this.settle();
      this.left += event.offsetX - this.panning.x;
      this.top += event.offsetY - this.panning.y;
      this.panning = { x: event.offsetX, y: event.offsetY };
    }
    this.pointer = this.toVideo(event.offsetX, event.offsetY);
    if (this.drawing) {
      for (const part of event.getCoalescedEvents?.() ?? [event]) {
        this.extend(this.toVideo(part.offsetX, part.offsetY));
      }
    }
    this.redraw();
  }

  private up(event: PointerEvent): void {
    this.panning = null;
    if (this.drawing && event.button !== 1) this.release();
  }

  private press(at: Point, negative: boolean): void {
    this.negative = negative;
    switch (this.model.tool) {
      case "click":
        this.points = [at];
        this.finish("click");
        break;
      case "polygon":
        if (this.points.length > 2 && this.near(at, this.points[0]!)) this.close();
        else if (!this.points.length || !this.near(at, this.points.at(-1)!)) this.points.push(at);
        break;
      case "box":
        this.points = [at, at];
        this.drawing = true;
        break;
      case "brush":
      case "erase":
        this.points = [at];
        this.drawing = true;
        break;
    }
    this.redraw();
  }

  private extend(at: Point): void {
    if (this.model.tool === "box") {
      this.points[1] = at;
      return;
    }
    const last = this.points.at(-1);
    const step = Math.max(0.5, this.model.size / 12);
    if (!last || Math.hypot(at[0] - last[0], at[1] - last[1]) >= step) this.points.push(at);
    if (this.points.length >= 15_000) {
      this.release();
      this.points = [at];
      this.drawing = true;
    }
  }

  private release(): void {
    this.drawing = false;
    const [first, last] = this.points;
    if (this.model.tool === "box" && first && last) {
      if (Math.min(Math.abs(first[0] - last[0]), Math.abs(first[1] - last[1])) < 2) this.cancel();
      else this.finish("box");
    } else if (this.points.length) this.finish(this.model.tool === "erase" ? "erase" : "brush");
  }

  private finish(tool: EditTool): void {
    const points = this.points.map(([x, y]): Point => [round(x), round(y)]);
    this.points = [];
    this.handlers.draw(tool, points, this.negative ? 0 : 1);
    this.redraw();
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    if (event.altKey) this.handlers.size(this.model.size * Math.exp(-event.deltaY / 600));
    else this.zoom(Math.exp(-event.deltaY / 500), this.toVideo(event.offsetX, event.offsetY));
  }

  private near(a: Point, b: Point): boolean {
    return Math.hypot(a[0] - b[0], a[1] - b[1]) * this.placement().scale < 8;
  }

  private placement(): { scale: number; left: number; top: number } {
    const video = this.model.video;
    if (this.scale || !video) return { scale: this.scale || 1, left: this.left, top: this.top };
    const { clientWidth, clientHeight } = this.element;
    const scale = Math.min((clientWidth - 24) / video.width, (clientHeight - 24) / video.height);
    return { scale, left: (clientWidth - video.width * scale) / 2, top: (clientHeight - video.height * scale) / 2 };
  }

  private settle(): void { Object.assign(this, this.placement()); }

  private toVideo(x: number, y: number): Point {
    const { scale, left, top } = this.placement();
    return [(x - left) / scale, (y - top) / scale];
  }

  private toScreen([x, y]: Point): Point {
    const { scale, left, top } = this.placement();
    return [x * scale + left, y * scale + top];
  }

  private paint(): void {
    const { element, context, model } = this;
    const dense = devicePixelRatio;
    const [width, height] = [Math.round(element.clientWidth * dense), Math.round(element.clientHeight * dense)];
    if (element.width !== width || element.height !== height) [element.width, element.height] = [width, height];
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!model.video) return;
    const { scale, left, top } = this.placement();
    context.setTransform(scale * dense, 0, 0, scale * dense, left * dense, top * dense);
    this.paintPicture(model.video.width, model.video.height, scale);
    if (model.masksShown) this.paintMask(model.video.width, model.video.height);
    this.paintEdits();
    this.paintPrompt(1 / scale);
    this.paintBegun(1 / scale);
  }

  private paintPicture(width: number, height: number, scale: number): void {
    const { context } = this;
    context.imageSmoothingEnabled = scale < 3;
    if (this.picture && this.picture !== "damaged") {
      context.drawImage(this.picture, 0, 0, width, height);
      return;
    }
    context.fillStyle = "#22272e";
    context.fillRect(0, 0, width, height);
    if (this.picture === "damaged") {
      context.fillStyle = "#e6e9ed";
      context.font = `${16 / scale}px sans-serif`;
      context.textAlign = "center";
      context.fillText("This frame is damaged and cannot be shown", width / 2, height / 2);
    }
  }

  private paintMask(width: number, height: number): void {
    const mask = this.model.mask(this.model.frame);
    if (!mask) return;
    const look = `${this.model.opacity} ${[...this.model.hidden]} ${JSON.stringify(this.model.state.objects)}`;
    if (this.overlayMask !== mask || this.overlayOf !== look) {
      this.fillOverlay(mask);
      [this.overlayMask, this.overlayOf] = [mask, look];
    }
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(this.overlay, 0, 0, width, height);
  }
  private overlayMask: Mask | undefined;

  private fillOverlay(mask: Mask): void {
    [this.overlay.width, this.overlay.height] = [mask.width, mask.height];
    const image = new ImageData(mask.width, mask.height);
    const pixels = new Uint32Array(image.data.buffer);
    const ids = new Uint32Array(pixels.length);
    let start = 0;
    mask.ends.forEach((end, run) => {
      ids.fill(mask.ids[run]!, start, end);
      start = end;
    });
    const colours = new Map(this.model.state.objects
      .filter((thing) => !this.model.hidden.has(thing.id))
      .map((thing) => [thing.id, parseInt(thing.colour.slice(5, 7) + thing.colour.slice(3, 5) + thing.colour.slice(1, 3), 16)]));
    const fill = Math.round(255 * this.model.opacity) << 24;
    const line = Math.round(255 * Math.min(1, this.model.opacity * 2)) << 24;
    const row = mask.width;
    start = 0;
    mask.ends.forEach((end, run) => {
      const id = mask.ids[run]!;
      const colour = colours.get(id);
      if (id && colour !== undefined) {
        for (let i = start; i < end; i++) {
          const edge = i === start || i === end - 1 || ids[i - row] !== id || ids[i + row] !== id;
          pixels[i] = colour | (edge ? line : fill);
        }
      }
      start = end;
    });
    this.overlay.getContext("2d")!.putImageData(image, 0, 0);
  }

  // Strokes that the server has not answered yet.
  private paintEdits(): void {
    const { frame } = this.model;
    this.applied = this.applied.filter(({ edit, mask }) => this.model.mask(edit.frame) === mask);
    const waiting = this.handlers.pending().filter((change): change is Edit => change.type === "edit");
    for (const edit of new Set([...this.applied.map(({ edit }) => edit), ...waiting])) {
      if (edit.frame === frame) this.paintStroke(edit.tool, edit.points, edit.size, edit.object);
    }
  }

  private paintStroke(tool: EditTool, points: Point[], size: number, object: number): void {
    const { context, model } = this;
    const removes = tool === "erase" || tool === "cut";
    context.save();
    context.globalAlpha = removes ? 0.5 : Math.max(0.35, model.opacity);
    context.strokeStyle = context.fillStyle = removes ? "#101316" : (model.object(object) ?? model.state.next).colour;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = size;
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(x, y));
    if (points.length === 1) context.lineTo(points[0]![0] + 0.01, points[0]![1]);
    if (tool === "brush" || tool === "erase") context.stroke();
    else if (tool === "polygon" || tool === "cut") context.fill();
    context.restore();
  }

  private paintPrompt(pixel: number): void {
    const prompt = this.model.mask(this.model.frame)?.prompts[String(this.model.selected)];
    if (!prompt || (this.model.tool !== "click" && this.model.tool !== "box")) return;
    if (prompt.box) this.paintBox([[prompt.box[0], prompt.box[1]], [prompt.box[2], prompt.box[3]]], pixel);
    prompt.points.forEach((point, i) => this.paintMark(point, prompt.labels[i] === 1, pixel));
  }

  private paintMark([x, y]: Point, positive: boolean, pixel: number): void {
    const { context } = this;
    context.beginPath();
    context.arc(x, y, 6 * pixel, 0, 7);
    context.fillStyle = positive ? "#2f9e44" : "#c92a2a";
    context.fill();
    context.lineWidth = 2 * pixel;
    context.strokeStyle = "#ffffff";
    context.stroke();
    context.beginPath();
    context.moveTo(x - 3 * pixel, y);
    context.lineTo(x + 3 * pixel, y);
    if (positive) { context.moveTo(x, y - 3 * pixel); context.lineTo(x, y + 3 * pixel); }
    context.stroke();
  }

  private paintBox(points: Point[], pixel: number): void {
    const [[x, y], [u, v]] = points as [Point, Point];
    this.outlined(() => this.context.rect(Math.min(x, u), Math.min(y, v), Math.abs(u - x), Math.abs(v - y)), pixel);
  }

  // A white line on a dark one, seen on any picture.
  private outlined(trace: () => void, pixel: number): void {
    const { context } = this;
    for (const [width, colour] of [[3.5, "#101316"], [1.5, "#ffffff"]] as const) {
      context.beginPath();
      trace();
      context.lineWidth = width * pixel;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  private paintBegun(pixel: number): void {
    const { context, model } = this;
    const at = this.cursor ?? this.pointer;
    if (model.tool === "box" && this.points.length === 2) this.paintBox(this.points, pixel);
    else if (model.tool === "polygon" && this.points.length) {
      const line = at ? [...this.points, at] : this.points;
      this.outlined(() => line.forEach(([x, y]) => context.lineTo(x, y)), pixel);
      for (const [x, y] of this.points) this.outlined(() => context.arc(x, y, 3.5 * pixel, 0, 7), pixel);
    } else if (this.points.length) {
      this.paintStroke(model.tool === "erase" ? "erase" : "brush", this.points, model.size, model.selected);
    }
    if (at && (model.tool === "brush" || model.tool === "erase")) {
      this.outlined(() => context.arc(at[0], at[1], Math.max(model.size / 2, 1.5 * pixel), 0, 7), pixel);
    }
    if (this.cursor) {
      const [x, y] = this.cursor;
      this.outlined(() => {
        context.moveTo(x - 12 * pixel, y);
        context.lineTo(x + 12 * pixel, y);
        context.moveTo(x, y - 12 * pixel);
        context.lineTo(x, y + 12 * pixel);
      }, pixel);
    }
  }
}

function round(value: number): number { return Math.round(value * 100) / 100; }
