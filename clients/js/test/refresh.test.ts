import { afterEach, describe, expect, test, vi } from "vitest";
import { NetworkError, Problem } from "../src/index.js";
import { advance, answered, answers, breathe, drive, ended, eventually, failure, held, lost, PASSWORD, silent, stopTime, world } from "./service.js";

const it = world();
const REFRESH = "POST /api/auth/refresh";
const ME = "GET /api/auth/me";

describe("one refresh in a tab", () => {
  test.each(["cookie", "token"] as const)("twenty calls that meet a spent token share one (%s)", async (mode) => {
    const auth = await it.signedIn({ mode });
    it.service.revokeAccess();
    const gate = held();
    it.service.plan(REFRESH, gate);

    const calls = Promise.all(Array.from({ length: 20 }, () => auth.fetch("/api/things")));
    await eventually(() => it.service.count(REFRESH) === 1 && it.service.count("GET /api/things") === 20);
    gate.release();

    expect((await calls).map((answer) => answer.status)).toEqual(Array(20).fill(200));
    expect(it.service.count(REFRESH)).toBe(1);
  });

  test("all of them are rejected when it fails, and nobody is signed out", async () => {
    stopTime();
    const auth = await it.signedIn();
    it.service.revokeAccess();
    it.service.plan(REFRESH, lost, lost, lost);

    const errors = await drive(Promise.all(Array.from({ length: 5 }, () => failure(auth.call("GET", "/api/things")))));

    expect(errors.every((error) => error instanceof NetworkError)).toBe(true);
    expect(it.service.count(REFRESH)).toBe(3);
    expect(auth.state.status).toBe("authenticated");
    expect(await auth.call("GET", "/api/things")).toMatchObject({ user: "ada@example.org" });
  });

  test("none hangs when the service never answers", async () => {
    stopTime();
    const auth = await it.signedIn({ timeout: 5000, retries: 0 });
    it.service.revokeAccess();
    it.service.plan(REFRESH, silent);

    const errors = await drive(Promise.all([1, 2, 3].map(() => failure(auth.call("GET", "/api/things")))));

    expect(errors.map((error) => error.message)).toEqual(Array(3).fill("No answer within 5000 ms"));
    expect(auth.state.status).toBe("authenticated");
  });

  test("a call that began before a refresh ended does not start another", async () => {
    const auth = await it.signedIn();
    const slow = held();
    it.service.revokeAccess();
    it.service.plan("GET /api/slow", slow);
    const call = auth.fetch("/api/slow");
    await eventually(() => it.service.count("GET /api/slow") === 1);
    expect((await auth.fetch("/api/things")).status).toBe(200);
    slow.release();

    expect((await call).status).toBe(200);
    expect(it.service.count(REFRESH)).toBe(1);
  });

  test("a person who gives up waiting does not take it from the others", async () => {
    const auth = await it.signedIn();
    it.service.revokeAccess();
    const gate = held();
    it.service.plan(REFRESH, gate);
    const impatient = new AbortController();

    const given = failure(auth.fetch("/api/things", { signal: impatient.signal }));
    const patient = auth.fetch("/api/things");
    await eventually(() => it.service.count(REFRESH) === 1);
    impatient.abort();
    expect((await given).name).toBe("AbortError");
    gate.release();

    expect((await patient).status).toBe(200);
    expect(it.service.count(REFRESH)).toBe(1);
  });

  test("a lost reply is asked for again, and the same session goes on", async () => {
    stopTime();
    const auth = await it.signedIn();
    it.service.revokeAccess();
    it.service.plan(REFRESH, lost);

    expect((await drive(auth.fetch("/api/things"))).status).toBe(200);
    expect(it.service.count(REFRESH)).toBe(2);
  });

  test("a call is repeated once and never in a loop", async () => {
    const auth = await it.signedIn();
    it.service.plan("GET /api/things", ...Array(10).fill(answers(401, "TOKEN_REVOKED")));

    expect((await auth.fetch("/api/things")).status).toBe(401);
    expect(it.service.log).toEqual(["GET /api/things", REFRESH, "GET /api/things"]);
  });

  test.each(["NO_TOKEN", "TOKEN_EXPIRED", "TOKEN_REVOKED", "TOKEN_STALE", "INVALID_TOKEN"])("%s is mended by a refresh", async (code) => {
    const auth = await it.signedIn();
    it.service.plan("GET /api/things", answers(401, code));

    expect((await auth.fetch("/api/things")).status).toBe(200);
    expect(it.service.count(REFRESH)).toBe(1);
  });

  test("a wrong password in a form is no reason to refresh", async () => {
    const auth = await it.signedIn();
    it.service.plan("POST /api/auth/password/change", answers(401, "INVALID_CREDENTIALS"));

    const problem = await failure(auth.call("POST", "/api/auth/password/change", {}));

    expect(problem.code).toBe("INVALID_CREDENTIALS");
    expect(it.service.count(REFRESH)).toBe(0);
    expect(auth.state.status).toBe("authenticated");
  });

  test("after a change of rights the user has the new ones", async () => {
    const auth = await it.signedIn();
    it.service.user("ada@example.org", { roles: ["user", "admin"] });
    it.service.plan("GET /api/things", answers(401, "TOKEN_STALE"), answers(401, "TOKEN_STALE"));

    await Promise.all([auth.fetch("/api/things"), auth.fetch("/api/things")]);

    await eventually(() => auth.state.user!.roles.includes("admin"));
    expect(it.service.count(ME)).toBe(1);
  });
});

describe("what ends a session", () => {
  test.each([
    ["NO_REFRESH_TOKEN", 401, "expired"],
    ["INVALID_REFRESH_TOKEN", 401, "expired"],
    ["REFRESH_TOKEN_REUSED", 401, "reused"],
    ["SESSION_ENDED", 401, "expired"],
    ["ACCOUNT_DISABLED", 403, "disabled"],
  ] as const)("%s does, once and for all who wait", async (code, status, reason) => {
    const auth = await it.signedIn();
    it.service.revokeAccess();
    it.service.plan(REFRESH, answers(status, code));

    const problems = await Promise.all([1, 2, 3].map(() => failure(auth.call("GET", "/api/things"))));

    expect(problems.map((problem) => problem.code)).toEqual([code, code, code]);
    expect(ended(auth, reason)).toBe(true);
    expect(it.service.count(REFRESH)).toBe(1);
  });

  test.each([
    ["expired", "expired"],
    ["reuse", "reused"],
    ["account_disabled", "disabled"],
    ["logout", "signed-out"],
    ["revoked", "ended"],
    ["password_changed", "ended"],
  ] as const)("the reason %s is told as %s", async (said, told) => {
    const auth = await it.signedIn();
    it.service.endSessions(said);

    expect((await auth.fetch("/api/things")).status).toBe(401);
    expect(ended(auth, told)).toBe(true);
  });

  test.each([
    ["an overload", answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "1" }), 503],
    ["a limit", answers(429, "RATE_LIMITED", { "Retry-After": "1" }), 429],
    ["a fault of the service", answers(500, "INTERNAL_ERROR"), 500],
    ["a CSRF token that never fits", answers(403, "CSRF_FAILED"), 403],
    ["an origin that is not allowed", answers(403, "ORIGIN_FORBIDDEN"), 403],
    ["a proxy's own 401", answers(401), 401],
  ] as const)("%s does not", async (_, plan, status) => {
    stopTime();
    const auth = await it.signedIn();
    it.service.revokeAccess();
    it.service.plan(REFRESH, plan, plan, plan);

    const answer = await drive(auth.fetch("/api/things"));

    expect(answer.status).toBe(status);
    expect(auth.state.status).toBe("authenticated");
    await it.service.stop();
    await it.service.start();
  });

  test("a page of somebody else's, with 200, does not, and is no session either", async () => {
    const auth = await it.signedIn({ retries: 0 });
    it.service.revokeAccess();
    it.service.plan(REFRESH, { instead: { status: 200, body: { welcome: "to the airport" } } });

    expect(await failure(auth.fetch("/api/things"))).toBeInstanceOf(NetworkError);
    expect(auth.state.status).toBe("authenticated");
  });

  test("nobody who is signed out refreshes, however many calls are refused", async () => {
    const auth = await it.signedIn();
    await auth.logout();
    it.service.log.length = 0;

    for (let n = 0; n < 5; n += 1) expect((await auth.fetch("/api/things")).status).toBe(401);

    expect(it.service.log).toEqual(Array(5).fill("GET /api/things"));
  });
});

describe("late answers", () => {
  test.each(["cookie", "token"] as const)("a refresh that is answered after a log-out does not bring the session back (%s)", async (mode) => {
    const auth = await it.signedIn({ mode });
    it.service.revokeAccess();
    const late = held();
    it.service.plan(REFRESH, late);
    const call = auth.fetch("/api/things");
    await eventually(() => it.service.count(REFRESH) === 1);

    await auth.logout();
    late.release();
    expect((await call).status).toBe(401);
    await breathe(30);

    expect(ended(auth, "signed-out")).toBe(true);
    expect(await auth.accessToken()).toBeNull();
    expect(it.browser.jar.size).toBe(0);
  });

  test("nor does it put the old person in the place of a new one", async () => {
    const auth = await it.signedIn();
    it.service.revokeAccess();
    const late = held();
    it.service.plan(REFRESH, late);
    const call = auth.fetch("/api/things");
    await eventually(() => it.service.count(REFRESH) === 1);

    await auth.login({ email: "bob@example.org", password: PASSWORD });
    late.release();
    await call;
    await breathe(30);

    expect(auth.state.user?.email).toBe("bob@example.org");
    expect((await auth.call<{ user: string }>("GET", "/api/things")).user).toBe("bob@example.org");
  });

  test("a call of the one person is not repeated as the other", async () => {
    const auth = await it.signedIn();
    it.service.revokeAccess();
    const late = held();
    it.service.plan(REFRESH, late);
    const call = auth.fetch("/api/transfer", { method: "POST", body: "100" });
    await eventually(() => it.service.count(REFRESH) === 1);
    await auth.login({ email: "bob@example.org", password: PASSWORD });
    late.release();

    expect((await call).status).toBe(401);
    expect(it.service.count("POST /api/transfer")).toBe(1);
  });

  test("a refusal of the old session does not end the new one", async () => {
    const auth = await it.signedIn({ mode: "token" });
    it.service.revokeAccess();
    const late = held();
    it.service.plan(REFRESH, { ...answers(401, "SESSION_ENDED"), ...late });
    void auth.fetch("/api/things");
    await eventually(() => it.service.count(REFRESH) === 1);

    await auth.login({ email: "bob@example.org", password: PASSWORD });
    late.release();
    await breathe(30);

    expect(auth.state.user?.email).toBe("bob@example.org");
  });

  test("a log-in that fails leaves the refresh to those who wait for it", async () => {
    const auth = await it.signedIn();
    it.service.revokeAccess();
    const late = held();
    it.service.plan(REFRESH, late);
    const call = auth.fetch("/api/things");
    await eventually(() => it.service.count(REFRESH) === 1);

    expect((await failure(auth.login({ email: "bob@example.org", password: "no" }))).code).toBe("INVALID_CREDENTIALS");
    late.release();

    expect((await call).status).toBe(200);
    expect(auth.state.user?.email).toBe("ada@example.org");
  });

  test("who it was does not overwrite who it is", async () => {
    const auth = await it.signedIn();
    const late = held();
    it.service.plan(ME, late);
    const old = auth.user();
    await eventually(() => it.service.count(ME) === 1);
    it.service.user("ada@example.org", { lastName: "Lovelace" });
    await auth.user();
    late.release();

    expect((await old)?.lastName).toBe("Lovelace");
    expect(auth.state.user?.lastName).toBe("Lovelace");
  });
});

describe("refreshing in time", () => {
  test.each(["cookie", "token"] as const)("it is done before the token ends, by one timer (%s)", async (mode) => {
    stopTime();
    const auth = await it.signedIn({ mode });
    await auth.ready();

    await advance(600_000);
    expect(it.service.count(REFRESH)).toBe(0);
    await advance(215_000);
    await eventually(() => it.service.count(REFRESH) === 1);
    await advance(500_000);
    expect(it.service.count(REFRESH)).toBe(1);
    await advance(320_000);
    await eventually(() => it.service.count(REFRESH) === 2);
  });

  test("the client's clock may be wrong, and be put right", async () => {
    stopTime();
    it.service.ahead = 26 * 365 * 86_400_000;
    vi.setSystemTime(new Date("2000-01-01"));
    const auth = await it.signedIn({ mode: "token" });
    await auth.ready();
    vi.setSystemTime(new Date("1999-01-01"));

    await advance(600_000);
    expect(it.service.count(REFRESH)).toBe(0);
    await advance(215_000);
    await eventually(() => it.service.count(REFRESH) === 1);
  });

  test("after a reload the time that is left is learnt from the server's clock", async () => {
    stopTime();
    it.service.ahead = -5 * 3_600_000;
    (await it.signedIn()).close();
    await advance(300_000);
    const auth = it.tab();
    expect((await auth.ready()).status).toBe("authenticated");
    await eventually(() => it.service.count("GET /api/auth/verify") === 1);
    await answered();
    await breathe(10);

    await advance(440_000);
    expect(it.service.count(REFRESH)).toBe(0);
    await advance(120_000);
    await eventually(() => it.service.count(REFRESH) === 1);
  });

  test("two clients do not come in step", async () => {
    stopTime();
    const when: number[] = [];
    for (const random of [0, 0.5, 1]) {
      vi.spyOn(Math, "random").mockReturnValue(random);
      const auth = await it.signedIn({ mode: "token" });
      await auth.ready();
      const from = Date.now();
      for (let n = 0; n < 40 && !it.service.count(REFRESH); n += 1) await advance(30_000);
      when.push(Date.now() - from);
      auth.close();
    }
    vi.restoreAllMocks();

    expect(new Set(when).size).toBe(3);
    expect(Math.max(...when)).toBeLessThan(880_000);
  });

  test("a laptop that slept refreshes before its first call, not after a 401", async () => {
    stopTime();
    const auth = await it.signedIn();
    vi.setSystemTime(Date.now() + 8 * 3_600_000);

    expect((await auth.fetch("/api/things")).status).toBe(200);
    expect(it.service.log).toEqual([REFRESH, "GET /api/things"]);
  });

  test("an outage is tried again, later each time, and ends nothing", async () => {
    stopTime();
    const auth = await it.signedIn({ retries: 0 });
    await auth.ready();
    it.service.plan(REFRESH, answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "60" }), lost);

    for (let n = 0; n < 200 && !it.service.count(REFRESH); n += 1) await advance(5000);
    await advance(50_000);
    expect(it.service.count(REFRESH)).toBe(1);
    await advance(25_000);
    expect(it.service.count(REFRESH)).toBe(3);
    await advance(600_000);
    expect(it.service.count(REFRESH)).toBe(3);
    expect(auth.state.status).toBe("authenticated");
  });

  test("close stops it", async () => {
    stopTime();
    const auth = await it.signedIn();
    await auth.ready();
    auth.close();

    await advance(3_600_000);

    expect(it.service.log).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("in a page", () => {
  const page = { document: Object.assign(new EventTarget(), { visibilityState: "visible", cookie: "" }), window: new EventTarget() };
  const globals = globalThis as Record<string, unknown>;
  const enter = () => {
    globals.document = page.document;
    globals.addEventListener = page.window.addEventListener.bind(page.window);
    globals.removeEventListener = page.window.removeEventListener.bind(page.window);
  };
  afterEach(() => {
    for (const name of ["document", "addEventListener", "removeEventListener"]) delete globals[name];
    page.document.visibilityState = "visible";
    page.document.cookie = "";
  });

  test.each(["visibilitychange", "online", "pageshow"])("whose timers slept, %s makes it refresh", async (event) => {
    enter();
    stopTime();
    const auth = await it.signedIn();
    await auth.ready();
    vi.setSystemTime(Date.now() + 8 * 3_600_000);

    (event === "visibilitychange" ? page.document : page.window).dispatchEvent(new Event(event));

    await eventually(() => it.service.count(REFRESH) === 1);
  });

  test("that nobody sees, the session rests until it is shown", async () => {
    enter();
    stopTime();
    const auth = await it.signedIn();
    await auth.ready();
    page.document.visibilityState = "hidden";
    await advance(2_000_000);
    expect(it.service.count(REFRESH)).toBe(0);

    page.document.visibilityState = "visible";
    page.document.dispatchEvent(new Event("visibilitychange"));

    await eventually(() => it.service.count(REFRESH) === 1);
  });

  test("on the service's own host the CSRF token is read from its cookie", async () => {
    (await it.signedIn()).close();
    enter();
    page.document.cookie = `theme=dark; __Host-csrfToken=${it.browser.jar.get("csrfToken")!.value}; a=b`;
    const auth = it.tab();
    await auth.ready();

    expect((await auth.fetch("/api/things", { method: "POST" })).status).toBe(200);
    expect(it.service.count("GET /api/auth/csrf-token")).toBe(0);
  });

  test("a cookie of that name that is not ours does no harm", async () => {
    (await it.signedIn()).close();
    enter();
    page.document.cookie = "csrfToken=of-another-application";
    const auth = it.tab();
    await auth.ready();

    expect((await auth.fetch("/api/things", { method: "POST" })).status).toBe(200);
    expect(it.service.count("POST /api/things")).toBe(2);
  });
});

test("an answer is a Problem with all that the service said", async () => {
  const auth = await it.signedIn();
  const errors = [{ field: "name", message: "is too long" }];
  it.service.plan("PATCH /api/users/profile", {
    instead: { status: 400, body: { code: "VALIDATION_ERROR", title: "Not valid", detail: "name: is too long", requestId: "r1", errors } },
  });

  const problem = await failure(auth.call("PATCH", "/api/users/profile", { name: "x" }));

  expect(problem).toBeInstanceOf(Problem);
  expect(problem).toMatchObject({ status: 400, code: "VALIDATION_ERROR", message: "name: is too long", requestId: "r1", errors });
});
