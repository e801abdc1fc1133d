import type { NetworkError, Problem } from "./problem.js";

/**
 * How a sign-in is kept. `cookie`: in HttpOnly cookies, with a CSRF header. `token`: no cookie at all, the refresh
 * token in memory (or in `storage`).
 */
export type Mode = "cookie" | "token";

export interface Options {
  /** Where the service is: `""` is the page's own origin, else for example `"https://auth.example.com"`. */
  baseUrl: string;
  /** Default `"cookie"`. */
  mode?: Mode;
  /** Further origins that take our access tokens; `auth.fetch` sends them the bearer token, never a cookie. */
  origins?: readonly string[];
  /** Default: the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  /** Milliseconds that an attempt may take, default 10,000. Uploads are not timed. */
  timeout?: number;
  /** Further attempts of a call that may be repeated after 429, 502, 503, 504 or a network fault; default 2. */
  retries?: number;
  /** The name of the `BroadcastChannel` to other tabs; derived from `baseUrl` by default, `false` tells nobody. */
  channel?: string | false;
  /** Token mode only: where to keep the refresh token between starts. Default: nowhere. */
  storage?: Storage;
}

/** A safe place for a refresh token, like the key chain of a phone. Not `localStorage`: every script can read that. */
export interface Storage {
  get(): Promise<string | null> | string | null;
  set(refreshToken: string): Promise<void> | void;
  remove(): Promise<void> | void;
}

export type Status = State["status"];

/** Why nobody is signed in; `none`: nobody was. */
export type EndReason = "none" | "signed-out" | "expired" | "reused" | "ended" | "disabled";

/** What is known of who is here. There is a user exactly where somebody is authenticated. */
export type State = {
  readonly reason: EndReason;
  /** What keeps `checking` from ending. It is tried again until it is known. */
  readonly problem: Problem | NetworkError | null;
} & (
  | { readonly status: "authenticated"; readonly user: User }
  | { readonly status: "checking" | "unauthenticated"; readonly user: null }
);

export interface Identity {
  provider: string;
  email: string | null;
  linkedAt: string | null;
}

export interface User {
  id: string;
  email: string;
  emailVerified: boolean;
  firstName: string | null;
  lastName: string | null;
  name: string | null;
  picture: string | null;
  roles: string[];
  permissions: string[];
  provider: string | null;
  identities: Identity[];
  active: boolean;
  createdAt: string;
  updatedAt: string;
  lastLoginAt: string | null;
}

export interface Session {
  id: string;
  current: boolean;
  device: string | null;
  ip: string | null;
  userAgent: string | null;
  createdAt: string;
  lastUsedAt: string;
  expiresAt: string;
}

export interface Provider {
  name: string;
  displayName: string;
  startUrl: string;
}

export interface Registration {
  email: string;
  password: string;
  firstName?: string;
  lastName?: string;
  name?: string;
}

export interface Credentials {
  email: string;
  password: string;
}

export interface Auth {
  readonly state: State;
  /** Resolves once it is known whether somebody is signed in. During an outage it waits, and `state.problem` says so. */
  ready(): Promise<State>;
  /** Make an account. `null`: a mail is on its way, and nobody is signed in yet. */
  register(registration: Registration): Promise<User | null>;
  login(credentials: Credentials): Promise<User>;
  /** Sign out. Rejects where the service could not do it: the person is still signed in, and can try again. */
  logout(): Promise<void>;
  /** The same on every device. */
  logoutEverywhere(): Promise<void>;
  /** Ask the service again who is signed in. */
  user(): Promise<User | null>;
  sessions(): Promise<Session[]>;
  endSession(id: string): Promise<void>;
  providers(): Promise<Provider[]>;
  /** Leave for a provider; the person comes back to `redirectTo`, by default to this page. Cookie mode only. */
  signInWith(provider: string, options?: { redirectTo?: string }): Promise<void>;
  /**
   * `fetch` with credentials, CSRF header and refresh done for you, for the service's origin and `origins`. A relative
   * address is below `baseUrl`. Throws `NetworkError` where no answer came, and nothing for an HTTP status.
   */
  fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response>;
  /** JSON in and out, below `baseUrl`. Throws `Problem` or `NetworkError`. */
  call<T = unknown>(method: string, path: string, body?: unknown, options?: { signal?: AbortSignal }): Promise<T>;
  /** A live access token for another service, refreshed if needed; `null` where nobody is signed in. */
  accessToken(): Promise<string | null>;
  /** Hear of every change of `state`. Returns how to stop. */
  onChange(listener: (state: State) => void): () => void;
  /** Stop timers, listeners and whatever is being tried. */
  close(): void;
}
