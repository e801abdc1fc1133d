import { credentials } from "./credentials.js";
import { NetworkError, Problem } from "./problem.js";
import { send, type How } from "./send.js";
import type { Session } from "./session.js";

/** A call to the service that no refresh stands behind, and that may be repeated. Throws `Problem` for anything but success. */
export async function ask<T>(
  session: Session,
  method: string,
  path: string,
  body?: unknown,
  how: How & { bearer?: boolean } = {},
): Promise<[T, Response]> {
  const { inCookies } = session;
  const request = (): [string, RequestInit] => {
    const { headers, ...sent } = json(body);
    if (!inCookies && body) headers["X-Auth-Mode"] = "token";
    return [session.base + path, { ...sent, ...credentials(session, method, headers, inCookies, !!how.bearer) }];
  };
  const response = await send(session, request, { tries: session.retries, ...how });
  return [await answer(response), response];
}

/** A call that sends JSON, or nothing, and wants JSON. */
export function json(body: unknown): { headers: Record<string, string>; body: string | null } {
  const headers = { Accept: "application/json" };
  if (body === undefined) return { headers, body: null };
  return { headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/** What the service answered. Throws `Problem`, or `NetworkError` where that is no JSON. */
export async function answer<T>(response: Response): Promise<T> {
  if (!response.ok) throw await Problem.of(response);
  const text = await response.text();
  if (!text) return undefined as T;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new NetworkError("The answer is not JSON", { cause });
  }
}

/** Thrown where something answers that is not Gatepost. */
export const stranger = () => new NetworkError("Not our service");
