import type { Session } from "./session.js";

/** Keep the refresh token in the app's own safe place, one step after another. Returns how to read it at the start. */
export function keepIn(session: Session): () => Promise<unknown> {
  const { inCookies, options } = session;
  const storage = inCookies ? undefined : options.storage;
  let steps: Promise<unknown> = Promise.resolve();
  session.keep = () => {
    const { refreshToken } = session;
    steps = steps.then(() => (refreshToken ? storage?.set(refreshToken) : storage?.remove())).catch(() => {});
  };
  const read = async () => {
    const { epoch } = session;
    const token = await storage?.get();
    if (epoch === session.epoch) session.refreshToken = token;
  };
  return () => (steps = steps.then(read).catch(() => {}));
}
