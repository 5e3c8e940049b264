// The list of objects: which one is drawn, its name and colour, whether it is shown.

import { element, icon } from "./elements.js";
import type { Model } from "./model.js";
import type { Change, Thing } from "./protocol.js";

const EYE = "M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8zM8 6.2a1.8 1.8 0 100 3.6 1.8 1.8 0 000-3.6z";
const SHUT = "M1.5 6.5S4 10.5 8 10.5s6.5-4 6.5-4M4 9.5l-1.2 2M8 10.5v2.3M12 9.5l1.2 2";
const BIN = "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5";

export class Objects {
  constructor(private model: Model, private change: (made: Change) => void, private shown: () => void) {}

  redraw(): void {
    const list = element("objects");
    const focused = document.activeElement?.id;
    if (focused?.startsWith("name-") && this.matches(list)) return; // a name is being typed
    list.replaceChildren(...this.model.state.objects.map((thing) => this.row(thing)));
    if (focused) document.getElementById(focused)?.focus();
  }

  select(place: number): void {
    const thing = this.model.state.objects[place];
    if (!thing) return;
    this.model.selected = thing.id;
    this.redraw();
    this.shown();
  }

  private matches(list: HTMLElement): boolean {
    return list.children.length === this.model.state.objects.length;
  }

  private row(thing: Thing): HTMLLIElement {
    const { model } = this;
    const row = document.createElement("li");
    row.classList.toggle("selected", thing.id === model.selected);
    const radio = this.input("radio", `Draw ${thing.name}`, `pick-${thing.id}`);
    radio.name = "object";
    radio.checked = thing.id === model.selected;
    radio.addEventListener("change", () => this.pick(thing.id));
    const colour = this.input("color", `Colour of ${thing.name}`, `colour-${thing.id}`);
    colour.value = thing.colour;
    colour.addEventListener("change", () => this.change({ type: "object", object: thing.id, name: this.now(thing).name, colour: colour.value }));
    const name = this.input("text", `Name of ${thing.name}`, `name-${thing.id}`);
    name.value = thing.name;
    name.maxLength = 80;
    name.addEventListener("focus", () => this.pick(thing.id, row));
    name.addEventListener("change", () => {
      if (name.value.trim()) this.change({ type: "object", object: thing.id, name: name.value.trim(), colour: this.now(thing).colour });
      else name.value = thing.name;
    });
    const hidden = model.hidden.has(thing.id);
    const eye = this.button(hidden ? SHUT : EYE, hidden ? `Show ${thing.name}` : `Hide ${thing.name}`, `eye-${thing.id}`);
    eye.addEventListener("click", () => {
      if (!model.hidden.delete(thing.id)) model.hidden.add(thing.id);
      this.redraw();
      this.shown();
    });
    const bin = this.button(BIN, `Delete ${thing.name}`, `bin-${thing.id}`);
    bin.addEventListener("click", () => this.change({ type: "remove", object: thing.id }));
    row.append(radio, colour, name, eye, bin);
    return row;
  }

  private pick(id: number, row?: HTMLElement): void {
    this.model.selected = id;
    if (row) {
      for (const other of element("objects").children) other.classList.toggle("selected", other === row);
      row.querySelector<HTMLInputElement>("input[type=radio]")!.checked = true;
    } else this.redraw();
    this.shown();
  }

  private now(thing: Thing): Thing { return this.model.object(thing.id) ?? thing; }

  private input(type: string, label: string, id: string): HTMLInputElement {
    const input = Object.assign(document.createElement("input"), { type, id });
    input.setAttribute("aria-label", label);
    return input;
  }

  private button(path: string, label: string, id: string): HTMLButtonElement {
    const button = Object.assign(document.createElement("button"), { id, title: label });
    button.setAttribute("aria-label", label);
    button.append(icon(path, 16));
    return button;
  }
}
