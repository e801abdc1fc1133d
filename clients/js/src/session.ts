import { baseOf, originOf } from "./addresses.js";
import { life, type Life } from "./life.js";
import { NetworkError, type Problem } from "./problem.js";
import type { Message } from "./tabs.js";
import type { EndReason, Options, State, Status, User } from "./types.js";

/** Thrown to who waits for a refresh when the session that it was for is not the current one any more. */
export class Overtaken extends NetworkError {
  constructor() {
    super("The session has changed");
  }
}

/** What a sign-in or a refresh brings; `expiresIn` in seconds. */
export interface Tokens {
  accessToken: string;
  expiresIn: number;
  csrfToken: string;
  refreshToken?: string;
}

/** What this tab knows of its session. It asks nobody: the other modules do, and say here what came of it. */
export class Session {
  readonly inCookies: boolean;
  readonly base: string;
  readonly origin: string;
  readonly timeout: number;
  readonly retries: number;

  state: State = Object.freeze({ status: "checking", user: null, reason: "none", problem: null });
  csrf: string | undefined;
  access: { token: string; life: Life } | undefined;
  /** Of the access cookie, as far as it is known; in token mode of the access token. */
  life: Life | undefined;
  /** In token mode. */
  refreshToken: string | null | undefined;
  id: string | undefined;
  /** Refreshes that went well. */
  renewed = 0;
  /** Grows when another session begins or this one ends: what was asked before tells nothing about it. */
  epoch = 0;
  /** The last sign-in or sign-out. Its cookies must not be overtaken by those of a refresh. */
  changing: Promise<unknown> | undefined;
  /** Aborted where a refresh under way is for nothing. */
  cut = new AbortController();
  /** Aborted where there is no reason any more to wait before asking again. */
  nap = new AbortController();
  readonly closing = new AbortController();
  readonly listeners = new Set<(state: State) => void>();
  /** What is being done once for all who want it, by the function that does it. */
  readonly doing = new Map<unknown, Promise<any>>();
  private wasTold = false;

  // What others do about it; `createAuth` says who.
  tell = (_: Message): void => {};
  keep!: () => void;
  arm!: () => void;
  check!: () => void;
  wake!: () => void;
  /** Ask the service who it is. */
  look!: () => Promise<User | null>;
  /** Resolves once the refresh token of an earlier start is here, if there is one. */
  loaded!: () => Promise<void>;

  constructor(readonly options: Options) {
    this.inCookies = options.mode !== "token";
    this.base = baseOf(options);
    this.origin = originOf(this.base);
    this.timeout = options.timeout ?? 10_000;
    this.retries = options.retries ?? 2;
  }

  /** Whose session it is; `undefined` while nobody is known to be signed in. */
  get userId(): string | undefined {
    return this.state.user?.id;
  }

  get canRefresh(): boolean {
    return this.state.status !== "unauthenticated" && (this.inCookies || !!this.refreshToken);
  }

  become(status: Status, user: User | null = null, reason: EndReason = "none", problem: Problem | NetworkError | null = null): void {
    const next = { status, user, reason, problem } as State;
    if (problem !== this.state.problem || JSON.stringify(next) !== JSON.stringify(this.state)) {
      const state = (this.state = Object.freeze(next));
      for (const listener of [...this.listeners]) {
        try {
          listener(state);
        } catch (error) {
          setTimeout(() => {
            throw error;
          });
        }
      }
    }
    this.arm();
  }

  /** The service has said who it is. */
  know(user: User, type: "in" | "here"): void {
    // Who was told by another tab has nothing to add, or many tabs would make one another look again and again.
    if (type === "in" || (this.userId !== user.id && !this.wasTold)) this.tell({ type, user: user.id });
    this.wasTold = false;
    this.become("authenticated", user);
  }

  take(tokens: Tokens, elapsed: () => number): void {
    this.life = life(tokens.expiresIn * 1000, elapsed);
    this.access = { token: tokens.accessToken, life: this.life };
    this.csrf = tokens.csrfToken;
    this.id = claims(tokens.accessToken).sid;
    if (tokens.refreshToken) {
      this.refreshToken = tokens.refreshToken;
      this.keep();
    }
  }

  /** Everything of the session but the tokens it just brought. */
  forget(): void {
    this.epoch += 1;
    this.csrf = this.access = this.life = this.id = this.refreshToken = undefined;
  }

  end(reason: EndReason, told = false): void {
    const { userId, state, id } = this;
    this.forget();
    this.keep();
    if (state.status === "unauthenticated") return;
    this.become("unauthenticated", null, reason);
    // A sign-out takes the cookies from all tabs; a refusal tells of the session that was refused, and of no newer one.
    const session = reason === "signed-out" ? undefined : id;
    if (userId && !told) this.tell({ type: "out", user: userId, reason, session });
  }

  /** Somebody else has signed in with this browser: find out who, from the beginning. */
  begin(told: boolean): void {
    if (told) this.forget();
    else this.epoch += 1; // its tokens are here already
    this.wasTold ||= told;
    this.interrupt();
    this.become("checking");
    this.check();
  }

  interrupt(): void {
    this.cut.abort(new Overtaken());
  }
}

/** Who an access token is for. It comes from the service itself, so there is nothing to verify. */
export function claims(token: string): { sub?: string; sid?: string } {
  try {
    return JSON.parse(atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return {};
  }
}
