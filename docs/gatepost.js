// The calls of a single-page app to Gatepost, in cookie mode. Copy it and set API.
//
//   - A call that meets a spent access token refreshes, once for all calls that need it, and asks again.
//   - Only a refused refresh means signed out. A 429, a 503 and a lost connection say nothing about the session.
//   - Several tabs need no coordination: the service gives all of them the same successor.
const API = "http://localhost:8000";
const ASK_AGAIN = new Set(["NO_TOKEN", "TOKEN_EXPIRED", "TOKEN_STALE", "TOKEN_REVOKED", "INVALID_TOKEN"]);

export class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `HTTP ${status}`);
    Object.assign(this, problem, { status }); // code, errors, retryAfter, requestId
  }
}

let csrfToken; // of the current session; kept in memory, fetched again when it does not fit
let refreshing; // the refresh under way, shared by every call that needs one
let refreshed = 0; // how many there have been

async function send(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrfToken) headers["X-CSRF-Token"] = csrfToken;
  const response = await fetch(API + path, {
    method,
    headers,
    credentials: "include",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const answer = response.status === 204 ? {} : await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, answer);
  if (answer.csrfToken) csrfToken = answer.csrfToken;
  return answer;
}

async function sendWithCsrf(method, path, body) {
  try {
    return await send(method, path, body);
  } catch (problem) {
    if (problem.code !== "CSRF_FAILED") throw problem; // after a reload, or another tab signed in
    await send("GET", "/api/auth/csrf-token");
    return send(method, path, body);
  }
}

function refresh() {
  refreshing ??= sendWithCsrf("POST", "/api/auth/refresh")
    .then(() => (refreshed += 1))
    .finally(() => (refreshing = undefined));
  return refreshing;
}

/** Call the API. Throws a `Problem`, or the `TypeError` of `fetch` when the network is down. */
export async function call(method, path, body) {
  const before = refreshed;
  try {
    return await sendWithCsrf(method, path, body);
  } catch (problem) {
    if (!ASK_AGAIN.has(problem.code)) throw problem; // 429, 503 or a wrong password: still signed in
    if (refreshed === before) await refresh(); // else another call did, while this one was under way
    return sendWithCsrf(method, path, body);
  }
}

/** Whether a problem means that the person has to sign in again. A 429, a 503 or a lost connection never does. */
export const isSignedOut = (problem) =>
  ["NO_REFRESH_TOKEN", "INVALID_REFRESH_TOKEN", "REFRESH_TOKEN_REUSED", "SESSION_ENDED"].includes(problem.code);

export const register = (fields) => call("POST", "/api/auth/register", fields);
export const login = (email, password) => call("POST", "/api/auth/login", { email, password });
export const logout = () => call("POST", "/api/auth/logout");
export const me = async () => (await call("GET", "/api/auth/me")).user;
