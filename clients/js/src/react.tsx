import {
  createContext,
  createElement,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useSyncExternalStore,
  type ComponentType,
  type ReactNode,
} from "react";
import type { Auth, EndReason, State } from "./types.js";

export { returnTo } from "./return-to.js";

/** Take the person to an address of this app; a router's `navigate` does. */
export type Navigate = (to: string) => void;

interface Provided {
  auth: Auth;
  navigate: Navigate;
}

/** What a component knows and can do: the methods of `Auth`, and its state. */
export type UseAuth = Omit<Auth, "state" | "user" | "close" | "onChange"> & { auth: Auth; state: State } & State;

export interface Requirements {
  /** Any of these roles. */
  roles?: readonly string[];
  /** Any of these permissions. */
  permissions?: readonly string[];
  /** Shown until it is known who it is. During an outage that can be a while; `useAuth().problem` says so. */
  checking?: ReactNode;
  /** Shown to a person without the roles or permissions. */
  forbidden?: ReactNode;
  /** The page to sign in at; default `/login`. */
  to?: string;
}

const Context = createContext<Provided | null>(null);
const assign: Navigate = (to) => globalThis.location.assign(to);

/** Gives everything below it an `Auth`, which whoever made it goes on owning. */
export function AuthProvider(props: { auth: Auth; navigate?: Navigate; children?: ReactNode }): ReactNode {
  const { auth, navigate = assign, children } = props;
  const value = useMemo(() => ({ auth, navigate }), [auth, navigate]);
  return createElement(Context.Provider, { value }, children);
}

function useProvided(): Provided {
  const provided = useContext(Context);
  if (!provided) throw new Error("There is no AuthProvider above this component");
  return provided;
}

const useAuthState = (auth: Auth): State => {
  const now = () => auth.state;
  return useSyncExternalStore(auth.onChange, now, now);
};

export function useAuth(): UseAuth {
  const { auth } = useProvided();
  const state = useAuthState(auth);
  return useMemo(() => {
    const { ready, register, login, logout, logoutEverywhere, sessions, endSession } = auth;
    const { providers, signInWith, fetch, call, accessToken } = auth;
    return {
      ...{ ...state, auth, state },
      ...{ ready, register, login, logout, logoutEverywhere, sessions, endSession },
      ...{ providers, signInWith, fetch, call, accessToken },
    };
  }, [auth, state]);
}

/**
 * Shows its children to those who are signed in. Others are taken to `to`, with `next` (see `returnTo`), and with
 * `session=expired`, `reused`, `ended` or `disabled` where their session came to such an end.
 */
export function RequireAuth(props: Requirements & { children?: ReactNode }): ReactNode {
  const { roles, permissions, checking = null, forbidden = null, to = "/login", children } = props;
  const { auth, navigate } = useProvided();
  const state = useAuthState(auth);
  const sent = useRef<State | null>(null);
  const { status, user } = state;

  useEffect(() => {
    // Once for each end of a session, also where React mounts everything twice.
    if (status !== "unauthenticated" || sent.current === state) return;
    sent.current = state;
    const address = signInAddress(to, state.reason);
    if (address) navigate(address);
  }, [status, state, to, navigate]);

  if (status !== "authenticated" || !user) return checking;
  const has = (wanted: readonly string[] | undefined, held: string[]) => !wanted || wanted.some((each) => held.includes(each));
  return has(roles, user.roles) && has(permissions, user.permissions) ? children : forbidden;
}

/** The component for those who are signed in; the same as to put it inside `RequireAuth`. */
export function withAuth<Props extends object>(
  Component: ComponentType<Props>,
  requirements: Requirements = {},
): ComponentType<Props> {
  const Guarded = (props: Props) => createElement(RequireAuth, requirements, createElement(Component, props));
  Guarded.displayName = `withAuth(${Component.displayName || Component.name || "Component"})`;
  return Guarded;
}

/** `null` where the person is there already. */
function signInAddress(to: string, reason: EndReason): string | null {
  const { pathname, search, hash, href } = globalThis.location;
  const address = new URL(to, href);
  if (address.pathname === pathname) return null;
  if (reason !== "none" && reason !== "signed-out") address.searchParams.set("session", reason);
  if (reason !== "signed-out") address.searchParams.set("next", pathname + search + hash);
  return address.pathname + address.search + address.hash;
}
