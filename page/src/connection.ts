// The connection to the server, and what it has not confirmed yet. A change is kept, also in the
// browser's storage, until the server says that it is on the disk; after a break everything that is
// kept is sent again, and the server does each change once.

import { readMask, type Change, type Mask, type Request, type Told } from "./protocol.js";

export type Link = "connecting" | "open" | "lost" | "taken";
interface Kept { page: string; seq: number; change: Change; applied: boolean }
interface Handlers {
  told(message: Told): void;
  masked(mask: Mask): void;
  linked(link: Link, failures: number): void;
}

const TAKEN_OVER = 4001;
const QUIET = 30_000; // milliseconds without a word after which the connection is taken for dead

export class Connection {
  readonly page: string = [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
  private socket: WebSocket | null = null;
  private seq = 0;
  private kept: Kept[] = [];
  private folder = "";
  private heard = 0;
  private failures = 0;
  private timer = 0;
  private taken = false;

  constructor(private handlers: Handlers) {
    setInterval(() => this.check(), 5000);
    window.addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  open(): void {
    this.taken = false;
    clearTimeout(this.timer);
    const address = new URL("talk", location.href);
    address.protocol = "ws:";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.handlers.linked("connecting", this.failures);
    socket.onopen = () => this.begin();
    socket.onmessage = (event) => this.socket === socket && this.hear(event.data as string | ArrayBuffer);
    socket.onclose = (event) => this.socket === socket && this.ended(event);
  }

  // Changes that the server has not confirmed.
  get unsent(): number { return this.kept.length; }

  pending(): Change[] { return this.kept.map((kept) => kept.change); }

  change(change: Change): void {
    const kept = { page: this.page, seq: ++this.seq, change, applied: false };
    this.kept.push(kept);
    this.store();
    this.deliver([kept]);
  }

  ask(request: Request): boolean { return this.send(request); }

  private send(message: object): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  private deliver(list: Kept[]): void {
    let page = this.page;
    for (const kept of list) {
      if (kept.page !== page) this.send({ type: "as", page: kept.page });
      this.send({ ...kept.change, seq: kept.seq });
      page = kept.page;
    }
    if (page !== this.page) this.send({ type: "as", page: this.page });
  }

  private begin(): void {
    this.heard = Date.now();
    this.failures = 0;
    this.send({ type: "hello", page: this.page });
    this.deliver(this.kept);
    this.handlers.linked("open", 0);
  }

  private hear(data: string | ArrayBuffer): void {
    this.heard = Date.now();
    if (typeof data !== "string") {
      this.handlers.masked(readMask(data));
      return;
    }
    const told = JSON.parse(data) as Told;
    if (told.type === "welcome") this.remember(told.folder);
    if (told.type === "ack") this.confirmed(told.page, told.seq, told.saved);
    if (told.type === "refused") this.confirmed(told.page, told.seq, true);
    if (told.type === "saved" && !told.problem) this.keep((kept) => !kept.applied);
    this.handlers.told(told);
  }

  private confirmed(page: string, seq: number, saved: boolean): void {
    const meant = (kept: Kept): boolean => kept.page === page && kept.seq === seq;
    this.kept.filter(meant).forEach((kept) => { kept.applied = true; });
    if (saved) this.keep((kept) => !meant(kept));
  }

  private keep(which: (kept: Kept) => boolean): void {
    this.kept = this.kept.filter(which);
    this.store();
  }

  private ended(event: CloseEvent): void {
    this.socket = null;
    if (event.code === TAKEN_OVER) {
      this.taken = true;
      this.handlers.linked("taken", 0);
      return;
    }
    this.failures += 1;
    this.handlers.linked("lost", this.failures);
    this.timer = window.setTimeout(() => this.open(), Math.min(5000, 400 * 1.6 ** this.failures));
  }

  private check(): void {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    if (Date.now() - this.heard > QUIET) this.socket.close();
    else this.send({ type: "ping" });
  }

  private hurry(): void {
    if (!this.socket && !this.taken) this.open();
    else this.check();
  }

  private store(): void {
    if (!this.folder) return;
    const key = `s3-annotate ${this.folder} ${this.page}`;
    try {
      if (this.kept.length) localStorage.setItem(key, JSON.stringify(this.kept));
      else localStorage.removeItem(key);
    } catch {
      // The storage is full or forbidden: what is kept is in memory only.
    }
  }

  // Adopt what another tab, or this one before it was reloaded, left unconfirmed.
  private remember(folder: string): void {
    if (this.folder) return;
    this.folder = folder;
    const prefix = `s3-annotate ${folder} `;
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(prefix));
    const left = keys.flatMap((key) => JSON.parse(localStorage.getItem(key) ?? "[]") as Kept[]);
    this.kept.unshift(...left);
    this.store();
    keys.forEach((key) => localStorage.removeItem(key));
    this.deliver(left);
  }
}
