// Copies what needs no building beside the built script, and notes what all of it was made from.
import { createHash } from "node:crypto";
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";

const page = new URL("../s3_jax/annotation/page/", import.meta.url);
const copied = ["icon.svg", "index.html", "page.css"];
for (const name of copied) copyFileSync(new URL(name, import.meta.url), new URL(name, page));
const sources = readdirSync(new URL("src", import.meta.url)).sort().map((name) => `src/${name}`);
const lines = [...copied, ...sources].map((name) => {
  const digest = createHash("sha256").update(readFileSync(new URL(name, import.meta.url))).digest("hex");
  return `${digest}  ${name}\n`;
});
writeFileSync(new URL("sources.sha256", page), lines.join(""));
