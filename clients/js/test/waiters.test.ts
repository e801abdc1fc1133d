import { setMaxListeners } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, describe, expect, test, vi } from "vitest";
import { type Auth, NetworkError } from "../src/index.js";
import { advance, answers, breathe, drive, ended, eventually, failure, held, lost, PASSWORD, type Plan, silent, stopTime, world } from "./service.js";

const it = world();
const REFRESH = "POST /api/auth/refresh";
const THINGS = "GET /api/things";
const bob = { email: "bob@example.org", password: PASSWORD };

const { any } = AbortSignal;
function withoutAny() {
  delete (AbortSignal as { any?: unknown }).any;
  setMaxListeners(0); // of Node's warnings
}
afterEach(() => {
  AbortSignal.any = any;
  setMaxListeners(10);
});

/** What became of a call: its status, or the name of the error. */
const outcome = (call: Promise<Response>) => call.then(({ status }) => status, ({ name }: Error) => name);

/** What will become of fifty calls that wait for one refresh, of which this becomes. */
async function fifty(auth: Auth, plan: Plan) {
  it.service.revokeAccess();
  it.service.plan(REFRESH, plan);
  const calls = Array.from({ length: 50 }, () => outcome(auth.fetch("/api/things")));
  await eventually(() => it.service.count(REFRESH) === 1 && it.service.count(THINGS) === 50);
  await breathe(20);
  return calls;
}

describe.each(["cookie", "token"] as const)("fifty calls that wait for one refresh (%s)", (mode) => {
  test.each([
    ["it is given", {}, 200],
    ["it is refused", answers(401, "SESSION_ENDED"), 401],
    ["there are too many", answers(429, "RATE_LIMITED", { "Retry-After": "1" }), 429],
    ["the service is overloaded", answers(503, "OVERLOADED"), 503],
    ["nothing is answered", silent, "NetworkError"],
    ["the connection is cut", lost, "NetworkError"],
    ["the answer is cut off", { instead: { status: 200, text: '{"accessToken": "e30.' } }, "NetworkError"],
    ["the answer is empty", { instead: { status: 200 } }, "NetworkError"],
    ["the token is over already", { instead: { status: 200, body: { accessToken: "a.b.c", expiresIn: -1, csrfToken: "c" } } }, "NetworkError"],
    ["the answer is null", { instead: { status: 200, text: "null" } }, "NetworkError"],
  ] as const)("all hear the same when %s", async (_, plan, heard) => {
    stopTime();
    const auth = await it.signedIn({ mode, timeout: 3000 });
    it.service.revokeAccess();
    it.service.plan(REFRESH, plan, plan, plan);

    const outcomes = await drive(Promise.all(Array.from({ length: 50 }, () => outcome(auth.fetch("/api/things")))));

    expect(new Set(outcomes)).toEqual(new Set([heard]));
    expect(it.service.count(REFRESH)).toBeLessThanOrEqual(3);
    expect(auth.state.status).toBe(heard === 401 ? "unauthenticated" : "authenticated");
  });

  test.each(["today", "some years ago"])("some of whom give up: they hear it at once, and the others go on (browsers of %s)", async (when) => {
    if (when !== "today") withoutAny();
    const auth = await it.signedIn({ mode });
    it.service.revokeAccess();
    const gate = held();
    it.service.plan(REFRESH, gate);
    const caller = new AbortController();
    const impatient = Array.from({ length: 25 }, () => outcome(auth.fetch("/api/things", { signal: caller.signal })));
    const patient = Array.from({ length: 25 }, () => outcome(auth.fetch("/api/things")));
    await eventually(() => it.service.count(REFRESH) === 1 && it.service.count(THINGS) === 50);
    await breathe(20);
    caller.abort();
    expect(new Set(await Promise.all(impatient))).toEqual(new Set(["AbortError"]));
    gate.release();

    expect(new Set(await Promise.all(patient))).toEqual(new Set([200]));
    expect(it.service.count(REFRESH)).toBe(1);
    expect(it.service.count(THINGS)).toBe(75);
  });

  test("all of whom give up: nothing is left unhandled, and the refresh does for the next call", async () => {
    const auth = await it.signedIn({ mode });
    it.service.revokeAccess();
    const gate = held();
    it.service.plan(REFRESH, { ...answers(503, "SERVICE_UNAVAILABLE"), ...gate });
    const caller = new AbortController();
    const calls = Array.from({ length: 50 }, () => outcome(auth.fetch("/api/things", { signal: caller.signal })));
    await eventually(() => it.service.count(THINGS) === 50 && it.service.count(REFRESH) === 1);
    await breathe(20);
    caller.abort();
    await Promise.all(calls);
    gate.release();

    expect(await outcome(auth.fetch("/api/things"))).toBe(200);
  });

  test("when the person signs out: all are answered, and nobody is signed in", async () => {
    const auth = await it.signedIn({ mode });
    const gate = held();
    const calls = await fifty(auth, gate);
    await auth.logout();
    gate.release();

    expect(new Set(await Promise.all(calls))).toEqual(new Set([401]));
    await breathe(20);
    expect(ended(auth, "signed-out")).toBe(true);
    expect(await auth.accessToken()).toBeNull();
  });

  test("when somebody else signs in: what was asked by the one is not asked as the other", async () => {
    const auth = await it.signedIn({ mode });
    const gate = held();
    const calls = await fifty(auth, gate);
    await auth.login(bob);
    const token = await auth.accessToken();
    gate.release();

    expect(new Set(await Promise.all(calls))).toEqual(new Set([401]));
    await breathe(20);
    expect(it.service.count(THINGS)).toBe(50);
    expect(auth.state.user?.email).toBe("bob@example.org");
    expect(await auth.accessToken()).toBe(token);
    expect((await auth.call<{ user: string }>("GET", "/api/things")).user).toBe("bob@example.org");
  });

  test("when the page is closed: all hear it, and nothing goes on", async () => {
    stopTime();
    const auth = await it.signedIn({ mode });
    const calls = await fifty(auth, silent);
    auth.close();

    expect(new Set(await Promise.all(calls))).toEqual(new Set(["NetworkError"]));
    await advance(60_000);
    expect(it.service.count(REFRESH)).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });
});

test.each(["today", "some years ago"])("who gives up before the start asks nothing (browsers of %s)", async (when) => {
  if (when !== "today") withoutAny();
  const auth = await it.signedIn();
  const signal = AbortSignal.abort(new Error("never mind"));

  for (const call of [auth.fetch("/api/things", { signal }), auth.fetch("/api/things", { method: "POST", signal }), auth.call("GET", "/api/things", undefined, { signal })]) {
    expect((await failure(call)).message).toBe("never mind");
  }
  expect(it.service.log).toEqual([]);
});

test.each(["today", "some years ago"])("who gives up while reading stops the body, though its head was there (browsers of %s)", async (when) => {
  if (when !== "today") withoutAny();
  const auth = await it.signedIn();
  it.service.plan(THINGS, { instead: { status: 200, headers: { "Content-Length": "1000000" }, text: "{" } });
  const caller = new AbortController();
  const answer = await auth.fetch("/api/things", { signal: caller.signal });
  const reading = failure(answer.text());
  caller.abort(new Error("enough"));

  expect((await reading).message).toBe("enough");
});

test("what was asked before it was known who asks is not repeated for who signs in then", async () => {
  (await it.signedIn()).close();
  const auth = it.tab();
  const unknown = held();
  it.service.plan("GET /api/auth/me", unknown);
  void auth.ready();
  it.service.revokeAccess();
  const gate = held();
  it.service.plan(REFRESH, gate);
  const call = outcome(auth.fetch("/api/transfer", { method: "POST", body: "100" }));
  await eventually(() => it.service.count(REFRESH) === 1);
  await auth.login(bob);
  gate.release();
  unknown.release();

  expect(await call).toBe(401);
  expect(it.service.count("POST /api/transfer")).toBe(1);
});

test("a sign-in in another tab during a refresh is not undone by it", async () => {
  const auth = await it.signedIn();
  const other = it.tab();
  await other.ready();
  it.service.revokeAccess();
  const gate = held();
  it.service.plan(REFRESH, gate);
  const call = outcome(auth.fetch("/api/things"));
  await eventually(() => it.service.count(REFRESH) === 1);
  await other.login(bob);
  await eventually(() => auth.state.user?.email === "bob@example.org");
  gate.release();

  expect(await call).toBe(401);
  await breathe(20);
  for (const tab of [auth, other]) {
    expect(tab.state.user?.email).toBe("bob@example.org");
    expect((await tab.call<{ user: string }>("GET", "/api/things")).user).toBe("bob@example.org");
  }
});

test("calls leave nothing on a signal that lives as long as the page", async () => {
  const auth = await it.signedIn();
  const page = new AbortController().signal;
  const warned = vi.fn();
  process.on("warning", warned);
  await Promise.all(Array.from({ length: 30 }, async () => (await auth.fetch("/api/things", { signal: page })).text()));
  await breathe(20);
  process.off("warning", warned);

  expect(warned).not.toHaveBeenCalled();
});

test("a Request whose body is a stream is repeated whole, or given back", async () => {
  const auth = await it.signedIn();
  it.service.plan("POST /api/things", answers(401, "TOKEN_EXPIRED"));
  const body = new Blob(["streamed"]).stream();
  const answer = await auth.fetch(new Request(`${it.service.url}/api/things`, { method: "POST", body, duplex: "half" } as RequestInit));

  const bodies = it.service.requests.filter(({ line }) => line === "POST /api/things").map(({ body }) => body);
  expect([answer.status, bodies]).toEqual([200, ["streamed", "streamed"]]);
});

test("a Request that was sent before is refused, and nobody is signed out", async () => {
  const auth = await it.signedIn();
  const request = new Request(`${it.service.url}/api/things`, { method: "POST", body: "once" });
  await auth.fetch(request);
  await request.text().catch(() => {});

  expect(await failure(auth.fetch(request))).toBeInstanceOf(Error);
  expect(auth.state.status).toBe("authenticated");
});

test("what was answered does not stay in memory for as long as the page", async () => {
  const auth = await it.signedIn();
  const answers: WeakRef<Response>[] = [];
  for (let n = 0; n < 100; n += 1) {
    const answer = await auth.fetch("/api/things");
    await answer.text();
    answers.push(new WeakRef(answer));
  }
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const kept = () => (collect(), answers.filter((each) => each.deref()).length);

  await eventually(() => kept() < 20);
});

test("close stops a body that is still being read", async () => {
  const auth = await it.signedIn();
  it.service.plan(THINGS, { instead: { status: 200, headers: { "Content-Length": "1000000" }, text: "{" } });
  const reading = failure((await auth.fetch("/api/things")).text());
  auth.close();

  expect(await reading).toBeInstanceOf(NetworkError);
});
