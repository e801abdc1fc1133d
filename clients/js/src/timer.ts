import { life, watch } from "./life.js";
import { Problem } from "./problem.js";
import { refresh } from "./refresh.js";
import { ask } from "./service.js";
import type { Session } from "./session.js";
import { single } from "./single.js";
import { backoff } from "./waiting.js";

/** However short a token lives, and however long; ms. */
const SHORTEST_TIMER = 1000;
const LONGEST_TIMER = 24 * 3_600_000;
const LONGEST_WAIT = 300_000;

/** How long to leave the service in peace after failure `n`: at least as long as it said, within reason; ms. */
export const peace = (n: number, error: unknown): number =>
  Math.max(backoff(n), error instanceof Problem ? Math.min((error.retryAfter ?? 0) * 1000, LONGEST_WAIT) : 0);

/** A page that nobody sees lets its session rest; it looks again when it is shown. */
export const isHidden = () => globalThis.document?.visibilityState === "hidden";

/** Refresh in time, by one timer. */
export function keepFresh(session: Session): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;

  session.arm = () => {
    failures = 0;
    set(session.life?.untilDue());
    if (session.inCookies && session.userId && !session.life) void single(session, learnLife);
  };

  function set(wait: number | undefined) {
    clearTimeout(timer);
    if (wait === undefined || !session.userId || session.closing.signal.aborted) return;
    timer = setTimeout(tick, Math.min(Math.max(wait, SHORTEST_TIMER), LONGEST_TIMER));
  }

  function tick() {
    const { life, userId } = session;
    if (!life || !userId || isHidden()) return;
    if (life.untilDue() > 0) set(life.untilDue());
    else refresh(session).catch((error) => set(peace(failures++, error)));
  }

  session.wake = () => {
    if (isHidden()) return;
    session.nap.abort();
    tick();
  };
}

/** After a reload the cookie's age is not known: `verify` says when it ends, its `Date` what the time is there. */
async function learnLife(session: Session): Promise<void> {
  const { epoch } = session;
  const elapsed = watch();
  try {
    const [{ sid, expiresAt }, { headers }] = await ask<{ sid: string; expiresAt: string }>(session, "GET", "/api/auth/verify");
    const left = Date.parse(expiresAt) - Date.parse(headers.get("Date") ?? "");
    if (epoch !== session.epoch || session.life) return;
    session.id = sid;
    if (!(left > 0)) return;
    session.life = life(left, elapsed);
    session.arm();
  } catch {
    // Then the first call that meets a spent token refreshes.
  }
}
