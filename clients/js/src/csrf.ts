import { csrfToken } from "./credentials.js";
import { Problem } from "./problem.js";
import type { How } from "./send.js";
import { ask } from "./service.js";
import type { Session } from "./session.js";
import { single } from "./single.js";
import { shared } from "./waiting.js";

/** Learn the token of this browser's session before it is needed, unless it is known. */
export async function needCsrf(session: Session, signal: How["signal"]): Promise<void> {
  if (session.inCookies && session.userId && !csrfToken(session)) await learnCsrf(session, signal);
}

/** Ask for it. */
export const learnCsrf = (session: Session, signal: How["signal"]): Promise<void> => shared(single(session, learn), signal);

async function learn(session: Session): Promise<void> {
  const { epoch } = session;
  const [{ csrfToken }] = await ask<{ csrfToken: string }>(session, "GET", "/api/auth/csrf-token");
  if (epoch === session.epoch) session.csrf = csrfToken;
}

/** POST what may be repeated after a fault, and once more with a new token if that did not fit. */
export async function confirmed<T>(session: Session, path: string, body: unknown, how: How & { bearer?: boolean }): Promise<T> {
  const post = async () => (await ask<T>(session, "POST", path, body, how))[0];
  await needCsrf(session, how.signal);
  try {
    return await post();
  } catch (error) {
    if (!session.inCookies || !(error instanceof Problem) || error.code !== "CSRF_FAILED") throw error;
    await learnCsrf(session, how.signal);
    return post();
  }
}
