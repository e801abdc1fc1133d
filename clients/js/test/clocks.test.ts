import { afterEach, expect, test, vi } from "vitest";
import { NetworkError, Problem } from "../src/index.js";
import { retryAfter } from "../src/problem.js";
import { advance, answered, answers, breathe, drive, eventually, failure, lost, stopTime, world } from "./service.js";

const it = world();
const REFRESH = "POST /api/auth/refresh";
const YEAR = 365 * 86_400_000;
afterEach(() => void vi.restoreAllMocks());

test.each([40 * YEAR, -40 * YEAR, 11 * 60_000, -11 * 60_000])("a service whose clock is %d ms ahead changes nothing", async (ahead) => {
  stopTime();
  it.service.ahead = ahead;
  const auth = await it.signedIn();
  await auth.ready();

  await advance(600_000);
  expect(it.service.count(REFRESH)).toBe(0);
  await advance(215_000);
  await eventually(() => it.service.count(REFRESH) === 1);
  expect((await auth.fetch("/api/things")).status).toBe(200);
});

test("a service that does not show its date is asked only when a token is spent", async () => {
  stopTime();
  (await it.signedIn()).close();
  it.service.plan("GET /api/auth/verify", { instead: { status: 200, headers: { Date: "never" }, body: { sid: "s", expiresAt: "soon" } } });
  const auth = it.tab();
  await auth.ready();
  await eventually(() => it.service.count("GET /api/auth/verify") === 1);
  await answered();
  await advance(1_000_000);
  expect(it.service.count(REFRESH)).toBe(0);
  expect(it.service.count("GET /api/auth/verify")).toBe(1);

  expect((await drive(auth.fetch("/api/things"))).status).toBe(200);
});

test.each([0, -5, 1e-9, 1])("a token for %d seconds is no reason to refresh without a break", async (expiresIn) => {
  stopTime();
  it.service.expiresIn = expiresIn;
  const auth = await it.signedIn({ retries: 0 });
  await auth.ready();
  for (let n = 0; n < 100; n += 1) await advance(100);

  expect(it.service.count(REFRESH)).toBeLessThanOrEqual(15); // one for each second, and `expiresIn` of 1 is 0.75 at least
  expect(auth.state.status).toBe("authenticated");
});

test.each([30 * 86_400, 10 * 365 * 86_400, 1e300])("a token for %d seconds is not refreshed at once: timers reach 24 days", async (expiresIn) => {
  stopTime();
  const auth = await it.signedIn({ mode: "token" });
  it.service.revokeAccess();
  it.service.plan(REFRESH, {
    instead: { status: 200, body: { accessToken: "e30.e30.s", expiresIn, csrfToken: "c", refreshToken: "r" } },
  });
  await auth.fetch("/api/things");
  await vi.advanceTimersByTimeAsync(5 * 86_400_000);
  await breathe(20);

  expect(it.service.count(REFRESH)).toBe(1);
});

test("a tab that was asleep past the end of its session refreshes once, and then says so", async () => {
  stopTime();
  const auth = await it.signedIn();
  vi.setSystemTime(Date.now() + 30 * 86_400_000);
  it.service.endSessions("expired");
  const answered = await Promise.all([1, 2, 3].map(() => auth.fetch("/api/things")));

  expect(answered.map(({ status }) => status)).toEqual([401, 401, 401]);
  expect(it.service.log).toEqual([REFRESH, "GET /api/things", "GET /api/things", "GET /api/things"]);
  expect(auth.state).toMatchObject({ status: "unauthenticated", reason: "expired" });
});

test("a clock that is set back does not make a spent token good again", async () => {
  stopTime();
  const auth = await it.signedIn({ mode: "token" });
  await vi.advanceTimersByTimeAsync(600_000);
  vi.setSystemTime(Date.now() - YEAR);
  await advance(215_000);

  await eventually(() => it.service.count(REFRESH) === 1);
  expect((await auth.fetch("/api/things")).status).toBe(200);
});

test.each([
  ["-5", 0],
  ["0", 0],
  ["1.5", 0],
  ["007", 7000],
  ["  3  ", 3000],
  ["1e3", null],
  ["", null],
  ["Infinity", null],
  ["99999999999999999999", 1e23],
  ["Mon, 01 Jan 1990 00:00:00 GMT", 0],
  ["\u00e9", null],
])("Retry-After: %j is never less than nothing", (told, ms) => {
  const answer = new Response(null, { headers: { "Retry-After": told } });
  const wait = retryAfter(answer);
  expect(wait === null || wait >= 0).toBe(true);
  if (ms) expect(wait).toBe(ms);
});

test.each(["-5", "never", "0", "Mon, 01 Jan 1990 00:00:00 GMT", undefined])("Retry-After: %s is answered by waiting as long as without it", async (told) => {
  stopTime();
  vi.spyOn(Math, "random").mockReturnValue(1);
  const auth = await it.signedIn();
  const headers: Record<string, string> = told === undefined ? {} : { "Retry-After": told };
  it.service.plan("GET /api/things", answers(503, "SERVICE_UNAVAILABLE", headers), answers(503, "SERVICE_UNAVAILABLE", headers));
  const from = Date.now();

  expect((await drive(auth.fetch("/api/things"), 50)).status).toBe(200);
  expect(it.service.count("GET /api/things")).toBe(3);
  expect(Date.now() - from).toBeGreaterThanOrEqual(1500);
  expect(Date.now() - from).toBeLessThan(2500);
});

test("Retry-After of a thousand years is given to the app at once, and the timer asks again within minutes", async () => {
  stopTime();
  const auth = await it.signedIn();
  it.service.plan("GET /api/things", answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "31536000000" }));
  expect(await failure(auth.call("GET", "/api/things"))).toMatchObject({ retryAfter: 31_536_000_000 });
  it.service.plan(REFRESH, answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "31536000000" }));
  for (let n = 0; n < 250 && !it.service.count(REFRESH); n += 1) await advance(5000);
  await advance(310_000);

  expect(it.service.count(REFRESH)).toBe(2);
});

test("an outage at the start ends by itself, whatever kinds of answers come between", async () => {
  stopTime();
  (await it.signedIn()).close();
  it.service.plan(
    "GET /api/auth/me",
    lost,
    answers(503),
    { instead: { status: 200, text: "<html>" } },
    { instead: { status: 200, text: "null" } },
    { instead: { status: 200, body: { user: { id: 5 } } } },
    answers(500, "INTERNAL_ERROR"),
    answers(429, "RATE_LIMITED", { "Retry-After": "-1" }),
    answers(404),
  );
  const auth = it.tab({ retries: 0 });
  const problems: unknown[] = [];
  auth.onChange(({ problem }) => problem && problems.push(problem));
  const { user } = await drive(auth.ready(), 5000);

  expect(user?.email).toBe("ada@example.org");
  expect(problems.every((problem) => problem instanceof Problem || problem instanceof NetworkError)).toBe(true);
  expect(auth.state.problem).toBeNull();
});
