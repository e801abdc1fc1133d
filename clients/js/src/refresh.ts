import { confirmed } from "./csrf.js";
import { watch } from "./life.js";
import { Problem } from "./problem.js";
import { stranger } from "./service.js";
import { claims, Overtaken, type Session, type Tokens } from "./session.js";
import { single } from "./single.js";
import type { EndReason } from "./types.js";

/** The only answers to a refresh that end a session, and what they mean to the person. */
const ENDED = new Map<string, EndReason>([
  ["NO_REFRESH_TOKEN", "expired"],
  ["INVALID_REFRESH_TOKEN", "expired"],
  ["REFRESH_TOKEN_REUSED", "reused"],
  ["SESSION_ENDED", "expired"],
  ["ACCOUNT_DISABLED", "disabled"],
]);
/** What `reason` of `SESSION_ENDED` means to the person; anything else: somebody has ended it. */
const WHY = new Map<unknown, EndReason>([
  ["expired", "expired"],
  ["logout", "signed-out"],
  ["reuse", "reused"],
  ["account_disabled", "disabled"],
]);

/** Whether a refresh failed because there is nothing to refresh any more. */
export const isOver = (error: unknown): boolean => error instanceof Overtaken || (error instanceof Problem && ENDED.has(error.code));

/** One refresh, however many wait for it. Throws `Problem`, `NetworkError` or `Overtaken`. */
export const refresh = (session: Session): Promise<void> => single(session, renew);

async function renew(session: Session): Promise<void> {
  const { epoch, inCookies, refreshToken } = session;
  const body = inCookies ? undefined : { refreshToken };
  for (;;) {
    // As long as another one was begun meanwhile.
    for (let last; last !== session.changing; ) await (last = session.changing);
    if (epoch !== session.epoch) throw new Overtaken();
    const elapsed = watch();
    const { signal } = (session.cut = new AbortController());
    try {
      const tokens = await confirmed<Tokens>(session, "/api/auth/refresh", body, { signal });
      if (epoch !== session.epoch) throw new Overtaken();
      return renewed(session, tokens, elapsed);
    } catch (error) {
      if (epoch !== session.epoch) throw new Overtaken();
      // Cut off for a sign-in that then failed: there is still a session to refresh.
      if (error instanceof Overtaken) continue;
      if (isOver(error)) session.end(why(session, error as Problem));
      throw error;
    }
  }
}

function renewed(session: Session, tokens: Tokens, elapsed: () => number): void {
  if (typeof tokens?.accessToken !== "string" || !(tokens.expiresIn > 0)) throw stranger();
  session.take(tokens, elapsed);
  session.renewed += 1;
  const { userId, life } = session;
  const { sub } = claims(tokens.accessToken);
  if (userId && sub && sub !== userId) return session.begin(false);
  if (userId && life) session.tell({ type: "fresh", user: userId, until: Date.now() + life.left() });
  session.arm();
}

function why(session: Session, { code, members }: Problem): EndReason {
  if (code === "NO_REFRESH_TOKEN" && !session.userId) return "none";
  return code === "SESSION_ENDED" && members.reason ? (WHY.get(members.reason) ?? "ended") : ENDED.get(code)!;
}
