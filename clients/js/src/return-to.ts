/**
 * Where the person was going before they had to sign in: the `next` parameter of the address, if it is a path of this
 * very origin, else `fallback`.
 */
export function returnTo(fallback = "/", search: string = globalThis.location?.search ?? ""): string {
  return localPath(new URLSearchParams(search).get("next")) ?? fallback;
}

/** The path, normalised, or `null` for whatever a browser could take for another origin or a script. */
export function localPath(path: string | null): string | null {
  // Browsers read `\` as `/` and drop tabs and line feeds, so that `/\evil` and `/<tab>/evil` are other hosts.
  if (!path || !/^\/(?![/\\])[^\\\x00-\x20\x7f]*$/.test(path)) return null;
  const url = new URL(path, "http://here.invalid");
  const normal = url.pathname + url.search + url.hash;
  return url.origin === "http://here.invalid" && !normal.startsWith("//") ? normal : null;
}
