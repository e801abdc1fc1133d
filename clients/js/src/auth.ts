import { NetworkError, Problem, retryAfter } from "./problem.js";
import { tabs, type Message } from "./tabs.js";
import type { Auth, EndReason, Options, Provider, Session, State, User } from "./types.js";
import { attempt, backoff, Life, pause, shared, watch } from "./waiting.js";

/** Answers to a call that a refresh may mend. A 401 that says no code is somebody else's word for the same. */
const REFRESH_AND_REPEAT = new Set(["", "NO_TOKEN", "TOKEN_EXPIRED", "TOKEN_STALE", "TOKEN_REVOKED", "INVALID_TOKEN"]);
/** The only answers to a refresh that end a session. */
const ENDED = new Set(["NO_REFRESH_TOKEN", "INVALID_REFRESH_TOKEN", "REFRESH_TOKEN_REUSED", "SESSION_ENDED", "ACCOUNT_DISABLED"]);
/** What `reason` of `SESSION_ENDED` means to the person; anything else: somebody has ended it. */
const WHY: Record<string, EndReason> = { expired: "expired", logout: "signed-out", reuse: "reused", account_disabled: "disabled" };
const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);
const FOR_NOW = new Set([429, 502, 503, 504]);
/** A call that is told to wait longer is answered at once; ms. */
const LONGEST_WAIT = 10_000;
const LONGEST_TIMER = 24 * 3_600_000;
const CHECKING: State = Object.freeze({ status: "checking", user: null, reason: "none", problem: null });

/** Thrown to who waits for a refresh when the session that it was for is not the current one any more. */
class Overtaken extends NetworkError {
  constructor() {
    super("The session has changed");
  }
}

interface Tokens {
  accessToken: string;
  expiresIn: number;
  csrfToken: string;
  refreshToken?: string;
}

interface How {
  bearer?: boolean;
  tries?: number;
  whole?: boolean;
  ms?: number;
  signal?: AbortSignal | null | undefined;
}

/** The browser's side of a Gatepost service. */
export function createAuth(options: Options): Auth {
  const { mode = "cookie", timeout = 10_000, retries = 2, storage } = options;
  const base = new URL(options.baseUrl || "/", globalThis.location?.href).href.replace(/\/+$/, "");
  const { origin } = new URL(base);
  const listed = new Set(options.origins?.map((each) => new URL(each).origin));
  const inCookies = mode === "cookie";
  const fetch: typeof globalThis.fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));

  let state = CHECKING;
  const listeners = new Set<(state: State) => void>();
  let waiting: { resolve: (state: State) => void; reject: (error: Error) => void }[] = [];

  /** Grows when another session begins or this one ends: what was asked before tells nothing about it. */
  let epoch = 0;
  let asked = 0; // times that we asked who it is
  let heard = 0; // the latest of them that was answered
  let renewed = 0; // refreshes that went well
  let csrf: string | undefined;
  let refreshToken: string | null = null; // token mode
  let access: { token: string; life: Life } | undefined;
  let cookie: Life | undefined; // of the access cookie, as far as it is known
  let sessionId: string | undefined;

  let refreshing: Promise<void> | undefined;
  let learning: Promise<void> | undefined;
  let looking: Promise<unknown> | undefined;
  /** The sign-in or sign-out under way. Its cookies must not be overtaken by those of a refresh. */
  let changing: Promise<unknown> | undefined;
  let cut = new AbortController();
  let started = false;
  let wasTold = false;
  let loaded: Promise<unknown> = Promise.resolve(); // storage, one step after another
  let nap = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  const closing = new AbortController();

  // Without cookies each tab has a session of its own.
  const others = tabs(inCookies && (options.channel ?? `gatepost ${base}`), hear);

  // --- What is known -------------------------------------------------------------------------------------------------

  function become(status: State["status"], user: User | null, reason: EndReason, problem: State["problem"] = null) {
    const next = { status, user, reason, problem };
    if (problem === state.problem && JSON.stringify(next) === JSON.stringify(state)) return;
    state = Object.freeze(next);
    for (const listener of [...listeners]) {
      try {
        listener(state);
      } catch (error) {
        setTimeout(() => {
          throw error;
        });
      }
    }
    if (status === "checking") return;
    for (const one of waiting.splice(0)) one.resolve(state);
  }

  /** The service has said who it is. */
  function know(user: User, type: "in" | "here") {
    // Who was told by another tab has nothing to add, or many tabs would make one another look again and again.
    if (type === "in" || (state.user?.id !== user.id && !wasTold)) others.tell({ type, user: user.id });
    wasTold = false;
    become("authenticated", user, "none");
    arm();
    if (inCookies && !cookie) void learnLife();
  }

  /** Everything of the session but the tokens it just brought. */
  function forget() {
    epoch += 1;
    csrf = access = cookie = sessionId = undefined;
    refreshToken = null;
    failures = 0;
    clearTimeout(timer);
  }

  function end(reason: EndReason, told = false) {
    const { status, user } = state;
    forget();
    keep();
    if (status === "unauthenticated") return;
    become("unauthenticated", null, reason);
    if (user && !told) others.tell({ type: "out", user: user.id, reason });
  }

  function take(tokens: Tokens, elapsed: () => number) {
    const life = new Life(elapsed, tokens.expiresIn * 1000);
    access = { token: tokens.accessToken, life };
    csrf = tokens.csrfToken;
    sessionId = claims(tokens.accessToken).sid;
    failures = 0;
    if (inCookies) cookie = life;
    else if (tokens.refreshToken) {
      refreshToken = tokens.refreshToken;
      keep();
    }
  }

  function keep() {
    const token = refreshToken;
    if (storage && !inCookies) {
      loaded = loaded.then(() => (token ? storage.set(token) : storage.remove())).catch(() => {});
    }
  }

  function hear(message: Message) {
    const same = state.user?.id === message.user;
    if (message.type === "out") {
      // Of another user: this tab knows better already.
      if (message.user && state.user && !same) return;
      cut.abort(new Overtaken());
      end(message.reason, true);
    } else if (message.type !== "fresh") {
      if (message.type === "here" && (same || state.status === "checking")) return;
      cut.abort(new Overtaken());
      if (same) {
        csrf = access = sessionId = undefined; // the same person, in a new session
        return;
      }
      wasTold = true;
      begin();
    } else if (same) {
      cookie = new Life(watch(), message.until - Date.now());
      arm();
    }
  }

  // --- Asking --------------------------------------------------------------------------------------------------------

  /** One call and, where it may be repeated, as many more as `tries` allows while it fails for now. */
  async function send(input: () => RequestInfo, init: () => RequestInit, how: How): Promise<Response> {
    const { tries = 0, whole = true, ms = timeout, signal } = how;
    for (let n = 0; ; n += 1) {
      let wait: number;
      try {
        const work = async (stop: AbortSignal) => {
          const response = await fetch(input(), { ...init(), signal: stop });
          return whole ? buffered(response) : response;
        };
        const response = await attempt(work, ms, closing.signal, signal);
        const told = retryAfter(response) ?? 0;
        if (n >= tries || !FOR_NOW.has(response.status) || told > LONGEST_WAIT) return response;
        drop(response);
        wait = Math.max(told, backoff(n));
      } catch (error) {
        if (n >= tries || !(error instanceof NetworkError) || error instanceof Overtaken || closing.signal.aborted) throw error;
        wait = backoff(n);
      }
      await pause(wait, closing.signal, signal);
    }
  }

  /** A call to the service that no refresh stands behind. Throws `Problem` for anything but success. */
  async function ask<T>(method: string, path: string, body?: unknown, how: How = {}): Promise<[T, Response]> {
    const init = () => {
      const headers: Record<string, string> = { Accept: "application/json" };
      if (body !== undefined) headers["Content-Type"] = "application/json";
      if (inCookies && !SAFE.has(method)) Object.assign(headers, csrfHeader());
      if (!inCookies && body) headers["X-Auth-Mode"] = "token";
      if (how.bearer && !inCookies && access) headers.Authorization = `Bearer ${access.token}`;
      return { ...secured(headers), method, headers, body: body === undefined ? null : JSON.stringify(body) };
    };
    const response = await send(() => base + path, init, how);
    if (!response.ok) throw await Problem.of(response);
    return [await json<T>(response), response];
  }

  const needsCsrf = () => inCookies && state.status === "authenticated" && !csrfHeader()["X-CSRF-Token"];

  /** The same, once more with a new CSRF token if it did not fit. */
  async function askConfirmed<T>(path: string, body: unknown, how: How): Promise<T> {
    if (needsCsrf()) await learnCsrf(how.signal);
    try {
      return (await ask<T>("POST", path, body, how))[0];
    } catch (error) {
      if (!inCookies || !(error instanceof Problem) || error.code !== "CSRF_FAILED") throw error;
      await learnCsrf(how.signal);
      return (await ask<T>("POST", path, body, how))[0];
    }
  }

  const secured = (headers: object): RequestInit => ({
    credentials: inCookies ? "include" : "omit",
    redirect: "X-CSRF-Token" in headers || "Authorization" in headers ? "error" : "follow",
  });

  const csrfHeader = (): Record<string, string> => {
    const token = csrf ?? readableCsrf();
    return token ? { "X-CSRF-Token": token } : {};
  };

  /** Ask for the CSRF token of this browser's session. */
  function learnCsrf(signal?: AbortSignal | null): Promise<void> {
    const mine = epoch;
    learning ??= ask<{ csrfToken: string }>("GET", "/api/auth/csrf-token", undefined, { tries: retries })
      .then(([answer]) => {
        if (mine === epoch) csrf = answer.csrfToken;
      })
      .finally(() => (learning = undefined));
    return shared(learning, signal);
  }

  // --- Refreshing ----------------------------------------------------------------------------------------------------

  const canRefresh = () => state.status !== "unauthenticated" && (inCookies || refreshToken !== null);

  /** One refresh, however many wait for it. Throws `Problem`, `NetworkError` or `Overtaken`. */
  function refresh(): Promise<void> {
    return (refreshing ??= renew().finally(() => (refreshing = undefined)));
  }

  async function renew(): Promise<void> {
    const mine = epoch;
    for (;;) {
      while (changing) await changing;
      if (mine !== epoch) throw new Overtaken();
      cut = new AbortController();
      try {
        return await exchange(mine, cut.signal);
      } catch (error) {
        // Cut off for a sign-in that then failed: there is still a session to refresh.
        if (!(error instanceof Overtaken) || mine !== epoch) throw error;
      }
    }
  }

  async function exchange(mine: number, signal: AbortSignal): Promise<void> {
    const elapsed = watch();
    try {
      const body = inCookies ? undefined : { refreshToken };
      const tokens = await askConfirmed<Tokens>("/api/auth/refresh", body, { tries: retries, signal });
      if (mine !== epoch) throw new Overtaken();
      if (typeof tokens?.accessToken !== "string" || !(tokens.expiresIn > 0)) throw new NetworkError("Not our service");
      take(tokens, elapsed);
      renewed += 1;
    } catch (error) {
      if (mine !== epoch) throw new Overtaken();
      if (error instanceof Problem && ENDED.has(error.code)) end(why(error));
      throw error;
    }
    const { user } = state;
    const { sub } = claims(access!.token);
    if (user && sub && sub !== user.id) return begin(true); // somebody else has signed in with this browser
    if (user && cookie) others.tell({ type: "fresh", user: user.id, until: Date.now() + cookie.left() });
    arm();
  }

  function why({ code, members }: Problem): EndReason {
    if (code === "REFRESH_TOKEN_REUSED") return "reused";
    if (code === "ACCOUNT_DISABLED") return "disabled";
    if (code === "NO_REFRESH_TOKEN" && !state.user) return "none";
    return code === "SESSION_ENDED" && members.reason ? (WHY[String(members.reason)] ?? "ended") : "expired";
  }

  /** Set the one timer for the next refresh. */
  function arm(wait = (inCookies ? cookie : access?.life)?.untilDue()) {
    clearTimeout(timer);
    if (wait === undefined || state.status !== "authenticated" || closing.signal.aborted) return;
    timer = setTimeout(tick, Math.min(Math.max(wait, 0), LONGEST_TIMER));
  }

  function tick() {
    const life = inCookies ? cookie : access?.life;
    // A page that nobody sees lets its session rest; it looks again when it is shown.
    if (!life || state.status !== "authenticated" || globalThis.document?.visibilityState === "hidden") return;
    if (life.untilDue() > 0) return arm();
    refresh().catch((error) => {
      const told = error instanceof Problem ? (error.retryAfter ?? 0) * 1000 : 0;
      arm(Math.max(backoff(failures++), Math.min(told, 300_000)));
    });
  }

  /** The laptop was opened, the network is back, the tab is shown: timers may have slept. */
  function wake() {
    nap.abort(new Overtaken());
    tick();
  }

  /** After a reload the cookie's age is not known: `verify` says when it ends, its `Date` what the time is there. */
  async function learnLife(): Promise<void> {
    const mine = epoch;
    const elapsed = watch();
    try {
      const [answer, response] = await ask<{ sid: string; expiresAt: string }>("GET", "/api/auth/verify");
      const left = Date.parse(answer.expiresAt) - Date.parse(response.headers.get("Date") ?? "");
      if (mine !== epoch || cookie) return;
      sessionId = answer.sid;
      if (left > 0) cookie = new Life(elapsed, left);
      arm();
    } catch {
      // Then the first call that meets a spent token refreshes.
    }
  }

  // --- Who it is -----------------------------------------------------------------------------------------------------

  async function user(): Promise<User | null> {
    if (!inCookies) {
      start();
      await loaded;
      if (!refreshToken) return null;
    }
    const mine = epoch;
    const number = ++asked;
    const response = await authorised(`${base}/api/auth/me`, {}, { look: true });
    if (!response.ok) {
      const problem = await Problem.of(response);
      if (problem.status === 401 && state.status === "unauthenticated") return null;
      throw problem;
    }
    const found = (await json<{ user: User }>(response))?.user;
    if (typeof found?.id !== "string") throw new NetworkError("Not our service");
    if (mine === epoch && number > heard) {
      heard = number;
      if (state.user && state.user.id !== found.id) forget();
      know(found, "here");
    }
    return state.user;
  }

  function lookAgain() {
    looking ??= user()
      .catch(() => {}) // then it stays as it was known
      .finally(() => (looking = undefined));
  }

  /** Find out who it is, from the beginning. */
  function begin(kept = false) {
    if (!kept) forget();
    else epoch += 1;
    cut.abort(new Overtaken());
    become("checking", null, "none");
    void check();
  }

  async function check(): Promise<void> {
    const mine = epoch;
    const current = () => mine === epoch && state.status === "checking" && !closing.signal.aborted;
    for (let n = 0; current(); n += 1) {
      let wait = backoff(n);
      try {
        await user();
      } catch (error) {
        if (!current()) return;
        if (error instanceof Problem) wait = Math.max(wait, Math.min((error.retryAfter ?? 0) * 1000, 300_000));
        if (error instanceof Problem || error instanceof NetworkError) become("checking", null, "none", error);
      }
      nap = new AbortController();
      if (current()) await pause(wait, closing.signal, nap.signal).catch(() => {});
    }
  }

  function start() {
    if (started) return;
    started = true;
    globalThis.addEventListener?.("online", wake);
    globalThis.addEventListener?.("pageshow", wake);
    globalThis.document?.addEventListener("visibilitychange", wake);
    if (state.status !== "checking") return;
    if (inCookies) return void check();
    const mine = epoch;
    loaded = loaded
      .then(() => storage?.get())
      .catch(() => null)
      .then((token) => {
        if (mine !== epoch) return;
        refreshToken = token ?? null;
        if (token) void check();
        else end("none");
      });
  }

  // --- Signing in and out --------------------------------------------------------------------------------------------

  /** Do what changes the session, one after another, and with no refresh under way. */
  function change<T>(work: () => Promise<T>): Promise<T> {
    const before = changing;
    cut.abort(new Overtaken());
    const doing = (async () => {
      await before;
      return work();
    })();
    const done: Promise<unknown> = doing.then(
      () => changing === done && (changing = undefined),
      () => changing === done && (changing = undefined),
    );
    changing = done;
    return doing;
  }

  const enter = (path: string, body: object): Promise<User | null> =>
    change(async () => {
      const elapsed = watch();
      const [answer, response] = await ask<Tokens & { user: User }>("POST", path, body);
      if (response.status === 202) return null;
      if (typeof answer?.user?.id !== "string") throw new NetworkError("Not our service");
      forget();
      heard = ++asked;
      take(answer, elapsed);
      know(answer.user, "in");
      return answer.user;
    });

  const leave = (path: string) =>
    change(async () => {
      const mine = epoch;
      const all = path.endsWith("-all");
      const body = inCookies || all || !refreshToken ? undefined : { refreshToken };
      await askConfirmed(path, body, { tries: retries, bearer: true });
      if (mine === epoch) end("signed-out");
    });

  async function logoutEverywhere(): Promise<void> {
    try {
      await leave("/api/auth/logout-all");
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 401 || !canRefresh()) throw error;
      await refresh();
      await leave("/api/auth/logout-all");
    }
  }

  async function signInWith(name: string, { redirectTo }: { redirectTo?: string } = {}): Promise<void> {
    if (!inCookies) throw new TypeError("signInWith needs cookie mode: a person who comes back brings cookies, not tokens");
    const { providers } = (await ask<{ providers: Provider[] }>("GET", "/api/auth/providers", undefined, { tries: retries }))[0];
    const provider = providers.find((each) => each.name === name);
    if (!provider) throw new Problem(404, { code: "PROVIDER_NOT_CONFIGURED", title: "There is no such provider here" });
    const url = new URL(provider.startUrl);
    if (!/^https?:$/.test(url.protocol)) throw new NetworkError("Not our service");
    const back = new URL(redirectTo ?? location.href, location.href);
    if (!redirectTo) back.searchParams.delete("error"); // of the last try
    url.searchParams.set("redirectTo", back.href);
    location.assign(url.href);
  }

  // --- Calls ---------------------------------------------------------------------------------------------------------

  /** A call with our credentials, and at most one refresh and one repetition of it. */
  async function authorised(
    input: RequestInfo | URL,
    init: RequestInit = {},
    { whole = true, look = false }: { whole?: boolean; look?: boolean } = {},
  ): Promise<Response> {
    const given = typeof input === "object" && "url" in input ? input : undefined;
    const url = given?.url ?? absolute(String(input));
    const at = new URL(url).origin;
    const ours = at === origin;
    const headers = new Headers(init.headers ?? given?.headers);
    // Elsewhere, or with a credential of the caller's own: nothing of ours goes along.
    if ((!ours && !listed.has(at)) || headers.has("Authorization") || headers.has("X-API-Key")) {
      return fetch(given ?? url, init);
    }

    const method = (init.method ?? given?.method ?? "GET").toUpperCase();
    const safe = SAFE.has(method);
    const signal = init.signal ?? given?.signal;
    const bearer = !inCookies || !ours;
    const { body } = init;
    const plain = body == null || typeof body === "string" || body instanceof URLSearchParams;
    const once = !plain && !(body instanceof Blob || body instanceof FormData || body instanceof ArrayBuffer || ArrayBuffer.isView(body));
    const how: How = { tries: safe ? retries : 0, whole, signal };
    if (!plain || (given && !safe)) how.ms = 0;

    const go = () =>
      send(
        () => (given ? given.clone() : url),
        () => {
          const sent = new Headers(headers);
          if (bearer && access) sent.set("Authorization", `Bearer ${access.token}`);
          if (!bearer && !safe) for (const [name, value] of Object.entries(csrfHeader())) sent.set(name, value);
          const secret = sent.has("Authorization") || sent.has("X-CSRF-Token");
          return {
            ...init,
            method,
            headers: sent,
            credentials: bearer ? "omit" : "include",
            // Browsers take a header of ours along to wherever they are redirected.
            ...(secret && !init.redirect && { redirect: "error" as const }),
          };
        },
        how,
      );

    const who = state.user?.id;
    try {
      if (!inCookies) {
        start();
        await shared(loaded, signal);
      }
      const life = bearer ? access?.life : cookie;
      if (canRefresh() && (life ? !life.good : bearer)) await shared(refresh(), signal).catch(forgive(life));
      if (!bearer && !safe && needsCsrf()) await learnCsrf(signal);
    } catch (error) {
      if (error instanceof Problem) return error.toResponse();
      if (!(error instanceof Overtaken)) throw error;
    }

    const before = renewed;
    const first = await go();
    const code = await codeOf(first);
    if (code === undefined) return first;
    try {
      if (first.status === 401 && REFRESH_AND_REPEAT.has(code)) {
        if (!canRefresh() && !(look && inCookies)) return first;
        if (renewed === before) await shared(refresh(), signal);
        if (code === "TOKEN_STALE" && !look) lookAgain(); // other rights, perhaps
      } else if (code === "CSRF_FAILED" && !bearer) {
        await learnCsrf(signal);
        await shared(user(), signal); // another session, so perhaps another person
      } else {
        if (code === "ACCOUNT_DISABLED" && ours) end("disabled");
        return first;
      }
    } catch (error) {
      if (error instanceof Problem) return error.toResponse();
      if (!(error instanceof Overtaken)) throw error;
    }
    // What one person asked for is not repeated as another, nor a body that is used up.
    if (once || (who && state.user?.id !== who)) return first;
    drop(first);
    return go();
  }

  /** That a refresh failed does not matter to a call that is in time without it, or that nobody is asked about. */
  const forgive = (life: Life | undefined) => (error: unknown) => {
    if (error instanceof Overtaken || (error instanceof Problem && ENDED.has(error.code))) return;
    if (!life || life.left() <= 0 || !(error instanceof Problem || error instanceof NetworkError)) throw error;
  };

  const absolute = (input: string) =>
    new URL(/^([a-z][a-z\d+.-]*:|\/\/)/i.test(input) ? input : `${base}/${input.replace(/^\//, "")}`, base).href;

  /** The code of a 401 or 403 (none: ""); `undefined` for any other answer. Leaves the body to be read. */
  async function codeOf(response: Response): Promise<string | undefined> {
    if (response.status !== 401 && response.status !== 403) return undefined;
    if (!response.headers.get("Content-Type")?.includes("json")) return "";
    const read = () => response.clone().json() as Promise<{ code?: unknown } | null>;
    const answer = await attempt(read, timeout, closing.signal).catch(() => null);
    return typeof answer?.code === "string" ? answer.code : "";
  }

  async function call<T>(method: string, path: string, body?: unknown, { signal }: { signal?: AbortSignal } = {}): Promise<T> {
    const url = absolute(path);
    if (new URL(url).origin !== origin) throw new TypeError(`${path} is not below ${base}`);
    const headers: Record<string, string> = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const init: RequestInit = { method, headers, signal: signal ?? null };
    if (body !== undefined) init.body = JSON.stringify(body);
    const response = await authorised(url, init);
    if (!response.ok) throw await Problem.of(response);
    return json<T>(response);
  }

  async function endSession(id: string): Promise<void> {
    await call("DELETE", `/api/auth/sessions/${encodeURIComponent(id)}`);
    if (id === sessionId) end("signed-out");
    else if (!sessionId) await user();
  }

  return {
    get state() {
      return state;
    },
    ready() {
      start();
      if (state.status !== "checking") return Promise.resolve(state);
      return new Promise((resolve, reject) => {
        if (closing.signal.aborted) reject(closing.signal.reason);
        else waiting.push({ resolve, reject });
      });
    },
    register: (registration) => enter("/api/auth/register", registration),
    login: async (credentials) => (await enter("/api/auth/login", credentials))!,
    logout: () => leave("/api/auth/logout"),
    logoutEverywhere,
    user,
    sessions: async () => (await call<{ items: Session[] }>("GET", "/api/auth/sessions")).items,
    endSession,
    providers: async () => (await ask<{ providers: Provider[] }>("GET", "/api/auth/providers", undefined, { tries: retries }))[0].providers,
    signInWith,
    fetch: (input, init) => authorised(input, init, { whole: false }),
    call,
    async accessToken() {
      if (!inCookies) {
        start();
        await loaded;
      }
      if (!access?.life.good) {
        if (!canRefresh()) return null;
        await refresh().catch((error) => {
          if (!(error instanceof Overtaken || (error instanceof Problem && ENDED.has(error.code)))) throw error;
        });
      }
      return access?.token ?? null;
    },
    onChange(listener) {
      listeners.add(listener);
      start();
      return () => void listeners.delete(listener);
    },
    close() {
      const reason = new NetworkError("Closed");
      closing.abort(reason);
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", wake);
      globalThis.removeEventListener?.("pageshow", wake);
      globalThis.document?.removeEventListener("visibilitychange", wake);
      others.close();
      listeners.clear();
      for (const one of waiting.splice(0)) one.reject(reason);
    },
  };
}

/** Who an access token is for. It comes from the service itself, so there is nothing to verify. */
function claims(token: string): { sub?: string; sid?: string } {
  try {
    return JSON.parse(atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return {};
  }
}

/** The CSRF cookie, which a page on the service's own host can read. */
const readableCsrf = () =>
  globalThis.document?.cookie?.match(/(?:^|; )(?:__Host-|__Secure-)?csrfToken=([^;]+)/)?.[1];

/** Leave the rest of an answer unread. */
const drop = (response: Response) => void response.body?.cancel().catch(() => {});

/** The answer with its body here, so that reading it cannot take long any more. */
async function buffered(response: Response): Promise<Response> {
  const { status, statusText, headers } = response;
  return new Response((await response.text()) || null, { status, statusText, headers });
}

async function json<T>(response: Response): Promise<T> {
  const text = await response.text();
  if (!text) return undefined as T;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new NetworkError("The answer is not JSON", { cause });
  }
}
