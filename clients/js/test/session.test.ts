import { afterEach, describe, expect, test, vi } from "vitest";
import { NetworkError, Problem, type Auth } from "../src/index.js";
import { advance, answers, breathe, drive, ended, eventually, failure, held, lost, PASSWORD, silent, states, stopTime, world } from "./service.js";

const it = world();
const ME = "GET /api/auth/me";
const REFRESH = "POST /api/auth/refresh";
const LOGOUT = "POST /api/auth/logout";
const ada = { email: "ada@example.org", password: PASSWORD };

describe("at the start", () => {
  test("nobody is signed in: two calls and no more", async () => {
    const auth = it.tab();
    expect(auth.state.status).toBe("checking");

    expect(await auth.ready()).toMatchObject({ status: "unauthenticated", reason: "none", user: null, problem: null });
    expect(it.service.log).toEqual([ME, REFRESH]);
  });

  test("nobody is signed in, as a page on the service's own host sees by the missing cookie: one call", async () => {
    vi.stubGlobal("location", new URL("/", it.service.url));
    vi.stubGlobal("document", Object.assign(new EventTarget(), { visibilityState: "visible", cookie: "theme=dark" }));

    expect(await it.tab().ready()).toMatchObject({ status: "unauthenticated", reason: "none" });
    expect(it.service.log).toEqual([REFRESH]);
  });

  test("that cookie alone is lost: who was signed in still is", async () => {
    (await it.signedIn()).close();
    vi.stubGlobal("location", new URL("/", it.service.url));
    vi.stubGlobal("document", Object.assign(new EventTarget(), { visibilityState: "visible", cookie: "" }));

    expect((await it.tab().ready()).status).toBe("authenticated");
    expect(it.service.log.slice(0, 4)).toEqual([REFRESH, "GET /api/auth/csrf-token", REFRESH, ME]);
  });

  test("with tokens nobody is asked: there is nothing to ask with", async () => {
    expect((await it.tab({ mode: "token" }).ready()).status).toBe("unauthenticated");
    expect(it.service.log).toEqual([]);
  });

  test("somebody is signed in: one call tells who", async () => {
    (await it.signedIn()).close();
    const auth = it.tab();

    expect(await auth.ready()).toMatchObject({ status: "authenticated", user: { email: "ada@example.org" } });
    expect(it.service.log[0]).toBe(ME);
    expect(it.service.count(REFRESH)).toBe(0);
  });

  test("the access cookie is gone but not the session: it is refreshed", async () => {
    (await it.signedIn()).close();
    it.browser.jar.delete("accessToken");

    expect((await it.tab().ready()).status).toBe("authenticated");
    expect(it.service.log.slice(0, 5)).toEqual([ME, REFRESH, "GET /api/auth/csrf-token", REFRESH, ME]);
  });

  test("the session has expired meanwhile, and the person is told so", async () => {
    (await it.signedIn()).close();
    it.service.endSessions("expired");

    expect(await it.tab().ready()).toMatchObject({ status: "unauthenticated", reason: "expired" });
  });

  test("the service is away: it stays unknown, says why, and goes on trying", async () => {
    stopTime();
    (await it.signedIn()).close();
    it.service.plan(ME, ...Array(9).fill(lost), answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "250" }));
    const auth = it.tab({ retries: 0 });
    const seen = states(auth);
    const ready = auth.ready();

    await eventually(() => auth.state.problem instanceof NetworkError);
    expect(auth.state).toMatchObject({ status: "checking", user: null });
    await advance(180_000);
    expect(it.service.count(ME)).toBe(10);
    expect(auth.state.problem).toBeInstanceOf(Problem);
    await advance(100_000);
    expect(it.service.count(ME)).toBe(10);

    expect((await drive(ready, 5000)).user?.email).toBe("ada@example.org");
    expect(auth.state.problem).toBeNull();
    expect(seen.filter(({ status }) => status === "unauthenticated")).toEqual([]);
  });

  test("the network is back: it is tried at once", async () => {
    stopTime();
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    it.service.plan(ME, answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "250" }));
    const auth = it.tab({ retries: 0 });
    const ready = auth.ready();
    await eventually(() => auth.state.problem !== null);
    await breathe(20);

    page.dispatchEvent(new Event("online"));

    expect((await ready).status).toBe("unauthenticated");
  });
  afterEach(() => void vi.unstubAllGlobals());

  test("close ends the trying, and who waits for it hears so", async () => {
    stopTime();
    it.service.plan(ME, ...Array(9).fill(lost));
    const auth = it.tab({ retries: 0 });
    const ready = failure(auth.ready());
    await eventually(() => auth.state.problem !== null);
    auth.close();

    expect(await ready).toBeInstanceOf(NetworkError);
    const calls = it.service.log.length;
    await advance(300_000);
    expect(it.service.log.length).toBe(calls);
    expect(vi.getTimerCount()).toBe(0);
    expect(await failure(auth.ready())).toBeInstanceOf(NetworkError);
  });

  test("who signs in while it is unknown is not overruled by the late answer", async () => {
    const late = held();
    it.service.plan(ME, late);
    const auth = it.tab();
    const ready = auth.ready();
    await eventually(() => it.service.count(ME) === 1);
    await auth.login(ada);
    late.release();

    expect((await ready).user?.email).toBe("ada@example.org");
    await breathe(40);
    expect(auth.state.user?.email).toBe("ada@example.org");
  });
});

describe("signing in", () => {
  test.each(["cookie", "token"] as const)("gives the user (%s)", async (mode) => {
    const auth = it.tab({ mode });

    expect((await auth.register({ ...ada, firstName: "Ada" }))?.email).toBe("ada@example.org");
    expect((await auth.login(ada)).email).toBe("ada@example.org");
    expect(auth.state).toMatchObject({ status: "authenticated", reason: "none", user: { email: "ada@example.org" } });
    expect((await auth.user())?.email).toBe("ada@example.org");
    expect(it.browser.jar.size).toBe(mode === "cookie" ? 3 : 0);
  });

  test("where a mail comes first, nobody is signed in yet", async () => {
    const auth = it.tab();
    await auth.ready();
    it.service.plan("POST /api/auth/register", { instead: { status: 202 } });

    expect(await auth.register(ada)).toBeNull();
    expect(auth.state.status).toBe("unauthenticated");
  });

  test("with a wrong password changes nothing, and is not tried again", async () => {
    const auth = await it.signedIn();

    expect(await failure(auth.login({ ...ada, password: "no" }))).toMatchObject({ status: 401, code: "INVALID_CREDENTIALS" });
    expect(auth.state.user?.email).toBe("ada@example.org");
    expect(it.service.log).toEqual(["POST /api/auth/login"]);
  });

  test("twice at once is done one after the other, and the last one counts", async () => {
    const auth = it.tab();
    const slow = held();
    it.service.plan("POST /api/auth/login", slow);
    const both = Promise.all([auth.login(ada), auth.login({ email: "bob@example.org", password: PASSWORD })]);
    await eventually(() => it.service.log.length === 1);
    await breathe(30);
    expect(it.service.log).toEqual(["POST /api/auth/login"]);
    slow.release();
    await both;

    expect(auth.state.user?.email).toBe("bob@example.org");
  });

  test("into a disabled account is refused, and says so", async () => {
    const auth = it.tab();
    it.service.plan("POST /api/auth/login", answers(403, "ACCOUNT_DISABLED"));

    expect((await failure(auth.login(ada))).code).toBe("ACCOUNT_DISABLED");
  });
});

describe("signing out", () => {
  test.each(["cookie", "token"] as const)("is true at the service too (%s)", async (mode) => {
    const auth = await it.signedIn({ mode });
    const token = await auth.accessToken();

    await auth.logout();

    expect(ended(auth, "signed-out")).toBe(true);
    const answer = await fetch(`${it.service.url}${ME.slice(4)}`, { headers: { Authorization: `Bearer ${token}` } });
    expect(answer.status).toBe(401);
    expect(await auth.user()).toBeNull();
    expect(ended(auth, "signed-out")).toBe(true);
  });

  test.each([
    ["the service is overloaded", answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "1" })],
    ["replies are lost", lost],
    ["the service never answers", silent],
  ] as const)("is not pretended when %s: it can be tried again", async (_, plan) => {
    stopTime();
    const auth = await it.signedIn();
    it.service.plan(LOGOUT, plan, plan, plan);

    const failed: unknown = await failure(drive(auth.logout(), 500));
    expect(failed instanceof Problem || failed instanceof NetworkError).toBe(true);
    expect(auth.state.user?.email).toBe("ada@example.org");
    expect(it.service.count(LOGOUT)).toBe(3);

    await drive(auth.logout());
    expect(ended(auth, "signed-out")).toBe(true);
  });

  test("works after a reload, when there is no CSRF token yet", async () => {
    (await it.signedIn()).close();
    const auth = it.tab();
    await auth.ready();
    await auth.logout();

    expect(ended(auth, "signed-out")).toBe(true);
    expect(it.browser.jar.size).toBe(0);
  });

  test.each(["cookie", "token"] as const)("everywhere refreshes first if it has to (%s)", async (mode) => {
    const other = await it.signedIn({ mode: "token" });
    const auth = await it.signedIn({ mode });
    it.service.revokeAccess();

    await auth.logoutEverywhere();

    expect(ended(auth, "signed-out")).toBe(true);
    expect((await other.fetch("/api/things")).status).toBe(401);
    expect(ended(other, "ended")).toBe(true);
  });

  test("of this very device in the list of sessions is a log-out", async () => {
    for (const fresh of [true, false]) {
      let auth: Auth = await it.signedIn();
      if (!fresh) {
        auth.close();
        auth = it.tab();
        await auth.ready();
      }
      const [session] = await auth.sessions();
      await auth.endSession(session!.id);
      expect(auth.state.status).toBe("unauthenticated");
    }
  });
});

describe("a place to keep the refresh token, for apps that have a safe one", () => {
  test("carries the session over a start, and is emptied by a log-out", async () => {
    let kept: string | null = null;
    const storage = { get: async () => kept, set: async (token: string) => void (kept = token), remove: () => void (kept = null) };
    const first = await it.signedIn({ mode: "token", storage });
    await eventually(() => kept !== null);
    first.close();

    const auth = it.tab({ mode: "token", storage });
    expect((await auth.call<{ user: string }>("GET", "/api/things")).user).toBe("ada@example.org");
    expect((await auth.ready()).user?.email).toBe("ada@example.org");
    await auth.logout();
    await eventually(() => kept === null);
  });

  test("that fails costs nothing but the next start", async () => {
    const broken = () => Promise.reject(new Error("locked"));
    const auth = await it.signedIn({ mode: "token", storage: { get: broken, set: broken, remove: broken } });
    expect((await auth.fetch("/api/things")).status).toBe(200);

    expect((await it.tab({ mode: "token", storage: { get: broken, set: broken, remove: broken } }).ready()).status).toBe("unauthenticated");
  });
});

describe("signing in elsewhere", () => {
  afterEach(() => void vi.unstubAllGlobals());
  const page = (href: string) => {
    const assign = vi.fn();
    vi.stubGlobal("location", Object.assign(new URL(href), { assign }));
    return assign;
  };

  test("is a navigation to the address that the service names, and back to this page", async () => {
    const assign = page("https://app.example/inbox?a=1&error=OAUTH_DENIED#top");
    await it.tab().signInWith("example");
    expect(assign).toHaveBeenLastCalledWith(
      `${it.service.url}/api/auth/example?redirectTo=${encodeURIComponent("https://app.example/inbox?a=1#top")}`,
    );

    await it.tab().signInWith("example", { redirectTo: "/welcome" });
    expect(assign).toHaveBeenLastCalledWith(
      `${it.service.url}/api/auth/example?redirectTo=${encodeURIComponent("https://app.example/welcome")}`,
    );
  });

  test("leaves the page only when the service is there and knows the provider", async () => {
    const assign = page("https://app.example/");
    expect((await failure(it.tab().signInWith("nobody"))).code).toBe("PROVIDER_NOT_CONFIGURED");
    it.service.plan("GET /api/auth/providers", answers(503, "SERVICE_UNAVAILABLE"));
    expect((await failure(it.tab({ retries: 0 }).signInWith("example"))).status).toBe(503);
    await expect(it.tab({ mode: "token" }).signInWith("example")).rejects.toThrow("cookie mode");
    it.service.plan("GET /api/auth/providers", {
      instead: { status: 200, body: { providers: [{ name: "example", displayName: "", startUrl: "javascript:alert(1)" }] } },
    });
    expect(await failure(it.tab().signInWith("example"))).toBeInstanceOf(NetworkError);

    expect(assign).not.toHaveBeenCalled();
  });
});

describe("listeners", () => {
  test("one that throws does not keep the others from hearing", async () => {
    stopTime();
    const auth = it.tab();
    auth.onChange(() => {
      throw new Error("of the app");
    });
    const seen = states(auth);
    await auth.login(ada);

    expect(seen.at(-1)?.status).toBe("authenticated");
    expect(() => vi.runOnlyPendingTimers()).toThrow("of the app");
  });

  test("hear of what has changed only, and nothing after they have left", async () => {
    const auth = it.tab();
    const seen = states(auth);
    const stop = auth.onChange(() => seen.push(null!));
    stop();
    await auth.login(ada);
    await auth.user();
    await auth.user();

    expect(seen.map(({ status }) => status)).toEqual(["authenticated"]);
    expect(Object.isFrozen(auth.state)).toBe(true);
  });
});

test("nothing is written to web storage", async () => {
  const touched = () => {
    throw new Error("touched");
  };
  vi.stubGlobal("localStorage", new Proxy({}, { get: touched, set: touched }));
  vi.stubGlobal("sessionStorage", new Proxy({}, { get: touched, set: touched }));
  for (const mode of ["cookie", "token"] as const) {
    const auth = await it.signedIn({ mode });
    it.service.revokeAccess();
    await auth.fetch("/api/things");
    await auth.logout();
  }
  vi.unstubAllGlobals();
});
