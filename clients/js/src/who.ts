import { call } from "./calls.js";
import { traceless } from "./credentials.js";
import { isFailure, Problem } from "./problem.js";
import { refresh } from "./refresh.js";
import { stranger } from "./service.js";
import type { Session } from "./session.js";
import { peace } from "./timer.js";
import type { User } from "./types.js";
import { pause } from "./waiting.js";

/** Learn from the service who is signed in. */
export function recognise(session: Session): void {
  let asked = 0; // times that we asked
  let heard = 0; // the latest of them that was answered

  session.look = async () => {
    await session.loaded();
    if (!session.inCookies && !session.refreshToken) return null;
    const { epoch } = session;
    const number = ++asked;
    try {
      if (session.inCookies && !session.userId && traceless(session)) await refresh(session);
      const user = (await call<{ user: User }>(session, "GET", "/api/auth/me", undefined, { look: true }))?.user;
      if (typeof user?.id !== "string") throw stranger();
      if (epoch === session.epoch && number > heard) {
        heard = number;
        if (session.userId && session.userId !== user.id) session.forget();
        session.know(user, "here");
      }
      return session.state.user;
    } catch (error) {
      if (error instanceof Problem && error.status === 401 && session.state.status === "unauthenticated") return null;
      throw error;
    }
  };

  /** Ask until it is known, later each time. */
  session.check = async () => {
    const { epoch } = session;
    const { signal } = session.closing;
    const current = () => epoch === session.epoch && session.state.status === "checking" && !signal.aborted;
    for (let n = 0; current(); n += 1) {
      let wait = 0;
      try {
        await session.look();
      } catch (error) {
        if (!current()) return;
        wait = peace(n, error);
        if (isFailure(error)) session.become("checking", null, "none", error);
      }
      session.nap = new AbortController();
      if (current()) await pause(wait, signal, session.nap.signal).catch(() => {});
    }
  };
}
