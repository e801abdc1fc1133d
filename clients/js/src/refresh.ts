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
  const { epoch } = session;
  for (;;) {
    while (session.changing) await session.changing;
    if (epoch !== session.epoch) throw new Overtaken();
    try {
      return await exchange(session);
    } catch (error) {
      if (epoch !== session.epoch) throw new Overtaken();
      // Cut off for a sign-in that then failed: there is still a session to refresh.
      if (error instanceof Overtaken) continue;
      if (isOver(error)) session.end(why(session, error as Problem));
      throw error;
    }
  }
}

async function exchange(session: Session): Promise<void> {
  const { inCookies, refreshToken, epoch } = session;
  const elapsed = watch();
  const { signal } = (session.cut = new AbortController());
  const tokens = await confirmed<Tokens>(session, "/api/auth/refresh", inCookies ? undefined : { refreshToken }, { signal });
  if (epoch !== session.epoch) throw new Overtaken();
  if (typeof tokens?.accessToken !== "string" || !(tokens.expiresIn > 0)) throw stranger();
  session.take(tokens, elapsed);
  session.renewed += 1;
  const { user } = session.state;
  const { cookie } = session;
  const { sub } = claims(tokens.accessToken);
  if (user && sub && sub !== user.id) return session.begin(false);
  if (user && cookie) session.tell({ type: "fresh", user: user.id, until: Date.now() + cookie.left() });
  session.arm();
}

function why(session: Session, { code, members }: Problem): EndReason {
  if (code === "NO_REFRESH_TOKEN" && !session.state.user) return "none";
  return code === "SESSION_ENDED" && members.reason ? (WHY.get(members.reason) ?? "ended") : ENDED.get(code)!;
}
