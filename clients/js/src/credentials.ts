import type { Session } from "./session.js";

/** Methods that change nothing. */
export const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);

/** The CSRF token, from memory or from its cookie, which a page on the service's own host can read. */
export const csrfToken = (session: Session): string | undefined =>
  session.csrf ?? readable();

const readable = () => globalThis.document?.cookie?.match(/(?:^|; )(?:__Host-|__Secure-)?csrfToken=([^;]+)/)?.[1];

/** A call with what of ours goes along: the cookies and the CSRF token, or at most the `bearer` token. */
export function credentials(session: Session, method: string, given: HeadersInit | undefined, cookies: boolean, bearer = true) {
  const headers = new Headers(given);
  const token = cookies && !SAFE.has(method) && csrfToken(session);
  if (token) headers.set("X-CSRF-Token", token);
  if (bearer && !cookies && session.access) headers.set("Authorization", `Bearer ${session.access.token}`);
  const init: RequestInit = { method, headers, credentials: cookies ? "include" : "omit" };
  // Browsers take a header of ours along to wherever they are redirected.
  if (headers.has("Authorization") || headers.has("X-CSRF-Token")) init.redirect = "error";
  return init;
}

/**
 * Whether this page would see the CSRF cookie of a session, which lives as long as the refresh cookie, and sees none.
 * Then hardly anybody is signed in, and a refresh is the one question that settles it.
 */
export const traceless = ({ origin }: Session): boolean => host(globalThis.location?.origin) === host(origin) && !readable();

/** Cookies know scheme and host, and no ports. */
const host = (origin?: string) => origin?.replace(/:\d+$/, "");
