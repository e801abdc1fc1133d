import { page } from "./page.js";
import { act, cleanup, configure, render, screen, waitFor } from "@testing-library/react";
import { StrictMode, type ReactNode } from "react";
import { renderToString } from "react-dom/server";
import { afterEach, expect, test, vi } from "vitest";
import { AuthProvider, RequireAuth, returnTo, useAuth, withAuth } from "../src/react.js";
import type { Auth } from "../src/index.js";
import { answers, held, PASSWORD, world } from "./service.js";

const it = world();
configure({ asyncUtilTimeout: 8000 }); // on a busy machine
const ada = { email: "ada@example.org", password: PASSWORD };
afterEach(() => {
  cleanup();
  page.happyDOM.setURL("https://app.example/");
});

function show(auth: Auth, children: ReactNode) {
  const navigate = vi.fn<(to: string) => void>();
  render(
    <StrictMode>
      <AuthProvider auth={auth} navigate={navigate}>
        {children}
      </AuthProvider>
    </StrictMode>,
  );
  return navigate;
}

const Who = () => {
  const { status, user } = useAuth();
  return <p>{status === "authenticated" ? `${user.email} is ${status}` : status}</p>;
};

test("useAuth shows who it is, from the first look to the log-out", async () => {
  const auth = it.tab();
  show(auth, <Who />);
  expect(screen.getByText("checking")).toBeTruthy();
  await screen.findByText("unauthenticated");
  expect(it.service.log).toEqual(["GET /api/auth/me", "POST /api/auth/refresh"]); // StrictMode mounts twice, and looks once

  await act(async () => void (await auth.login(ada)));
  expect(screen.getByText("ada@example.org is authenticated")).toBeTruthy();
  await act(() => auth.logout());
  expect(screen.getByText("unauthenticated")).toBeTruthy();
});

test("useAuth gives what auth can do", async () => {
  const auth = await it.signedIn();
  const Out = () => {
    const { logout, call } = useAuth();
    return <button onClick={() => void call("GET", "/api/things").then(logout)}>Sign out</button>;
  };
  show(auth, <Out />);
  screen.getByText("Sign out").click();

  await waitFor(() => expect(auth.state.status).toBe("unauthenticated"));
  expect(it.service.log).toEqual(["GET /api/things", "POST /api/auth/logout"]);
});

test("useAuth without a provider says what is missing", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => render(<Who />)).toThrow("AuthProvider");
  vi.restoreAllMocks();
});

test("RequireAuth shows its children to who is signed in, and never before it is known", async () => {
  (await it.signedIn()).close();
  const late = held();
  it.service.plan("GET /api/auth/me", late);
  const navigate = show(it.tab(), <RequireAuth checking={<p>One moment</p>}>secret</RequireAuth>);
  expect(screen.getByText("One moment")).toBeTruthy();
  expect(screen.queryByText("secret")).toBeNull();
  late.release();

  await screen.findByText("secret");
  expect(navigate).not.toHaveBeenCalled();
});

test("RequireAuth sends who is not signed in to the log-in page once, and keeps where they were going", async () => {
  page.happyDOM.setURL("https://app.example/inbox?page=2#last");
  const navigate = show(it.tab(), <RequireAuth>secret</RequireAuth>);
  await waitFor(() => expect(navigate).toHaveBeenCalled());

  expect(navigate.mock.calls).toEqual([[`/login?next=${encodeURIComponent("/inbox?page=2#last")}`]]);
  const { search } = new URL(navigate.mock.calls[0]![0], "https://app.example");
  expect(returnTo("/", search)).toBe("/inbox?page=2#last");
  expect(screen.queryByText("secret")).toBeNull();
});

test.each([
  ["expired", "expired"],
  ["reuse", "reused"],
  ["revoked", "ended"],
  ["account_disabled", "disabled"],
])("a session that ended with %s arrives there as session=%s", async (reason, told) => {
  page.happyDOM.setURL("https://app.example/inbox");
  const auth = await it.signedIn();
  const navigate = show(auth, <RequireAuth to="/login?theme=dark">secret</RequireAuth>);
  await screen.findByText("secret");
  it.service.endSessions(reason);
  await act(async () => void (await auth.fetch("/api/things")));

  expect(navigate.mock.calls).toEqual([[`/login?theme=dark&session=${told}&next=%2Finbox`]]);
});

test("who signs out is not brought back to where they were", async () => {
  page.happyDOM.setURL("https://app.example/inbox");
  const auth = await it.signedIn();
  const navigate = show(auth, <RequireAuth>secret</RequireAuth>);
  await screen.findByText("secret");
  await act(() => auth.logout());

  expect(navigate.mock.calls).toEqual([["/login"]]);
});

test("on the log-in page itself nobody is sent in circles", async () => {
  page.happyDOM.setURL("https://app.example/login?next=%2Finbox");
  const auth = it.tab();
  const navigate = show(auth, <RequireAuth>secret</RequireAuth>);
  await act(async () => void (await auth.ready()));

  expect(navigate).not.toHaveBeenCalled();
});

test("an outage sends nobody away: it is still being checked, and the page can say so", async () => {
  it.service.plan("GET /api/auth/me", answers(503, "SERVICE_UNAVAILABLE", { "Retry-After": "60" }));
  const Away = () => <p>{useAuth().problem?.message ?? "One moment"}</p>;
  const navigate = show(it.tab({ retries: 0 }), <RequireAuth checking={<Away />}>secret</RequireAuth>);

  await screen.findByText("SERVICE_UNAVAILABLE");
  expect(navigate).not.toHaveBeenCalled();
});

test.each([
  [{ roles: ["admin"] }, false],
  [{ roles: ["admin", "user"] }, true],
  [{ permissions: ["users:read"] }, false],
  [{ permissions: ["profile:read"] }, true],
  [{ roles: ["user"], permissions: ["users:read"] }, false],
  [{ roles: [] }, false],
])("RequireAuth with %j: %s", async (requirements, shown) => {
  const navigate = show(
    await it.signedIn(),
    <RequireAuth {...requirements} forbidden={<p>Not for you</p>}>
      <p>secret</p>
    </RequireAuth>,
  );

  await screen.findByText(shown ? "secret" : "Not for you");
  expect(screen.queryByText(shown ? "Not for you" : "secret")).toBeNull();
  expect(navigate).not.toHaveBeenCalled();
});

test("withAuth is RequireAuth around a component", async () => {
  const Page = withAuth(({ title }: { title: string }) => <h1>{title}</h1>, { roles: ["user"] });
  show(await it.signedIn(), <Page title="Inbox" />);
  await screen.findByText("Inbox");

  const navigate = show(it.tab({ mode: "token" }), <Page title="Outbox" />);
  await waitFor(() => expect(navigate).toHaveBeenCalledTimes(1));
  expect(screen.queryByText("Outbox")).toBeNull();
});

test("without a router the page is left by location.assign", async () => {
  const assign = vi.spyOn(globalThis.location, "assign").mockImplementation(() => {});
  render(
    <AuthProvider auth={it.tab({ mode: "token" })}>
      <RequireAuth>secret</RequireAuth>
    </AuthProvider>,
  );

  await waitFor(() => expect(assign).toHaveBeenCalledWith("/login?next=%2F"));
});

test("on a server it renders as being checked, and asks nobody", () => {
  const auth = it.tab();
  const html = renderToString(
    <AuthProvider auth={auth}>
      <Who />
      <RequireAuth checking="One moment">secret</RequireAuth>
    </AuthProvider>,
  );

  expect(html).toContain("checking");
  expect(html).not.toContain("secret");
  expect(it.service.log).toEqual([]);
});
