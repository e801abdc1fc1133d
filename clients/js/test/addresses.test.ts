import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { createAuth, NetworkError } from "../src/index.js";
import { answers, failure, PASSWORD, world } from "./service.js";

const it = world();
afterEach(() => void vi.unstubAllGlobals());

/** What would go out for an address, without going there: those hosts are not ours to ask. */
async function sent(mode: "cookie" | "token", address: string, baseUrl: string, method = "POST") {
  const out: { url: string; credentials: string | undefined; secrets: string[] }[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const headers = new Headers(init?.headers);
    const secrets = ["authorization", "x-csrf-token"].filter((name) => headers.has(name));
    out.push({ url: input instanceof Request ? input.url : String(input), credentials: init?.credentials, secrets });
    const user = { id: "user-1", email: "ada@example.org" };
    return Response.json({ user, accessToken: "e30.e30.s", expiresIn: 900, csrfToken: "csrf", refreshToken: "rt" });
  };
  const auth = createAuth({ baseUrl, mode, fetch });
  await auth.login({ email: "ada@example.org", password: PASSWORD });
  out.length = 0;
  await auth.fetch(address, { method });
  auth.close();
  return out[0]!;
}

const BASE = "https://auth.example.com/gatepost/";

test.each([
  ["https://evil.example/"],
  ["//evil.example/x"],
  ["HTTPS://EVIL.EXAMPLE/x"],
  ["https:\\\\evil.example\\x"],
  ["//\\evil.example/x"],
  ["https://auth.example.com@evil.example/x"],
  ["https://auth.example.com%40evil.example/x"],
  ["https://auth.example.com:443@evil.example/x"],
  ["https://evil.example/https://auth.example.com/"],
  ["https://evil.example#@auth.example.com/"],
  ["https://evil.example\\@auth.example.com/"],
  ["https://auth.example.com.evil.example/x"],
  ["https://auth.example.com./x"],
  ["https://auth.example.com:8443/x"],
  ["http://auth.example.com/x"],
  ["https://example.com/x"],
  ["https://xauth.example.com/x"],
  ["wss://auth.example.com/x"],
  ["data:text/plain,x"],
  ["javascript:alert(1)"],
  ["file:///etc/passwd"],
])("nothing of ours goes to %s", async (address) => {
  for (const mode of ["cookie", "token"] as const) {
    const call = sent(mode, address, BASE).catch((error) => error);
    const out = await call;
    if (!(out instanceof TypeError)) expect(out).toMatchObject({ credentials: undefined, secrets: [] });
  }
});

test.each([
  ["/api/things", "https://auth.example.com/gatepost/api/things"],
  ["api/things?a=//b#c", "https://auth.example.com/gatepost/api/things?a=//b#c"],
  ["", "https://auth.example.com/gatepost/"],
  ["/\\evil.example/x", "https://auth.example.com/gatepost//evil.example/x"],
  ["/\t/evil.example/x", "https://auth.example.com/gatepost//evil.example/x"],
  [" //evil.example/x", "https://auth.example.com/gatepost/%20//evil.example/x"],
  ["\n//evil.example/x", "https://auth.example.com/gatepost///evil.example/x"],
  ["https:evil.example/x", "https://auth.example.com/evil.example/x"],
  ["@evil.example/x", "https://auth.example.com/gatepost/@evil.example/x"],
  [".evil.example/x", "https://auth.example.com/gatepost/.evil.example/x"],
  ["HTTPS://AUTH.EXAMPLE.COM:443/x", "https://auth.example.com/x"],
])("%j is the service's, and goes there", async (address, url) => {
  expect(await sent("cookie", address, BASE)).toEqual({ url, credentials: "include", secrets: ["x-csrf-token"] });
  expect(await sent("token", address, BASE)).toEqual({ url, credentials: "omit", secrets: ["authorization"] });
});

test("an app with an address of its own scheme is the origin of nobody else", async () => {
  for (const address of ["data:text/plain,x", "other://host/x"]) {
    expect(await sent("token", address, "capacitor://localhost")).toMatchObject({ secrets: [] });
  }
});

test.each(["cookie", "token"] as const)("a read that is redirected elsewhere takes nothing along (%s)", async (mode) => {
  const seen: Record<string, unknown>[] = [];
  const elsewhere = createServer((request, response) => {
    seen.push(request.headers);
    response.writeHead(401, { Connection: "close" }).end();
  });
  await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
  const Location = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/x`;
  const auth = await it.signedIn({ mode, retries: 0 });
  it.service.plan("GET /api/things", ...Array(4).fill({ instead: { status: 302, headers: { Location } } }));

  const answer = await auth.fetch("/api/things").catch((error) => error);

  await new Promise((resolve) => elsewhere.close(resolve));
  if (mode === "token") expect([answer instanceof NetworkError, seen]).toEqual([true, []]);
  for (const headers of seen) expect(headers).not.toHaveProperty("authorization");
  for (const headers of seen) expect(headers).not.toHaveProperty("x-csrf-token");
  expect(auth.state.status).toBe("authenticated");
});

test("a 401 and a 403 of another origin say nothing about the session", async () => {
  const elsewhere = createServer((_, response) => {
    response.writeHead(403, { Connection: "close", "Content-Type": "application/json" }).end('{"code":"ACCOUNT_DISABLED"}');
  });
  await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
  for (const origins of [[], [origin]]) {
    const auth = await it.signedIn({ origins });
    expect((await auth.fetch(origin)).status).toBe(403);
    expect(auth.state.status).toBe("authenticated");
    expect(it.service.log).toEqual([]);
  }
  await new Promise((resolve) => elsewhere.close(resolve));
});

test("below another path of the same host the service is found by baseUrl, with or without a slash", async () => {
  for (const baseUrl of ["https://auth.example.com/a/b", "https://auth.example.com/a/b/", "https://auth.example.com/a/b//"]) {
    expect((await sent("cookie", "/api/x", baseUrl)).url).toBe("https://auth.example.com/a/b/api/x");
  }
});

test("while a server renders, the page's own origin is nobody's: it can be made, and asks nobody", async () => {
  const auth = createAuth({ baseUrl: "", retries: 0 });
  expect(auth.state.status).toBe("checking");
  expect(await failure(auth.fetch("/api/things"))).toBeInstanceOf(NetworkError);
  auth.close();
});

test("in a page, an empty baseUrl is the page's origin, whatever its path is", async () => {
  vi.stubGlobal("location", new URL("https://app.example/deep/page?x=1#y"));
  expect((await sent("cookie", "/api/x", "")).url).toBe("https://app.example/api/x");
  expect((await sent("cookie", "/api/x", "/auth")).url).toBe("https://app.example/auth/api/x");
});

test("a call that the app aborts after a 401 is not repeated", async () => {
  const caller = new AbortController();
  const auth = await it.signedIn();
  it.service.plan("GET /api/things", answers(401, "TOKEN_EXPIRED"));
  const call = failure(auth.fetch("/api/things", { signal: caller.signal }));
  while (!it.service.count("POST /api/auth/refresh")) await new Promise((resolve) => setTimeout(resolve, 1));
  caller.abort(new Error("enough"));

  expect((await call).message).toBe("enough");
  expect(it.service.count("GET /api/things")).toBe(1);
});
