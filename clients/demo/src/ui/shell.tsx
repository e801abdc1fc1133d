/** The frame around every page: who one is, where one can go, and whether the service is there. */
import { useAuth } from "gatepost-client/react";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { Link, NavLink, Outlet, useLocation, useSearchParams } from "react-router";
import { useReach } from "../service/hooks";
import { explain, explainReturn } from "../service/problems";
import { useAnnounce } from "./announcer";
import { Button } from "./button";
import { Person } from "./person";
import { Splash } from "./splash";
import { ThemeButton } from "./theme";

const PLACES: readonly (readonly [to: string, label: string, permission?: string])[] = [
  ["/profile", "Profile"],
  ["/sessions", "Devices"],
  ["/api-keys", "API keys"],
  ["/activity", "Activity"],
  ["/admin/users", "Users", "users:read"],
  ["/admin/statistics", "Statistics", "stats:read"],
  ["/admin/audit", "Audit trail", "audit:read"],
];

function Frame({ header, children }: { header?: ReactNode; children: ReactNode }) {
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="top">
        <Link to="/" className="brand">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M9 25V10.5l3-2.5 3 2.5V25M15 14h9M15 20h9" />
          </svg>
          Gatepost
        </Link>
        <div className="top-end">
          {header}
          <ThemeButton />
        </div>
      </header>
      <OutageBanner />
      {children}
    </>
  );
}

/** Pages for those who are not signed in, and for links from mails. */
export function GuestShell({ children }: { children?: ReactNode }) {
  return (
    <Frame>
      <main id="main" tabIndex={-1} className="guest">
        <div className="guest-card">
          <ReturnNotice />
          {children ?? <Outlet />}
        </div>
      </main>
    </Frame>
  );
}

export function AppShell({ children }: { children?: ReactNode }) {
  const { user } = useAuth();
  const { pathname } = useLocation();
  const list = useRef<HTMLElement>(null);
  // On a phone the places are a line that is wider than the screen.
  useEffect(() => {
    const here = list.current?.querySelector<HTMLElement>("[aria-current]");
    if (here) list.current?.scrollTo({ left: here.offsetLeft - list.current.clientWidth / 2 + here.clientWidth / 2 });
  }, [pathname]);
  const places = PLACES.filter(([, , permission]) => !permission || user?.permissions.includes(permission));
  return (
    <Frame header={<Me />}>
      <div className="app">
        <nav aria-label="Main" className="places" ref={list}>
          <ul>
            {places.map(([to, label, permission], index) => (
              <li key={to} className={permission && !places[index - 1]?.[2] ? "places-break" : undefined}>
                <NavLink to={to}>{label}</NavLink>
              </li>
            ))}
          </ul>
        </nav>
        <main id="main" tabIndex={-1} className="content">
          <ReturnNotice />
          {children ?? <Outlet />}
        </main>
      </div>
    </Frame>
  );
}

/** The frame alone, while it is not known yet who this is. */
export function WaitingShell() {
  return (
    <Frame>
      <main id="main" tabIndex={-1}>
        <Splash />
      </main>
    </Frame>
  );
}

function Me() {
  const { auth, user } = useAuth();
  const [busy, setBusy] = useState(false);
  const say = useAnnounce();
  if (!user) return null;
  const leave = async () => {
    setBusy(true);
    try {
      await auth.logout();
    } catch (error) {
      say(`You are still signed in. ${explain(error)}`);
      setBusy(false);
    }
  };
  return (
    <>
      <span className="me">
        <Person user={user} small />
        <span className="me-name">{user.name ?? user.email}</span>
      </span>
      <Button kind="quiet" busy={busy} onClick={leave}>
        Sign out
      </Button>
    </>
  );
}

/** Nothing is decided while the service is away: nobody is signed out, and nothing that was typed is lost. */
function OutageBanner() {
  const { away } = useReach();
  const { user, problem } = useAuth();
  return (
    <div role="status">
      {(away || problem) && (
        <p className="banner">
          <span className="spinner" aria-hidden="true" />
          <span>We cannot reach the service; trying again.{user && " You stay signed in."}</span>
        </p>
      )}
    </div>
  );
}

/** What a provider's sign-in or linking came back with, wherever it came back to. */
function ReturnNotice() {
  const [search, setSearch] = useSearchParams();
  const code = search.get("error");
  if (!code) return null;
  const dismiss = () => {
    search.delete("error");
    setSearch(search, { replace: true });
  };
  return (
    <div role="alert" className="notice notice-danger notice-row notice-return">
      <p>{explainReturn(code)}</p>
      <button type="button" className="icon-button" onClick={dismiss} aria-label="Dismiss this message">
        <svg viewBox="0 0 24 24" aria-hidden="true">
          <path d="M6 6l12 12M18 6 6 18" />
        </svg>
      </button>
    </div>
  );
}
