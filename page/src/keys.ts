// Keyboard shortcuts, and the sheet that lists them: one table for both.

export interface Shortcut { keys: string[]; shown: string; about: string; group: string; run(event: KeyboardEvent): void }

// A key as written in the table: "ctrl+z", "shift+arrowright", "b".
export function nameOf(event: KeyboardEvent): string {
  const parts = [event.ctrlKey || event.metaKey ? "ctrl" : "", event.altKey ? "alt" : ""];
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  if (event.shiftKey && (key.length > 1 || /[a-z]/.test(key))) parts.push("shift");
  return [...parts, key].filter(Boolean).join("+");
}

export function listen(shortcuts: Shortcut[]): void {
  const table = new Map(shortcuts.flatMap((one) => one.keys.map((key) => [key, one] as const)));
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || typing(event)) return;
    const found = table.get(nameOf(event));
    if (!found) return;
    event.preventDefault();
    found.run(event);
  });
}

export function fillSheet(sheet: HTMLElement, shortcuts: Shortcut[]): void {
  for (const group of new Set(shortcuts.map((one) => one.group))) {
    const list = shortcuts.filter((one) => one.group === group);
    const section = document.createElement("section");
    section.append(Object.assign(document.createElement("h3"), { textContent: group }));
    for (const one of list) {
      const row = document.createElement("div");
      row.append(Object.assign(document.createElement("span"), { textContent: one.about }));
      row.append(Object.assign(document.createElement("kbd"), { textContent: one.shown }));
      section.append(row);
    }
    sheet.append(section);
  }
}

// Keys that a focused control needs for itself.
function typing(event: KeyboardEvent): boolean {
  const target = event.target as HTMLElement;
  const plain = !(event.ctrlKey || event.metaKey);
  if (target instanceof HTMLInputElement) {
    if (target.type === "text" || target.type === "number") {
      if (event.key === "Escape" || event.key === "Enter") target.blur();
      return plain || !["z", "y", "e"].includes(event.key.toLowerCase()) || target.type === "text";
    }
    if (target.type === "range" || target.type === "radio") return plain && /^(Arrow|Home|End|Page| )/.test(event.key);
    return plain && event.key === " ";
  }
  return target instanceof HTMLButtonElement && plain && (event.key === " " || event.key === "Enter");
}
