import { call, fetchWith, lookAgain } from "./calls.js";
import { NetworkError } from "./problem.js";
import { providers, signInWith } from "./providers.js";
import { isOver, refresh } from "./refresh.js";
import { Session } from "./session.js";
import { single } from "./single.js";
import { enter, leave, leaveEverywhere } from "./sign-in.js";
import { keepIn } from "./storage.js";
import { joinTabs } from "./tabs.js";
import { keepFresh } from "./timer.js";
import type { Auth, Options, Session as Device } from "./types.js";
import { attempt } from "./waiting.js";
import { recognise } from "./who.js";

/** The browser's side of a Gatepost service. */
export function createAuth(options: Options): Auth {
  const session = new Session(options);
  const { inCookies, listeners } = session;
  const { signal } = session.closing;
  const load = keepIn(session);
  recognise(session);
  keepFresh(session);
  joinTabs(session);

  let started: Promise<void> | undefined;
  const start = () => (started ??= begin());
  session.loaded = async () => {
    if (!inCookies) await start();
  };

  async function begin(): Promise<void> {
    // The laptop was opened, the network is back, the tab is shown: timers may have slept.
    const wake = (event: Event) => {
      session.wake();
      // A page that comes back from the history has not heard what the other tabs told meanwhile.
      if ((event as PageTransitionEvent).persisted) void single(session, lookAgain);
    };
    for (const event of ["online", "pageshow"]) globalThis.addEventListener?.(event, wake as (event: Event) => void, { signal });
    globalThis.document?.addEventListener("visibilitychange", wake, { signal });
    if (session.state.status !== "checking") return;
    const { epoch } = session;
    if (!inCookies) await load();
    if (epoch !== session.epoch) return;
    if (session.canRefresh) session.check();
    else session.end("none");
  }

  return {
    get state() {
      return session.state;
    },
    async ready() {
      void start();
      if (session.state.status !== "checking") return session.state;
      await attempt(
        () =>
          new Promise<void>((resolve) => {
            listeners.add(function hear({ status }) {
              if (status === "checking") return;
              listeners.delete(hear);
              resolve();
            });
          }),
        0,
        signal,
      );
      return session.state;
    },
    register: (registration) => enter(session, "/api/auth/register", registration),
    login: async (given) => (await enter(session, "/api/auth/login", given))!,
    logout: () => leave(session),
    logoutEverywhere: () => leaveEverywhere(session),
    user: () => session.look(),
    sessions: async () => (await call<{ items: Device[] }>(session, "GET", "/api/auth/sessions")).items,
    async endSession(id) {
      await call(session, "DELETE", `/api/auth/sessions/${encodeURIComponent(id)}`);
      if (id === session.id) session.end("signed-out");
      else if (!session.id) await session.look();
    },
    providers: () => providers(session),
    signInWith: (name, { redirectTo } = {}) => signInWith(session, name, redirectTo),
    fetch: (input, init) => fetchWith(session, input, init),
    call: (method, path, body, how) => call(session, method, path, body, how),
    async accessToken() {
      await session.loaded();
      if (!session.access?.life.good()) {
        if (!session.canRefresh) return null;
        await refresh(session).catch((error) => {
          if (!isOver(error)) throw error;
        });
      }
      return session.access?.token ?? null;
    },
    onChange(listener) {
      listeners.add(listener);
      void start();
      return () => void listeners.delete(listener);
    },
    close() {
      session.closing.abort(new NetworkError("Closed"));
      listeners.clear();
      session.arm();
    },
  };
}
