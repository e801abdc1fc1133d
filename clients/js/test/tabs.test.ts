import { expect, test, vi } from "vitest";
import { advance, answered, breathe, ended, eventually, held, PASSWORD, stopTime, world } from "./service.js";

const it = world();
const REFRESH = "POST /api/auth/refresh";

/** Tabs of one browser, and all that they tell one another. */
async function tabs(count: number) {
  const told: unknown[] = [];
  const ear = new BroadcastChannel(`gatepost ${it.service.url}`);
  ear.onmessage = (event) => told.push((event as MessageEvent).data);
  (ear as unknown as { unref(): void }).unref();
  const first = await it.signedIn();
  const all = [first, ...Array.from({ length: count - 1 }, () => it.tab())];
  await Promise.all(all.map((tab) => tab.ready()));
  await eventually(() => it.service.count("GET /api/auth/verify") === count - 1);
  await answered();
  await breathe(10);
  it.service.log.length = 0;
  return { all, told, first: all[0]!, others: all.slice(1) };
}

test("a log-out in one tab is one in the others, at once and without a call", async () => {
  const { first, others } = await tabs(4);
  await first.logout();
  await eventually(() => others.every((tab) => ended(tab, "signed-out")));
  await breathe(50);

  expect(it.service.log).toEqual(["POST /api/auth/logout"]);
});

test("a session that was ended is told with its reason", async () => {
  const { first, others } = await tabs(3);
  it.service.endSessions("reuse");
  await first.fetch("/api/things");
  await eventually(() => others.every((tab) => ended(tab, "reused")));

  expect(it.service.count(REFRESH)).toBe(1);
});

test("a log-in in one tab is seen by the others, who look who it is", async () => {
  const { first, others } = await tabs(3);
  await first.logout();
  await eventually(() => others.every((tab) => tab.state.status === "unauthenticated"));
  it.service.log.length = 0;
  await first.login({ email: "ada@example.org", password: PASSWORD });

  await eventually(() => others.every((tab) => tab.state.user?.email === "ada@example.org"));
  expect(it.service.count("GET /api/auth/me")).toBe(2);
  expect(it.service.count(REFRESH)).toBe(0);
});

test("the same person's new session is taken up: the old CSRF and access tokens are not tried", async () => {
  const { first, others, told } = await tabs(2);
  const old = await first.accessToken();
  told.length = 0;
  await others[0]!.login({ email: "ada@example.org", password: PASSWORD });
  await eventually(() => told.length > 0);
  await breathe(10);
  it.service.log.length = 0;

  expect((await first.fetch("/api/things", { method: "POST" })).status).toBe(200);
  expect(await first.accessToken()).not.toBe(old);
  expect(it.service.log).toEqual(["GET /api/auth/csrf-token", "POST /api/things", REFRESH]);
});

test("another person in one tab is not the old one in the others for a moment longer", async () => {
  const { first, others } = await tabs(3);
  const late = held();
  it.service.plan("GET /api/auth/me", late, late);
  await first.login({ email: "bob@example.org", password: PASSWORD });
  await eventually(() => others.every((tab) => tab.state.status === "checking" && tab.state.user === null));
  late.release();

  await eventually(() => others.every((tab) => tab.state.user?.email === "bob@example.org"));
});

test("tabs that are opened together do not make one another look again", async () => {
  (await it.signedIn()).close();
  await Promise.all(Array.from({ length: 8 }, () => it.tab().ready()));
  await breathe(80);

  expect(it.service.count("GET /api/auth/me")).toBe(8);
});

test("a person who comes back from a provider is seen by the tabs that were left open", async () => {
  const waiting = it.tab();
  await waiting.ready();
  (await it.signedIn({ channel: false })).close(); // the cookies of a sign-in by navigation

  await it.tab().ready();

  await eventually(() => waiting.state.user?.email === "ada@example.org");
});

test("one refresh does for all tabs", async () => {
  stopTime();
  const random = vi.spyOn(Math, "random").mockReturnValue(0.9);
  const all = [await it.signedIn()];
  await all[0]!.ready();
  for (const other of [1, 2, 3]) {
    random.mockReturnValue(other / 5);
    const tab = it.tab();
    await tab.ready();
    await eventually(() => it.service.count("GET /api/auth/verify") === other);
    await answered();
    await breathe(10);
    all.push(tab);
  }
  for (let n = 0; n < 170 && !it.service.count(REFRESH); n += 1) await advance(5000);
  await advance(300_000);
  random.mockRestore();

  expect(it.service.count(REFRESH)).toBe(1);
  expect(all.every((tab) => tab.state.status === "authenticated")).toBe(true);
});

test("eight tabs that wake at once are eight refreshes at most, and nobody is signed out", async () => {
  const { all } = await tabs(8);
  it.service.revokeAccess();
  const calls = all.flatMap((tab) => Array.from({ length: 3 }, () => tab.fetch("/api/things")));

  expect((await Promise.all(calls)).every(({ status }) => status === 200)).toBe(true);
  expect(it.service.count(REFRESH)).toBeLessThanOrEqual(8);
  expect(all.every((tab) => tab.state.status === "authenticated")).toBe(true);
});

test("no token is ever in a message", async () => {
  const { first, told } = await tabs(2);
  const secrets = [...it.browser.jar.values()].map(({ value }) => value);
  it.service.revokeAccess();
  await first.fetch("/api/things");
  secrets.push((await first.accessToken())!, ...[...it.browser.jar.values()].map(({ value }) => value));
  await first.logout();
  await first.login({ email: "ada@example.org", password: PASSWORD });
  await eventually(() => told.filter((each) => (each as { type: string }).type === "in").length === 2);

  expect(new Set(told.map((each) => (each as { type: string }).type))).toEqual(new Set(["in", "here", "out", "fresh"]));
  for (const secret of secrets) expect(JSON.stringify(told)).not.toContain(secret);
});

test("what is no message of ours is not listened to", async () => {
  const { first } = await tabs(1);
  const channel = new BroadcastChannel(`gatepost ${it.service.url}`);
  for (const data of [null, "out", {}, { type: "out" }, { type: "out", user: "user-1", reason: "<b>" }, { type: "out", user: 1, reason: "none" },
    { type: "in" }, { type: "fresh", user: "user-1", until: "soon" }, { type: "other", user: "user-1" }]) channel.postMessage(data); // prettier-ignore
  await breathe(50);
  channel.close();

  expect(first.state.status).toBe("authenticated");
  expect(it.service.log).toEqual([]);
});

test("a tab that knows of a newer sign-in does not believe a late log-out of the one before", async () => {
  const { first } = await tabs(1);
  const channel = new BroadcastChannel(`gatepost ${it.service.url}`);
  channel.postMessage({ type: "out", user: "somebody-else", reason: "signed-out" });
  await breathe(30);
  channel.close();

  expect(first.state.status).toBe("authenticated");
});

test("with tokens each tab has a session of its own, and with channel: false nobody is told", async () => {
  for (const options of [{ mode: "token" as const }, { channel: false as const }]) {
    const [one, two] = [await it.signedIn(options), await it.signedIn(options)];
    await one.logout();
    await breathe(30);
    expect(two.state.status).toBe("authenticated");
  }
});

test("nothing is told where there is no BroadcastChannel", async () => {
  vi.stubGlobal("BroadcastChannel", undefined);
  const auth = await it.signedIn();
  await auth.logout();
  vi.unstubAllGlobals();

  expect(ended(auth, "signed-out")).toBe(true);
});
