import type { Session } from "./session.js";

/** The same work for all who ask for it while it is being done: all of them get its result, or its error. */
export function single<T>(session: Session, work: (session: Session) => Promise<T>): Promise<T> {
  const { doing } = session;
  if (!doing.has(work)) doing.set(work, work(session).finally(() => doing.delete(work)));
  return doing.get(work)!;
}
