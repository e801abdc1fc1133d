import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { returnTo } from "../src/index.js";

const root = new URL("..", import.meta.url).pathname;

/** Bytes that a browser gets, bundled, minified and compressed as apps are. */
async function size(entry: string): Promise<number> {
  const { outputFiles } = await build({
    entryPoints: [root + entry],
    ...{ bundle: true, minify: true, write: false, format: "esm", target: "es2022", external: ["react"] },
  });
  return gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
}

test("the library is a few KB, and its bindings for React little more", async () => {
  expect(await size("src/index.ts")).toBeLessThan(6.3 * 1024);
  expect(await size("src/react.tsx")).toBeLessThan(2 * 1024);
});

test("it depends on nothing", () => {
  const manifest = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
  expect(manifest.dependencies).toBeUndefined();
  expect(manifest.sideEffects).toBe(false);
});

test("npm pack runs no scripts here, so the README says to build first", () => {
  expect(readFileSync(`${root}.npmrc`, "utf8")).toContain("ignore-scripts=true");
  expect(readFileSync(`${root}README.md`, "utf8")).toContain("npm ci && npm run build && npm pack");
});

test("every code in the service's table of errors is one that editors know", () => {
  const table = readFileSync(`${root}../../README.md`, "utf8").split("## Errors")[1]!.split("\n## ")[0]!;
  const rows = table.split("\n").filter((line) => /^\| \d/.test(line));
  const codes = rows.flatMap((row) => row.split("|")[2]!.match(/[A-Z_]+/g)!);
  const union = readFileSync(`${root}src/problem.ts`, "utf8").match(/type Code =([^;]+);/)![1]!;
  expect(codes.length).toBeGreaterThan(30);
  expect(union.match(/[A-Z_]+/g)).toEqual(codes);
});

test.each([
  ["/inbox", "/inbox"],
  ["/inbox?page=2#top", "/inbox?page=2#top"],
  ["/a/../b", "/b"],
  ["/~ada/%C3%A9?next=//x", "/~ada/%C3%A9?next=//x"],
])("returnTo goes to %s", (next, to) => {
  expect(returnTo("/home", `?next=${encodeURIComponent(next)}`)).toBe(to);
});

test.each([
  ...["//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil.example", "\t//evil.example"],
  ...["/.//evil.example", "/a/..//evil.example", "/%2e//evil.example", "https://evil.example", "javascript:alert(1)", "data:text/html,x"],
  ...["inbox", "", " /inbox", "@evil.example", "/a\\..\\\\evil.example"],
])("returnTo does not go to %j", (next) => {
  expect(returnTo("/home", `?next=${encodeURIComponent(next)}`)).toBe("/home");
});
