// The journey of a single-page app, with docs/gatepost.js as it is. Prints "done" when all of it went well.
import assert from "node:assert/strict";
import { call, isSignedOut, login, logout, me, register } from "./gatepost.mjs";

// A browser: one cookie jar, an origin, and a record of what was asked.
const service = process.argv[2];
const jar = new Map();
const seen = [];
let instead; // an answer to give in place of the service's, once
const fromTheNetwork = globalThis.fetch;

globalThis.fetch = async (url, options) => {
  assert.equal(options.credentials, "include");
  const { pathname } = new URL(url);
  if (instead?.path === pathname) {
    const { status, body } = instead;
    instead = undefined;
    return new Response(JSON.stringify(body), { status });
  }
  const sent = [...jar].filter(([, { path }]) => pathname.startsWith(path)).map(([name, { value }]) => `${name}=${value}`);
  const headers = { ...options.headers, Cookie: sent.join("; "), Origin: "http://localhost:5173" };
  const response = await fromTheNetwork(url, { ...options, headers });
  seen.push(`${options.method} ${pathname} ${response.status}`);
  for (const line of response.headers.getSetCookie()) {
    const [, name, value, attributes] = line.match(/^([^=]+)=([^;]*);(.*)$/);
    const path = attributes.match(/Path=([^;]*)/)[1];
    if (/Max-Age=0(;|$)/.test(attributes)) jar.delete(name);
    else jar.set(name, { value, path });
  }
  return response;
};

const count = (line) => seen.filter((one) => one === line).length;
const refused = async (work) => work.then(() => assert.fail("it was not refused"), (problem) => problem);

// Nobody is signed in: one refresh is tried, and its refusal says so.
assert.ok(isSignedOut(await refused(me())));

const email = "ada@example.org";
const password = "a long and private sentence";
assert.equal((await register({ email, password })).user.email, email);
assert.equal((await call("PATCH", "/api/users/profile", { firstName: "Ada" })).user.firstName, "Ada");

// The access cookie has gone, as it does when its token expires: five calls share one refresh.
seen.length = 0;
jar.delete("accessToken");
const answers = await Promise.all(Array.from({ length: 5 }, me));
assert.ok(answers.every((user) => user.email === email));
assert.equal(count("POST /api/auth/refresh 200"), 1);

// A change of password makes the access token stale: refreshed without a word.
await call("POST", "/api/auth/password/change", { currentPassword: password, newPassword: password + "!" });
seen.length = 0;
assert.equal((await me()).email, email);
assert.deepEqual(seen, ["GET /api/auth/me 401", "POST /api/auth/refresh 200", "GET /api/auth/me 200"]);

// A wrong password, a 429 and a 503 say nothing about the session.
for (const status of [429, 503]) {
  jar.delete("accessToken");
  instead = { path: "/api/auth/refresh", status, body: { code: status === 429 ? "RATE_LIMITED" : "SERVICE_UNAVAILABLE" } };
  const problem = await refused(me());
  assert.equal(problem.status, status);
  assert.ok(!isSignedOut(problem));
  assert.equal((await me()).email, email);
}
seen.length = 0;
const wrong = await refused(call("POST", "/api/auth/password/change", { currentPassword: "no", newPassword: "something else" }));
assert.equal(wrong.code, "INVALID_CREDENTIALS");
assert.equal(count("POST /api/auth/refresh 200"), 0);

// Another tab signed in: the CSRF token in memory is of another session, and is fetched anew.
const before = jar.get("csrfToken").value;
const signedIn = await fetch(`${service}/api/auth/login`, {
  method: "POST",
  credentials: "include",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ email, password: password + "!" }),
});
assert.equal(signedIn.status, 200);
assert.notEqual(jar.get("csrfToken").value, before);
assert.equal((await call("PATCH", "/api/users/profile", { lastName: "Lovelace" })).user.lastName, "Lovelace");
assert.equal(count("GET /api/auth/csrf-token 200"), 1);

await logout();
assert.equal(jar.size, 0);
assert.ok(isSignedOut(await refused(me())));
assert.equal((await login(email, password + "!")).user.email, email);
console.log("done");
