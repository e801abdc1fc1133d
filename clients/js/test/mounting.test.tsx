import { page } from "./page.js";
import { act, cleanup, configure, render, screen, waitFor } from "@testing-library/react";
import { StrictMode, useState, type ReactNode } from "react";
import { hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Auth } from "../src/index.js";
import { AuthProvider, RequireAuth, useAuth, type Navigate } from "../src/react.js";
import { answered, breathe, eventually, held, PASSWORD, world } from "./service.js";

const it = world();
configure({ asyncUtilTimeout: 8000 }); // on a busy machine
const REFRESH = "POST /api/auth/refresh";
const ada = { email: "ada@example.org", password: PASSWORD };
const complaints = vi.fn();
beforeEach(() => void vi.spyOn(console, "error").mockImplementation(complaints));
afterEach(() => {
  cleanup();
  page.happyDOM.setURL("https://app.example/");
  vi.restoreAllMocks();
  expect(complaints.mock.calls).toEqual([]);
  complaints.mockClear();
});

const Who = ({ name = "" }) => {
  const { status, user } = useAuth();
  return <p>{`${name}${user?.email ?? status}`}</p>;
};
const inside = (auth: Auth, children: ReactNode, navigate: Navigate = () => {}) => (
  <StrictMode>
    <AuthProvider auth={auth} navigate={navigate}>
      {children}
    </AuthProvider>
  </StrictMode>
);

test("what is taken away during a refresh is not drawn again, and the refresh goes on", async () => {
  const auth = await it.signedIn();
  it.service.revokeAccess();
  const gate = held();
  it.service.plan(REFRESH, gate);
  const drawn = vi.fn();
  const Things = () => {
    const { call, user } = useAuth();
    const [things, setThings] = useState("");
    drawn();
    return <button onClick={() => void call<{ user: string }>("GET", "/api/things").then((each) => setThings(each.user))}>{user?.email ?? things}</button>;
  };
  const { unmount } = render(inside(auth, <Things />));
  screen.getByRole("button").click();
  await eventually(() => it.service.count(REFRESH) === 1);
  unmount();
  drawn.mockClear();
  gate.release();
  await eventually(() => it.service.count("GET /api/things") === 2);
  await answered();
  await auth.logout();

  expect(drawn).not.toHaveBeenCalled();
  expect(auth.state.status).toBe("unauthenticated");
});

test("many mounts and unmounts leave one listener, and none at the end", async () => {
  const auth = await it.signedIn();
  let listening = 0;
  const { onChange } = auth;
  auth.onChange = (listener) => {
    const stop = onChange(listener);
    listening += 1;
    return () => {
      listening -= 1;
      stop();
    };
  };
  const { rerender, unmount } = render(inside(auth, <Who />));
  for (let n = 0; n < 20; n += 1) rerender(inside(auth, <Who key={n} />));
  expect(listening).toBe(1);
  unmount();

  expect(listening).toBe(0);
  expect(it.service.log).toEqual([]);
});

test("providers beside and inside one another each have their own", async () => {
  const one = await it.signedIn({ channel: false });
  const two = it.tab({ mode: "token" });
  await two.login({ email: "bob@example.org", password: PASSWORD });
  const nested = (
    <AuthProvider auth={two}>
      <Who name="inner " />
    </AuthProvider>
  );
  render(inside(one, <><Who name="outer " />{nested}</>)); // prettier-ignore
  render(inside(one, <Who name="beside " />));
  for (const text of ["outer ada@example.org", "inner bob@example.org", "beside ada@example.org"]) screen.getByText(text);
  await act(() => one.logout());

  for (const text of ["outer unauthenticated", "inner bob@example.org", "beside unauthenticated"]) screen.getByText(text);
});

test("a provider that is given another auth shows that one, and forgets the first", async () => {
  const one = await it.signedIn({ channel: false });
  const two = it.tab({ mode: "token" });
  await two.ready();
  const { rerender } = render(inside(one, <Who />));
  screen.getByText("ada@example.org");
  rerender(inside(two, <Who />));
  screen.getByText("unauthenticated");
  await one.logout();
  await act(async () => void (await two.login({ email: "bob@example.org", password: PASSWORD })));

  screen.getByText("bob@example.org");
});

test("a navigate that is another function each time takes the person away once", async () => {
  page.happyDOM.setURL("https://app.example/inbox");
  const auth = it.tab({ mode: "token" });
  const navigate = vi.fn();
  const draw = () => inside(auth, <RequireAuth>secret</RequireAuth>, (to) => navigate(to));
  const { rerender } = render(draw());
  await act(async () => void (await auth.ready()));
  for (let n = 0; n < 5; n += 1) rerender(draw());

  expect(navigate.mock.calls).toEqual([["/login?next=%2Finbox"]]);
});

test("an auth that is closed while it is shown stays as it was, and asks nobody", async () => {
  const auth = await it.signedIn();
  const { unmount } = render(inside(auth, <Who />));
  auth.close();
  await breathe(20);
  screen.getByText("ada@example.org");
  unmount();
  render(inside(auth, <Who />));

  screen.getByText("ada@example.org");
  expect(it.service.log).toEqual([]);
});

test("a page that a server has rendered is taken up without a difference", async () => {
  (await it.signedIn()).close();
  const draw = (auth: Auth) => inside(auth, <RequireAuth checking={<p>One moment</p>}><Who /></RequireAuth>); // prettier-ignore
  const html = renderToString(draw(it.tab()));
  expect(html).toContain("One moment");
  const container = document.body.appendChild(document.createElement("div"));
  container.innerHTML = html;
  const root = await act(async () => hydrateRoot(container, draw(it.tab())));

  await waitFor(() => expect(container.textContent).toBe("ada@example.org"));
  await act(async () => root.unmount());
  container.remove();
});

test("a listener that takes itself away while it is told does not keep the others from hearing", async () => {
  const auth = it.tab();
  await auth.ready();
  const heard: string[] = [];
  const stop = auth.onChange(() => {
    heard.push("first");
    stop();
  });
  auth.onChange(() => heard.push("second"));
  await auth.login(ada);
  await auth.logout();

  expect(heard).toEqual(["first", "second", "second"]);
});
