import { Problem } from "./problem.js";
import { ask, stranger } from "./service.js";
import type { Session } from "./session.js";
import type { Provider } from "./types.js";

/** Where else one can sign in. */
export async function providers(session: Session): Promise<Provider[]> {
  return (await ask<{ providers: Provider[] }>(session, "GET", "/api/auth/providers"))[0].providers;
}

/** Leave this page for the provider's. */
export async function signInWith(session: Session, name: string, redirectTo?: string): Promise<void> {
  if (!session.inCookies) throw new TypeError("signInWith needs cookie mode");
  const provider = (await providers(session)).find((each) => each.name === name);
  if (!provider) throw new Problem(404, { code: "PROVIDER_NOT_CONFIGURED", title: "There is no such provider here" });
  const url = new URL(provider.startUrl);
  if (!/^https?:$/.test(url.protocol)) throw stranger();
  const back = new URL(redirectTo ?? location.href, location.href);
  if (!redirectTo) back.searchParams.delete("error"); // of the last try
  url.searchParams.set("redirectTo", back.href);
  location.assign(url.href);
}
