/**
 * A small service on a port of this machine that speaks Gatepost's contract, and fails as told: it loses replies, gives
 * them late and out of order, never answers, is overloaded. And browsers: cookie jars shared by tabs.
 */
import { createHmac, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, vi } from "vitest";
import { createAuth } from "../src/index.js";
import type { Auth, EndReason, Options, State, User } from "../src/index.js";

export const PASSWORD = "a long and private sentence";
const sleep = globalThis.setTimeout;

export interface Plan {
  /** Answer this instead, without doing anything. */
  instead?: { status: number; headers?: Record<string, string>; body?: unknown; text?: string };
  /** Do it, and cut the connection. */
  lost?: boolean;
  /** Do it, and answer when this resolves. */
  until?: Promise<unknown>;
}

export const lost: Plan = { lost: true };
export const silent: Plan = { until: new Promise(() => {}) };
export const answers = (status: number, code?: string, headers: Record<string, string> = {}): Plan => ({
  instead: { status, headers, body: code === undefined ? undefined : { code, title: code, status } },
});

/** An answer that is given when the test says so. */
export function held(): Plan & { release: () => void } {
  let release = () => {};
  const until = new Promise<void>((resolve) => (release = resolve));
  return { until, release };
}

interface ServiceSession {
  id: string;
  user: User;
  generation: number;
  ended?: string;
}

export class Service {
  /** Every request, like `GET /api/auth/me`, in the order they came. */
  log: string[] = [];
  requests: { line: string; headers: IncomingMessage["headers"]; body: string }[] = [];
  /** How far the server's clock is ahead of the client's, ms. */
  ahead = 0;
  expiresIn = 900;
  exposesDate = true;
  private plans = new Map<string, Plan[]>();
  private users = new Map<string, User>();
  private sessions = new Map<string, ServiceSession>();
  private revoked = new Set<string>();
  private issued = new Set<string>();
  private server: Server;

  constructor() {
    this.server = createServer((request, response) => void this.answer(request, response));
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    const stopped = new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections();
    await stopped;
  }

  /** What happens to the next requests of a line, one after another. */
  plan(line: string, ...plans: Plan[]): void {
    this.plans.set(line, [...(this.plans.get(line) ?? []), ...plans]);
  }

  count(line: string): number {
    return this.log.filter((each) => each === line).length;
  }

  private get now(): number {
    return Date.now() + this.ahead;
  }

  /** Every access token so far is answered with 401 from now on. */
  revokeAccess(): void {
    for (const token of this.issued) this.revoked.add(token);
  }

  endSessions(reason: string): void {
    for (const session of this.sessions.values()) session.ended ??= reason;
    this.revokeAccess();
  }

  user(email: string, changes: Partial<User> = {}): User {
    const known = this.users.get(email) ?? {
      id: `user-${this.users.size + 1}`,
      email,
      emailVerified: true,
      firstName: null,
      lastName: null,
      name: null,
      picture: null,
      roles: ["user"],
      permissions: ["profile:read"],
      provider: "local",
      identities: [],
      active: true,
      createdAt: "2026-01-01T00:00:00.000Z",
      updatedAt: "2026-01-01T00:00:00.000Z",
      lastLoginAt: null,
    };
    const user = { ...known, ...changes };
    this.users.set(email, user);
    for (const session of this.sessions.values()) if (session.user.id === user.id) session.user = user;
    return user;
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return; // the client has gone
    }
    const path = new URL(request.url!, this.url).pathname;
    const line = `${request.method} ${path}`;
    this.log.push(line);
    this.requests.push({ line, headers: request.headers, body: Buffer.concat(chunks).toString() });
    const plan = this.plans.get(line)?.shift() ?? {};
    const { status, headers = {}, body, text, cookies = [] }: Answer = plan.instead
      ? plan.instead
      : this.act(line, request, Buffer.concat(chunks).toString());
    if (plan.lost) return void request.socket.destroy();
    if (plan.until) {
      withheld += 1;
      const gone = new Promise((resolve) => response.once("close", resolve));
      await Promise.race([plan.until, gone]);
      withheld -= 1;
    }
    response.writeHead(status, {
      Connection: "close",
      "Content-Type": status >= 400 ? "application/problem+json" : "application/json",
      ...(this.exposesDate && { Date: new Date(this.now).toUTCString() }),
      ...(cookies.length && { "Set-Cookie": cookies }),
      ...headers,
    });
    response.end(text ?? (body === undefined ? undefined : JSON.stringify(body)));
  }

  private act(line: string, request: IncomingMessage, text: string): Answer {
    const [method, path] = line.split(" ") as [string, string];
    const cookie = Object.fromEntries((request.headers.cookie ?? "").split("; ").map((each) => each.split("=")));
    const sent = text && request.headers["content-type"]?.includes("json") ? JSON.parse(text) : {};
    const bearer = request.headers.authorization?.replace("Bearer ", "");
    const confirmed = (session: ServiceSession) => request.headers["x-csrf-token"] === csrfOf(session);
    const tokens = request.headers["x-auth-mode"] === "token";

    if (path === "/api/auth/login" || path === "/api/auth/register") {
      if (sent.password !== PASSWORD) return problem(401, "INVALID_CREDENTIALS");
      const session = { id: randomUUID(), user: this.user(sent.email), generation: 0 };
      const before = this.sessions.get(cookie.refreshToken?.split(".")[0] ?? "");
      if (before) before.ended = "signed_in_again";
      this.sessions.set(session.id, session);
      return this.signedIn(session, !tokens, { user: session.user }, path.endsWith("login") ? 200 : 201);
    }
    if (path === "/api/auth/refresh") {
      const token: string | undefined = sent.refreshToken ?? cookie.refreshToken;
      if (!token) return problem(401, "NO_REFRESH_TOKEN");
      const [id, generation] = token.split(".") as [string, string];
      const session = this.sessions.get(id);
      if (!session) return { ...problem(401, "INVALID_REFRESH_TOKEN"), cookies: GONE };
      if (!sent.refreshToken && !confirmed(session)) return problem(403, "CSRF_FAILED");
      if (session.ended) return { ...problem(401, "SESSION_ENDED", { reason: session.ended }), cookies: GONE };
      if (Number(generation) === session.generation) session.generation += 1;
      return this.signedIn(session, !sent.refreshToken);
    }
    if (path === "/api/auth/csrf-token") {
      const session = this.sessions.get(cookie.refreshToken?.split(".")[0] ?? "");
      return { status: 200, body: { csrfToken: session ? csrfOf(session) : "of-a-visit" } };
    }
    if (path === "/api/auth/logout") {
      const session = this.sessions.get((sent.refreshToken ?? cookie.refreshToken ?? "").split(".")[0]);
      if (session && !sent.refreshToken && !confirmed(session)) return problem(403, "CSRF_FAILED");
      if (session) session.ended ??= "logout";
      return { status: 204, cookies: GONE };
    }
    if (path === "/api/auth/providers") {
      return { status: 200, body: { providers: [{ name: "example", displayName: "Example", startUrl: `${this.url}/api/auth/example` }] } };
    }
    if (path === "/api/public") return { status: 200, body: { sent: text } };

    const token = bearer ?? cookie.accessToken;
    if (!token) return problem(401, "NO_TOKEN");
    const { sid, exp } = JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());
    const session = this.sessions.get(sid);
    if (!session || session.ended || this.revoked.has(token)) return problem(401, "TOKEN_REVOKED");
    if (exp * 1000 < this.now) return problem(401, "TOKEN_EXPIRED");
    if (!bearer && method !== "GET" && !confirmed(session)) return problem(403, "CSRF_FAILED");
    if (path === "/api/auth/me") return { status: 200, body: { user: session.user } };
    if (path === "/api/auth/verify") {
      return { status: 200, body: { active: true, sub: session.user.id, sid, expiresAt: new Date(exp * 1000).toISOString() } };
    }
    if (path === "/api/auth/logout-all") {
      for (const each of this.sessions.values()) if (each.user.id === session.user.id) each.ended ??= "logout_all";
      return { status: 204, cookies: GONE };
    }
    if (path.startsWith("/api/auth/sessions")) {
      if (method === "GET") return { status: 200, body: { items: [{ id: sid, current: true }], nextCursor: null } };
      const own = path.endsWith(sid);
      if (own) session.ended = "revoked";
      return { status: 204, cookies: own ? GONE : [] };
    }
    return { status: 200, body: { user: session.user.email, sent: text } };
  }

  private signedIn(session: ServiceSession, inCookies: boolean, members: object = {}, status = 200): Answer {
    const exp = Math.floor(this.now / 1000) + this.expiresIn;
    const claims = { sub: session.user.id, sid: session.id, exp, jti: randomUUID() };
    const accessToken = `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.signature`;
    this.issued.add(accessToken);
    const refreshToken = `${session.id}.${session.generation}`;
    const csrfToken = csrfOf(session);
    const body = { ...members, accessToken, tokenType: "Bearer", expiresIn: this.expiresIn, csrfToken };
    if (!inCookies) return { status, body: { ...body, refreshToken, refreshExpiresIn: 604_800 } };
    const cookies = [
      `accessToken=${accessToken}; Path=/; Max-Age=${this.expiresIn}; HttpOnly`,
      `refreshToken=${refreshToken}; Path=/api/auth; Max-Age=604800; HttpOnly`,
      `csrfToken=${csrfToken}; Path=/; Max-Age=604800`,
    ];
    return { status, body, cookies };
  }
}

interface Answer {
  status: number;
  headers?: Record<string, string>;
  body?: unknown;
  /** Instead of a body in JSON. */
  text?: string;
  cookies?: string[];
}

const GONE = ["accessToken=; Path=/; Max-Age=0", "refreshToken=; Path=/api/auth; Max-Age=0", "csrfToken=; Path=/; Max-Age=0"];
const csrfOf = (session: ServiceSession) => createHmac("sha256", "key").update(session.id).digest("hex").slice(0, 24);
const problem = (status: number, code: string, members: object = {}): Answer => ({
  status,
  body: { status, code, title: code, requestId: "request-1", ...members },
});

let flights = 0; // requests that browsers wait for
let withheld = 0; // those that the service does not answer on purpose

/** Real time for requests to be answered, so that they do not run into time limits while time goes by. */
export async function answered(): Promise<void> {
  await breathe();
  for (let n = 0; n < 1000 && flights > withheld; n += 1) await breathe();
}

/** One cookie jar; its tabs share it, and `fetch` keeps it as a browser does. */
export class Browser {
  jar = new Map<string, { value: string; path: string; until: number }>();
  /** Where credentials went. */
  origins = new Set<string>();

  fetch: typeof globalThis.fetch = async (input, init) => {
    flights += 1;
    return this.ask(input, init).finally(() => (flights -= 1));
  };

  private async ask(input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
    const request = new Request(input, init);
    const { origin, pathname } = new URL(request.url);
    const cookies = init.credentials === "include";
    if (cookies) {
      this.origins.add(origin);
      const sent = [...this.jar].filter(([, { path, until }]) => pathname.startsWith(path) && until > Date.now());
      request.headers.set("Cookie", sent.map(([name, { value }]) => `${name}=${value}`).join("; "));
    }
    const response = await globalThis.fetch(request);
    for (const line of cookies ? response.headers.getSetCookie() : []) {
      const [, name, value, path, age] = line.match(/^([^=]+)=([^;]*); Path=([^;]*); Max-Age=(-?\d+)/)!;
      if (age === "0") this.jar.delete(name!);
      else this.jar.set(name!, { value: value!, path: path!, until: Date.now() + Number(age) * 1000 });
    }
    return response;
  }
}

export interface World {
  service: Service;
  browser: Browser;
  /** A tab of the browser. */
  tab(options?: Partial<Options>): Auth;
  /** The same, with somebody signed in. */
  signedIn(options?: Partial<Options>, email?: string): Promise<Auth>;
}

/** A service and a browser for each test. */
export function world(): World {
  const it = {} as World;
  let open: Auth[] = [];
  beforeEach(async () => {
    it.service = new Service();
    it.browser = new Browser();
    await it.service.start();
    it.tab = (options = {}) => {
      const auth = createAuth({ baseUrl: it.service.url, fetch: it.browser.fetch, ...options });
      open.push(auth);
      return auth;
    };
    it.signedIn = async (options, email = "ada@example.org") => {
      const auth = it.tab(options);
      await auth.login({ email, password: PASSWORD });
      it.service.log.length = it.service.requests.length = 0;
      return auth;
    };
  });
  afterEach(async () => {
    for (const auth of open.splice(0)) auth.close();
    await it.service.stop();
    vi.useRealTimers();
  });
  return it;
}

/** From now on time stands still, but for `advance` and `drive`. */
export function stopTime(): void {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"] });
}

/** Real time for sockets to work in; no clock that the library reads goes on. */
export const breathe = (ms = 1) => new Promise((resolve) => sleep(resolve, ms));

/** Let so much time go by. */
export async function advance(ms: number): Promise<void> {
  for (let gone = 0; gone < ms; gone += 5000) {
    await vi.advanceTimersByTimeAsync(Math.min(5000, ms - gone));
    await answered();
  }
}

/** Wait for what sockets bring about. */
export async function eventually(what: () => boolean): Promise<void> {
  for (let n = 0; n < 4000; n += 1) {
    if (what()) return;
    await breathe();
  }
  throw new Error(`It did not come to ${what}`);
}

/** Let stopped time go on, by steps, until the promise is settled. */
export async function drive<T>(promise: Promise<T>, step = 250): Promise<T> {
  let settled = false;
  promise.then(
    () => (settled = true),
    () => (settled = true),
  );
  for (let n = 0; n < 2000 && !settled; n += 1) {
    await answered();
    if (!settled) await vi.advanceTimersByTimeAsync(step);
  }
  if (!settled) throw new Error("It hangs");
  return promise;
}

export const ended = (auth: Auth, reason: EndReason): boolean =>
  auth.state.status === "unauthenticated" && auth.state.reason === reason;

export const failure = async (work: Promise<unknown>): Promise<any> =>
  work.then(
    () => {
      throw new Error("It was not refused");
    },
    (error) => error,
  );

export function states(auth: Auth): State[] {
  const seen: State[] = [];
  auth.onChange((state) => seen.push(state));
  return seen;
}
