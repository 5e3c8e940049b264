// Elements of the page by id, and icons.

export function element(id: string): HTMLElement;
export function element<T extends Element>(id: string, kind: new () => T): T;
export function element(id: string, kind: new () => Element = HTMLElement): Element {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${id}`);
  return found;
}

export function icon(path: string, size: number): SVGElement {
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("viewBox", `0 0 ${size} ${size}`);
  drawing.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(space, "path");
  shape.setAttribute("d", path);
  drawing.append(shape);
  return drawing;
}
