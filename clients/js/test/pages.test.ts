import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createAuth } from "../src/index.js";
import { answered, answers, breathe, ended, eventually, held, lost, PASSWORD, stopTime, world } from "./service.js";

const it = world();
const ME = "GET /api/auth/me";
const REFRESH = "POST /api/auth/refresh";
const ada = { email: "ada@example.org", password: PASSWORD };
const bob = { email: "bob@example.org", password: PASSWORD };
afterEach(() => void vi.unstubAllGlobals());

describe("a page", () => {
  let document: EventTarget & { visibilityState: string };
  let window: EventTarget;
  beforeEach(() => {
    document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    window = new EventTarget();
    vi.stubGlobal("document", document);
    vi.stubGlobal("addEventListener", window.addEventListener.bind(window));
    vi.stubGlobal("removeEventListener", window.removeEventListener.bind(window));
  });
  const shown = (persisted: boolean) => window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted }));

  test("that comes back from the history shows nobody who has signed out meanwhile", async () => {
    const auth = await it.signedIn({ channel: false }); // while it rests, messages do not reach it
    await auth.ready();
    const other = it.tab({ channel: false });
    await other.ready();
    await other.logout();
    expect(auth.state.user?.email).toBe("ada@example.org");
    shown(true);

    await eventually(() => auth.state.status === "unauthenticated");
  });

  test("that comes back from the history shows who has signed in meanwhile", async () => {
    const auth = it.tab({ channel: false });
    await auth.ready();
    await it.signedIn({ channel: false }, "bob@example.org");
    shown(true);

    await eventually(() => auth.state.user?.email === "bob@example.org");
  });

  test("that comes back while the service is away goes on as it was", async () => {
    stopTime();
    const auth = await it.signedIn({ retries: 0 });
    await auth.ready();
    it.service.plan(ME, lost);
    shown(true);
    await eventually(() => it.service.count(ME) === 1);
    await answered();

    expect(auth.state.user?.email).toBe("ada@example.org");
  });

  test("that is shown for the first time asks nothing more than it does anyway", async () => {
    const auth = await it.signedIn();
    await auth.ready();
    shown(false);
    await breathe(30);

    expect(it.service.log).toEqual([]);
  });

  test("that wakes up in all ways at once refreshes once", async () => {
    stopTime();
    const auth = await it.signedIn();
    await auth.ready();
    vi.setSystemTime(Date.now() + 8 * 3_600_000);
    const gate = held();
    it.service.plan(REFRESH, gate);
    document.dispatchEvent(new Event("visibilitychange"));
    shown(true);
    window.dispatchEvent(new Event("online"));
    const calls = [auth.fetch("/api/things"), auth.fetch("/api/things")];
    await eventually(() => it.service.count(REFRESH) === 1);
    gate.release();
    await Promise.all(calls);
    await answered();

    expect(it.service.count(REFRESH)).toBe(1);
    expect(it.service.count(ME)).toBe(1);
  });

  test("that is hidden by the person does not hurry an outage", async () => {
    stopTime();
    it.service.plan(ME, answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "60" }), ...Array(9).fill(lost));
    const auth = it.tab({ retries: 0 });
    void auth.ready().catch(() => {});
    await eventually(() => auth.state.problem !== null);
    await breathe(20);
    document.visibilityState = "hidden";
    document.dispatchEvent(new Event("visibilitychange"));
    await breathe(30);

    expect(it.service.count(ME)).toBe(1);
  });

  test("that is closed hears no event any more", async () => {
    stopTime();
    const auth = await it.signedIn();
    await auth.ready();
    auth.close();
    vi.setSystemTime(Date.now() + 8 * 3_600_000);
    document.dispatchEvent(new Event("visibilitychange"));
    shown(true);
    await breathe(30);

    expect(it.service.log).toEqual([]);
  });
});

describe("where there is no page", () => {
  test("it can be made, asked and closed, and keeps no process running", async () => {
    expect("window" in globalThis || "document" in globalThis).toBe(false);
    stopTime();
    const auth = it.tab({ mode: "token" });
    await auth.login(ada);
    await auth.fetch("/api/things");
    await auth.logout();

    expect(vi.getTimerCount()).toBe(0);
  });

  test("to make it does nothing: no call, no timer", async () => {
    stopTime();
    const auth = createAuth({ baseUrl: it.service.url });
    await breathe(20);

    expect([it.service.log, vi.getTimerCount()]).toEqual([[], 0]);
    auth.close();
  });
});

describe("other tabs", () => {
  const post = async (...messages: unknown[]) => {
    const channel = new BroadcastChannel(`gatepost ${it.service.url}`);
    for (const message of messages) channel.postMessage(message);
    await breathe(50);
    channel.close();
  };

  test.each([
    ["may not be spoken to", class { constructor() { throw new DOMException("insecure", "SecurityError"); } }], // prettier-ignore
    ["cannot be spoken to", undefined],
  ])("that %s are done without", async (_, channel) => {
    vi.stubGlobal("BroadcastChannel", channel);
    const auth = await it.signedIn();
    expect((await auth.fetch("/api/things")).status).toBe(200);
    await auth.logout();

    expect(ended(auth, "signed-out")).toBe(true);
  });

  test("that say something strange are not listened to", async () => {
    const auth = await it.signedIn();
    const user = auth.state.user!.id;
    await post(
      ...[undefined, 0, "", [], [[]], new Map([["type", "out"]]), new Date(), new Uint8Array(8), true, 10n, new Error("out")],
      ...[{ type: ["out"], user, reason: "ended" }, { type: "out", user: [user], reason: "ended" }, { type: "out", reason: "ended" }],
      ...[{ type: "in", user: null }, { type: "in", user: { id: user } }, { type: "__proto__", user }, { type: "constructor", user }],
      ...[NaN, Infinity, -1, 0, "9e99", null, 1n].map((until) => ({ type: "fresh", user, until })),
      { type: "fresh", user: "somebody-else", until: Date.now() + 1e9 },
    );

    expect(auth.state.user?.id).toBe(user);
    expect(it.service.log).toEqual([]);
  });

  test("that tell late of cookies that are replaced cause no refresh", async () => {
    const auth = await it.signedIn();
    await post({ type: "fresh", user: auth.state.user!.id, until: Date.now() + 5 });

    expect((await auth.fetch("/api/things")).status).toBe(200);
    expect(it.service.log).toEqual(["GET /api/things"]);
  });

  test("that were asleep while the person signed in anew do not end the new session with the old one", async () => {
    const asleep = await it.signedIn({ channel: false });
    const told: { type: string }[] = [];
    const ear = new BroadcastChannel(`gatepost ${it.service.url}`);
    ear.onmessage = (event) => told.push((event as MessageEvent).data);
    const old = it.tab();
    await old.ready();
    await eventually(() => it.service.count("GET /api/auth/verify") === 1);
    await answered();
    await breathe(10);
    asleep.close();
    it.service.endSessions("revoked");
    await old.fetch("/api/things"); // it tells the others now, and they hear it later
    await eventually(() => told.some(({ type }) => type === "out"));
    ear.close();
    const auth = await it.signedIn();
    await post(told.find(({ type }) => type === "out"));

    expect(auth.state.user?.email).toBe("ada@example.org");
    expect((await auth.fetch("/api/things")).status).toBe(200);
  });

  test("hear of a sign-out, whatever session they thought it was", async () => {
    const stale = await it.signedIn();
    await it.signedIn({ channel: false }); // the same person, in a tab that tells nobody
    const third = it.tab();
    await third.ready();
    await stale.logout();

    await eventually(() => ended(third, "signed-out"));
  });

  test("that sign in and out in turn leave all of them at the last word", async () => {
    const tabs = [await it.signedIn(), it.tab(), it.tab()];
    await Promise.all(tabs.map((tab) => tab.ready()));
    for (let n = 0; n < 4; n += 1) {
      await tabs[n % 3]!.logout();
      await tabs[(n + 1) % 3]!.login(n % 2 ? ada : bob);
    }

    await eventually(() => tabs.every((tab) => tab.state.user?.email === "ada@example.org"));
    await breathe(50);
    expect(tabs.every((tab) => tab.state.user?.email === "ada@example.org")).toBe(true);
  });
});

test("a place for the token that never says it has kept it stops nothing", async () => {
  const never = () => new Promise<void>(() => {});
  const auth = await it.signedIn({ mode: "token", storage: { get: () => null, set: never, remove: never } });
  it.service.revokeAccess();

  expect((await auth.fetch("/api/things")).status).toBe(200);
  await auth.logout();
  expect(ended(auth, "signed-out")).toBe(true);
});

test("nobody is told anything after close, whatever comes late", async () => {
  const gate = held();
  const auth = await it.signedIn();
  it.service.plan(ME, gate);
  const seen: unknown[] = [];
  auth.onChange((state) => seen.push(state));
  const asked = auth.user().catch((error: Error) => error.name);
  await eventually(() => it.service.count(ME) === 1);
  auth.close();
  gate.release();

  expect(await asked).toBe("NetworkError");
  await breathe(20);
  expect(seen).toEqual([]);
});
