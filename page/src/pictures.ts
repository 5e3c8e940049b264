// Frames as bitmaps, fetched when wanted, within a bound of bytes.

const MOST_BYTES = 160e6;

export type Picture = ImageBitmap | "damaged";

export class Pictures {
  private kept = new Map<number, Picture>();
  private wanted = new Map<number, Promise<void>>();
  private bytes = 0;

  constructor(private arrived: (frame: number) => void) {}

  get(frame: number): Picture | undefined {
    const picture = this.kept.get(frame);
    if (picture) {
      this.kept.delete(frame);
      this.kept.set(frame, picture);
    }
    return picture;
  }

  want(frame: number): void {
    if (this.kept.has(frame) || this.wanted.has(frame)) return;
    this.wanted.set(frame, this.load(frame).finally(() => this.wanted.delete(frame)));
  }

  get waiting(): number { return this.wanted.size; }

  private async load(frame: number): Promise<void> {
    try {
      const answer = await fetch(`frame/${frame}`);
      if (!answer.ok) return;
      const blob = await answer.blob();
      this.keep(frame, answer.status === 204 || !blob.size ? "damaged" : await createImageBitmap(blob));
    } catch {
      return; // the server is away; the connection says so, and the frame is asked for again
    }
    this.arrived(frame);
  }

  private keep(frame: number, picture: Picture): void {
    this.kept.set(frame, picture);
    this.bytes += size(picture);
    for (const [other, old] of this.kept) {
      if (this.bytes <= MOST_BYTES || other === frame) break;
      this.kept.delete(other);
      this.bytes -= size(old);
      if (old !== "damaged") old.close();
    }
  }
}

function size(picture: Picture): number {
  return picture === "damaged" ? 0 : picture.width * picture.height * 4;
}
