import { confirmed } from "./csrf.js";
import { watch } from "./life.js";
import { Problem } from "./problem.js";
import { refresh } from "./refresh.js";
import { ask, stranger } from "./service.js";
import type { Session, Tokens } from "./session.js";
import type { User } from "./types.js";

export const enter = (session: Session, path: string, body: object): Promise<User | null> =>
  change(session, async () => {
    const elapsed = watch();
    const [answer, { status }] = await ask<Tokens & { user: User }>(session, "POST", path, body, { tries: 0 });
    if (status === 202) return null;
    if (typeof answer?.user?.id !== "string") throw stranger();
    session.forget();
    session.take(answer, elapsed);
    session.know(answer.user, "in");
    return answer.user;
  });

export const leave = (session: Session, path = "/api/auth/logout"): Promise<void> =>
  change(session, async () => {
    const { epoch, refreshToken } = session;
    const body = refreshToken && path.endsWith("logout") ? { refreshToken } : undefined;
    await confirmed(session, path, body, { bearer: true });
    if (epoch === session.epoch) session.end("signed-out");
  });

export async function leaveEverywhere(session: Session): Promise<void> {
  const path = "/api/auth/logout-all";
  try {
    await leave(session, path);
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401 || !session.canRefresh) throw error;
    await refresh(session);
    await leave(session, path);
  }
}

/** Do what changes the session, one after another, and with no refresh under way. */
function change<T>(session: Session, work: () => Promise<T>): Promise<T> {
  const before = session.changing;
  session.interrupt();
  const doing = (async () => {
    await before;
    return work();
  })();
  session.changing = doing.catch(() => {});
  return doing;
}
