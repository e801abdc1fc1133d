import { useAuth } from "gatepost-client/react";
import { useLoad } from "../service/hooks";
import { useAnnounce } from "../ui/announcer";
import { ConfirmButton } from "../ui/dialog";
import { Loading, Page } from "../ui/page";
import { Time } from "../ui/time";

export function Devices() {
  const { auth } = useAuth();
  const say = useAnnounce();
  const sessions = useLoad("sessions", async () => {
    const all = await auth.sessions();
    const named = all.map((session) => ({ ...session, device: session.device ?? "Unknown device" }));
    return named.sort((a, b) => Number(b.current) - Number(a.current));
  });
  return (
    <Page title="Devices" lead="Where you are signed in. If you do not know one of these, sign it out and change your password.">
      <Loading loaded={sessions}>
        {(all) => (
          <>
            <ul className="rows card" aria-label="Signed-in devices">
              {all.map((session) => (
                  <li key={session.id} className="row">
                    <div className="row-text">
                      <p className="row-title">
                        {session.device} {session.current && <span className="badge badge-good">this device</span>}
                      </p>
                      <p className="muted">
                        {session.ip} · used <Time at={session.lastUsedAt} /> · signed in <Time at={session.createdAt} /> · until{" "}
                        <Time at={session.expiresAt} plain />
                      </p>
                    </div>
                    <ConfirmButton
                      title={session.current ? "Sign out here?" : `Sign out ${session.device}?`}
                      explanation={session.current ? "You will have to sign in again." : "It has to sign in again to go on."}
                      confirm="Sign out"
                      aria-label={`Sign out ${session.device}${session.current ? " (this device)" : ""}`}
                      action={async () => {
                        if (session.current) return auth.logout();
                        await auth.endSession(session.id);
                        say(`${session.device} is signed out.`);
                        sessions.set(all.filter(({ id }) => id !== session.id));
                      }}
                    >
                      Sign out
                    </ConfirmButton>
                  </li>
                ))}
            </ul>
            <ConfirmButton
              kind="danger"
              title="Sign out everywhere?"
              explanation="Every device is signed out at once, this one too."
              confirm="Sign out everywhere"
              action={() => auth.logoutEverywhere()}
            >
              Sign out everywhere
            </ConfirmButton>
          </>
        )}
      </Loading>
    </Page>
  );
}
