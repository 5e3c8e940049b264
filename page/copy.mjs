// Copies what needs no building beside the built script.
import { copyFileSync } from "node:fs";

for (const name of ["index.html", "page.css", "icon.svg"]) {
  copyFileSync(new URL(name, import.meta.url), new URL(`../s3_jax/annotation/page/${name}`, import.meta.url));
}
