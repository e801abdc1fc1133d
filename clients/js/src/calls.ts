import { absolute, originOf } from "./addresses.js";
import { credentials, SAFE } from "./credentials.js";
import { learnCsrf, needCsrf } from "./csrf.js";
import type { Life } from "./life.js";
import { isFailure, Problem } from "./problem.js";
import { isOver, refresh } from "./refresh.js";
import { drop, send, type How } from "./send.js";
import { answer, json } from "./service.js";
import { Overtaken, type Session } from "./session.js";
import { single } from "./single.js";
import { attempt, shared } from "./waiting.js";

/** Answers to a call that a refresh may mend. A 401 that says no code is somebody else's word for the same. */
const REFRESH_AND_REPEAT = new Set(["", "NO_TOKEN", "TOKEN_EXPIRED", "TOKEN_STALE", "TOKEN_REVOKED", "INVALID_TOKEN"]);

/** A call with our credentials, and at most one refresh and one repetition of it. `look`: it asks who it is. */
export async function fetchWith(
  session: Session,
  input: RequestInfo | URL,
  init: RequestInit = {},
  { whole = false, look = false }: { whole?: boolean; look?: boolean } = {},
): Promise<Response> {
  const { inCookies, options } = session;
  const given = typeof input === "object" && "url" in input ? input : undefined;
  const url = given?.url ?? absolute(String(input), session.base);
  const origin = originOf(url);
  const ours = origin === session.origin;
  const headers = new Headers(init.headers ?? given?.headers);
  // Elsewhere, or with a credential of the caller's own: nothing of ours goes along.
  const trusted = ours || options.origins?.map(originOf).includes(origin);
  if (!trusted || headers.has("Authorization") || headers.has("X-API-Key")) {
    const { fetch = globalThis.fetch } = options;
    return fetch(given ?? url, init);
  }

  const method = (init.method ?? given?.method ?? "GET").toUpperCase();
  const safe = SAFE.has(method);
  const cookies = inCookies && ours;
  const signal = init.signal ?? given?.signal;
  const body = kind(init.body);
  const how: How = { tries: safe ? session.retries : 0, whole, signal };
  if (body !== "text" || (given && !safe)) how.ms = 0;
  // `follow` is what a request says by itself, and `error` is what we say.
  const redirect = init.redirect || (given?.redirect === "manual" && "manual");
  const go = () =>
    send(
      session,
      () => [given?.clone() ?? url, { ...init, ...credentials(session, method, headers, cookies), ...(redirect && { redirect }) }],
      how,
    );

  const { userId: who, epoch } = session;
  const kept = await settled(async () => {
    await shared(session.loaded(), signal);
    const life = cookies ? session.life : session.access?.life;
    if (session.canRefresh && (life ? !life.good() : !cookies)) await shared(refresh(session), signal).catch(forgive(life));
    if (cookies && !safe) await needCsrf(session, signal);
  });
  if (kept) return kept;

  const before = session.renewed;
  const first = await go();
  const code = await codeOf(session, first);
  if (code === undefined) return first;
  let mended = true;
  const failed = await settled(async () => {
    if (first.status === 401 && REFRESH_AND_REPEAT.has(code) && (session.canRefresh || (look && inCookies))) {
      if (session.renewed === before) await shared(refresh(session), signal);
      if (code === "TOKEN_STALE" && !look) void single(session, lookAgain); // other rights, perhaps
    } else if (code === "CSRF_FAILED" && cookies) {
      await learnCsrf(session, signal);
      await shared(session.look(), signal); // another session, so perhaps another person
    } else {
      mended = false;
      if (code === "ACCOUNT_DISABLED" && ours) session.end("disabled");
    }
  });
  if (failed) return failed;
  // What one person asked for is not repeated as another, nor a body that is used up.
  const another = who ? who !== session.userId : epoch !== session.epoch;
  if (!mended || another || body === "stream") return first;
  drop(first);
  return go();
}

/** JSON in and out, below the service's address. */
export async function call<T>(
  session: Session,
  method: string,
  path: string,
  body?: unknown,
  { signal = null, look = false }: { signal?: AbortSignal | null; look?: boolean } = {},
): Promise<T> {
  const url = absolute(path, session.base);
  if (originOf(url) !== session.origin) throw new TypeError(`${path} is not below ${session.base}`);
  return answer(await fetchWith(session, url, { ...json(body), method, signal }, { whole: true, look }));
}

/** If it cannot be learnt, it stays as it was known. */
export const lookAgain = (session: Session) => session.look().catch(() => {});

/** The answer of the service that kept this work from being done; none where it was, or where the session has changed. */
async function settled(work: () => Promise<void>): Promise<Response | undefined> {
  try {
    await work();
  } catch (error) {
    if (error instanceof Problem) return error.toResponse();
    if (!(error instanceof Overtaken)) throw error;
  }
  return undefined;
}

/** That a refresh failed does not matter to a call that is in time without it, or that nobody is asked about. */
const forgive = (life: Life | undefined) => (error: unknown) => {
  if (isOver(error)) return;
  if (!life || life.left() <= 0 || !isFailure(error)) throw error;
};

/** A stream cannot be sent twice, and only text has a time limit: an upload takes what it needs. */
function kind(body: BodyInit | null | undefined): "text" | "upload" | "stream" {
  if (body == null || typeof body === "string" || body instanceof URLSearchParams) return "text";
  const lasting = ArrayBuffer.isView(body) || [Blob, FormData, ArrayBuffer].some((each) => body instanceof each);
  return lasting ? "upload" : "stream";
}

/** The code of a 401 or 403 (none: ""); `undefined` for any other answer. Leaves the body to be read. */
async function codeOf({ timeout, closing }: Session, response: Response): Promise<string | undefined> {
  if (response.status !== 401 && response.status !== 403) return undefined;
  if (!response.headers.get("Content-Type")?.includes("json")) return "";
  const read = () => response.clone().json() as Promise<{ code?: unknown } | null>;
  const answer = await attempt(read, timeout, closing.signal).catch(() => null);
  return typeof answer?.code === "string" ? answer.code : "";
}
