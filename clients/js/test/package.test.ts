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
