import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { NetworkError, retryAfter } from "../src/problem.js";
import { answers, breathe, drive, eventually, failure, held, lost, silent, stopTime, world } from "./service.js";

const it = world();
const REFRESH = "POST /api/auth/refresh";
const THINGS = "POST /api/things";
const post = (body: BodyInit, more: object = {}) => ({ method: "POST", body, ...more });
const stream = (text: string) => new Blob([text]).stream();
const sent = () => it.service.requests.filter(({ line }) => line === THINGS).map(({ body }) => body);

describe("the CSRF token", () => {
  test("goes with what changes something, and with nothing else", async () => {
    const auth = await it.signedIn();
    for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]) await auth.fetch("/api/things", { method });

    const with_ = it.service.requests.filter(({ headers }) => headers["x-csrf-token"]).map(({ line }) => line.split(" ")[0]);
    expect(with_).toEqual(["POST", "PUT", "PATCH", "DELETE"]);
    expect(it.service.requests.every(({ headers }) => !headers.authorization)).toBe(true);
  });

  test("is asked for before the first change after a reload, once for all", async () => {
    (await it.signedIn()).close();
    const auth = it.tab();
    await auth.ready();

    const answered = await Promise.all([1, 2, 3].map((n) => auth.fetch("/api/things", post(String(n)))));

    expect(answered.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(it.service.count("GET /api/auth/csrf-token")).toBe(1);
    expect(it.service.count(THINGS)).toBe(3);
  });

  test("of a session that was replaced is fetched anew, and the call repeated once", async () => {
    const auth = await it.signedIn({ channel: false });
    await it.signedIn({ channel: false }); // the same person signs in again in another tab

    expect((await auth.fetch("/api/things", post("x"))).status).toBe(200);
    expect(it.service.log).toEqual([THINGS, "GET /api/auth/csrf-token", "GET /api/auth/me", THINGS]);
  });

  test("of somebody else's session repeats nothing: the form was not theirs", async () => {
    const auth = await it.signedIn({ channel: false });
    await it.signedIn({ channel: false }, "bob@example.org");

    const answer = await auth.fetch("/api/things", post("from Ada"));

    expect([answer.status, (await answer.json()).code]).toEqual([403, "CSRF_FAILED"]);
    expect(sent()).toEqual(["from Ada"]);
    expect(auth.state.user?.email).toBe("bob@example.org");
  });

  test("that still does not fit is no loop", async () => {
    const auth = await it.signedIn();
    it.service.plan(THINGS, ...Array(5).fill(answers(403, "CSRF_FAILED")));

    expect((await auth.fetch("/api/things", post("x"))).status).toBe(403);
    expect(it.service.count(THINGS)).toBe(2);
  });

  test("is never needed with tokens", async () => {
    const auth = await it.signedIn({ mode: "token" });
    expect((await auth.fetch("/api/things", post("x"))).status).toBe(200);

    expect(it.service.requests[0]!.headers).toMatchObject({ authorization: expect.stringMatching(/^Bearer /) });
    expect(it.service.requests[0]!.headers["x-csrf-token"]).toBeUndefined();
    expect(it.service.log).toEqual([THINGS]);
    expect(it.browser.jar.size).toBe(0);
    expect(it.browser.origins.size).toBe(0);
  });
});

describe("a repeated call has the same body", () => {
  const form = new FormData();
  form.set("file", new Blob(["inside"]), "a.txt");
  test.each([
    ["text", "text", /^text$/],
    ["URLSearchParams", new URLSearchParams({ a: "1" }), /^a=1$/],
    ["a Blob", new Blob(["blob"]), /^blob$/],
    ["bytes", new TextEncoder().encode("bytes"), /^bytes$/],
    ["a form", form, /inside/],
  ])("%s", async (_, body, pattern) => {
    const auth = await it.signedIn();
    it.service.plan(THINGS, answers(401, "TOKEN_EXPIRED"));

    expect((await auth.fetch("/api/things", post(body))).status).toBe(200);
    expect(sent()).toEqual([expect.stringMatching(pattern), expect.stringMatching(pattern)]);
  });

  test("a Request", async () => {
    const auth = await it.signedIn();
    it.service.plan(THINGS, answers(401, "TOKEN_EXPIRED"));
    const request = new Request(`${it.service.url}/api/things`, post("inside", { headers: { "X-Own": "1" } }));

    expect((await auth.fetch(request)).status).toBe(200);
    expect(sent()).toEqual(["inside", "inside"]);
    expect(it.service.requests.at(-1)!.headers["x-own"]).toBe("1");
  });

  test("what is made while it is sent is sent once too", async () => {
    const auth = await it.signedIn();
    it.service.plan(THINGS, answers(401, "TOKEN_EXPIRED"));
    const made = (async function* () {
      yield new TextEncoder().encode("made");
    })();

    expect((await auth.fetch("/api/things", post(made as unknown as BodyInit, { duplex: "half" }))).status).toBe(401);
    expect(sent()).toEqual(["made"]);
  });

  test("a stream is sent once: its 401 is given back, and the next call finds a live token", async () => {
    const auth = await it.signedIn();
    it.service.plan(THINGS, answers(401, "TOKEN_EXPIRED"));

    const answer = await auth.fetch("/api/things", post(stream("once"), { duplex: "half" }));

    expect([answer.status, (await answer.json()).code]).toEqual([401, "TOKEN_EXPIRED"]);
    expect(it.service.log).toEqual([THINGS, REFRESH]);
    expect((await auth.fetch("/api/things", post(stream("twice"), { duplex: "half" }))).status).toBe(200);
    expect(sent()).toEqual(["once", "twice"]);
  });
});

describe("faults", () => {
  test("a read is tried again, a change is not", async () => {
    stopTime();
    const auth = await it.signedIn();
    it.service.plan("GET /api/things", lost, answers(503), lost);
    it.service.plan(THINGS, lost);

    expect(await failure(drive(auth.fetch("/api/things")))).toBeInstanceOf(NetworkError);
    expect(it.service.count("GET /api/things")).toBe(3);
    expect(await failure(drive(auth.fetch("/api/things", post("x"))))).toBeInstanceOf(NetworkError);
    expect(it.service.count(THINGS)).toBe(1);
    expect(auth.state.status).toBe("authenticated");
  });

  test("Retry-After is waited for", async () => {
    stopTime();
    const auth = await it.signedIn();
    it.service.plan("GET /api/things", answers(503, undefined, { "Retry-After": "7" }));
    const from = Date.now();

    expect((await drive(auth.fetch("/api/things"))).status).toBe(200);
    expect(Date.now() - from).toBeGreaterThanOrEqual(7000);
    expect(Date.now() - from).toBeLessThan(9000);
  });

  test("but not for longer than a person would: the answer is given at once", async () => {
    stopTime();
    const auth = await it.signedIn();
    it.service.plan("GET /api/things", answers(429, "RATE_LIMITED", { "Retry-After": "900" }));

    const problem = await failure(drive(auth.call("GET", "/api/things")));

    expect(problem).toMatchObject({ status: 429, code: "RATE_LIMITED", retryAfter: 900 });
    expect(it.service.count("GET /api/things")).toBe(1);
  });

  test("Retry-After is seconds, or a date by the server's clock, or nothing", () => {
    const wait = (told: string, more = {}) => retryAfter(new Response(null, { headers: { "Retry-After": told, ...more } }));
    const date = { Date: "Mon, 01 Jan 2001 00:00:00 GMT" };

    expect(wait("3")).toBe(3000);
    expect(wait("Mon, 01 Jan 2001 00:00:30 GMT", date)).toBe(30_000);
    expect(wait("Mon, 01 Jan 2001 00:00:00 GMT")).toBe(0);
    expect(wait(new Date(Date.now() + 60_000).toUTCString())).toBeGreaterThan(55_000);
    expect(wait("soon")).toBeNull();
    expect(retryAfter(new Response())).toBeNull();
  });

  test("an attempt has its time, an upload and a body that is being read take what they need", async () => {
    stopTime();
    const auth = await it.signedIn({ timeout: 1000, retries: 0 });
    it.service.plan("GET /api/things", silent);
    const upload = held();
    it.service.plan(THINGS, upload);

    expect((await failure(drive(auth.fetch("/api/things")))).message).toBe("No answer within 1000 ms");
    const uploading = auth.fetch("/api/things", post(new Blob(["large"])));
    await eventually(() => it.service.count(THINGS) === 1);
    await vi.advanceTimersByTimeAsync(60_000);
    upload.release();
    expect((await uploading).status).toBe(200);
  });

  test("a caller's abort is honoured, while waiting to try again too", async () => {
    stopTime();
    const auth = await it.signedIn();
    it.service.plan("GET /api/things", answers(503, undefined, { "Retry-After": "9" }));
    const caller = new AbortController();
    const call = failure(auth.fetch("/api/things", { signal: caller.signal }));
    await eventually(() => it.service.count("GET /api/things") === 1);
    await breathe(20);
    caller.abort(new Error("enough"));

    expect((await call).message).toBe("enough");
    expect(it.service.count("GET /api/things")).toBe(1);
    expect((await failure(auth.fetch("/api/things", { signal: AbortSignal.abort(new Error("before")) }))).message).toBe("before");
  });

  test("a spent token that cannot be refreshed now is no 401: the app would take it for signed out", async () => {
    stopTime();
    const auth = await it.signedIn({ retries: 0 });
    it.service.revokeAccess();
    it.service.plan(REFRESH, answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "1" }));

    const answer = await auth.fetch("/api/things");

    expect([answer.status, answer.headers.get("Retry-After")]).toEqual([503, "1"]);
    expect(await answer.json()).toMatchObject({ code: "SERVICE_UNAVAILABLE" });
  });

  test("a token that is good for some seconds more does without a refresh that fails", async () => {
    stopTime();
    const auth = await it.signedIn({ mode: "token", retries: 0 });
    vi.setSystemTime(Date.now() + 893_000);
    it.service.plan(REFRESH, lost);

    expect((await auth.fetch("/api/things")).status).toBe(200);
    expect(it.service.log).toEqual([REFRESH, "GET /api/things"]);
  });
});

describe("where our credentials go", () => {
  let elsewhere: Server;
  let seen: { url: string; headers: Record<string, unknown> }[];
  let reply: { status: number; headers?: Record<string, string> }[];
  let url: string;
  beforeEach(async () => {
    seen = [];
    reply = [];
    elsewhere = createServer((request, response) => {
      seen.push({ url: request.url!, headers: request.headers });
      const { status, headers } = reply.shift() ?? { status: 200 };
      response.writeHead(status, { Connection: "close", ...headers }).end();
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
  });
  afterEach(() => new Promise((resolve) => elsewhere.close(resolve)));
  const secrets = () => seen.flatMap(({ headers }) => ["cookie", "authorization", "x-csrf-token"].filter((name) => headers[name]));

  test.each(["cookie", "token"] as const)("nowhere but to the service (%s)", async (mode) => {
    const auth = await it.signedIn({ mode });
    for (const input of [url, new URL(url), new Request(url), url.replace("http:", "")]) await auth.fetch(input, { method: "POST" });

    expect(seen.length).toBe(4);
    expect(secrets()).toEqual([]);
    expect([...it.browser.origins]).toEqual(mode === "cookie" ? [it.service.url] : []);
  });

  test("an address that only looks as if it were elsewhere is below the service", async () => {
    const auth = await it.signedIn();
    for (const path of ["/\\127.0.0.1:1/x", "api/public", "/@evil.example/"]) await auth.fetch(path);

    expect(it.service.log.length).toBe(3);
    await expect(auth.call("GET", url)).rejects.toThrow(TypeError);
    await expect(auth.call("GET", "//evil.example/")).rejects.toThrow(TypeError);
  });

  test.each(["cookie", "token"] as const)("to listed origins the bearer token, never a cookie (%s)", async (mode) => {
    const auth = await it.signedIn({ mode, origins: [url] });
    reply = [{ status: 401 }];

    expect((await auth.fetch(`${url}/x`, { method: "POST" })).status).toBe(200);
    expect(seen.map(({ headers }) => headers.authorization)).toEqual([expect.stringMatching("Bearer "), expect.stringMatching("Bearer ")]);
    expect(seen[0]!.headers.authorization).not.toBe(seen[1]!.headers.authorization);
    expect(secrets()).toEqual(["authorization", "authorization"]);
  });

  test("no header of ours follows a redirect", async () => {
    for (const mode of ["cookie", "token"] as const) {
      const auth = await it.signedIn({ mode });
      it.service.plan(THINGS, { instead: { status: 307, headers: { Location: url } } });
      expect(await failure(auth.fetch("/api/things", post("x")))).toBeInstanceOf(NetworkError);
    }
    expect(seen).toEqual([]);
  });

  test("a caller who wants to see the redirect gets it, asked with a Request or without", async () => {
    const auth = await it.signedIn();
    const manual = post("x", { redirect: "manual" });
    for (const input of ["/api/things", new Request(`${it.service.url}/api/things`, manual)]) {
      it.service.plan(THINGS, { instead: { status: 307, headers: { Location: url } } });
      expect((await auth.fetch(input, typeof input === "string" ? manual : {})).status).toBe(307);
    }
    expect(seen).toEqual([]);
  });

  test("a credential of the caller's own is left alone", async () => {
    const auth = await it.signedIn();
    await auth.fetch("/api/public", { headers: { Authorization: "Bearer ak_key" } });

    expect(it.service.requests[0]!.headers).toMatchObject({ authorization: "Bearer ak_key" });
    expect(it.service.requests[0]!.headers.cookie).toBeUndefined();
  });

  test("accessToken gives a live one to other services", async () => {
    stopTime();
    for (const mode of ["cookie", "token"] as const) {
      const auth = await it.signedIn({ mode });
      const first = await auth.accessToken();
      expect(await auth.accessToken()).toBe(first);
      vi.setSystemTime(Date.now() + 1_000_000);
      const second = await auth.accessToken();
      expect(second).not.toBe(first);
      expect(it.service.log).toEqual([REFRESH]);
      await auth.logout();
      expect(await auth.accessToken()).toBeNull();
    }
  });
});
