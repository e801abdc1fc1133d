import type { Provider } from "gatepost-client";
import { useAuth } from "gatepost-client/react";
import { useState } from "react";
import { useLoad, useLookout } from "../../service/hooks";
import { explain, hasCode, isOutage } from "../../service/problems";
import { useAnnounce } from "../../ui/announcer";
import { Button } from "../../ui/button";
import { ConfirmButton } from "../../ui/dialog";
import { Card, Loading } from "../../ui/page";
import { useRecently } from "../../ui/reauthentication";
import { Time } from "../../ui/time";

export function Identities() {
  const { auth } = useAuth();
  const providers = useLoad("providers", () => auth.providers());
  return (
    <Card title="Other ways to sign in">
      <Loading loaded={providers} rows={1}>
        {(known) => <Linked known={known} />}
      </Loading>
    </Card>
  );
}

function Linked({ known }: { known: Provider[] }) {
  const { auth, user } = useAuth();
  const recently = useRecently();
  const say = useAnnounce();
  const identities = user?.identities ?? [];
  const linkable = known.filter(({ name }) => !identities.some(({ provider }) => provider === name));
  const display = (name: string) => known.find((provider) => provider.name === name)?.displayName ?? name;

  if (!identities.length && !linkable.length) return <p className="muted">No other providers are set up here.</p>;
  return (
    <ul className="rows">
      {identities.map(({ provider, email, linkedAt }) => (
        <li key={provider} className="row">
          <div className="row-text">
            <p className="row-title">{display(provider)}</p>
            <p className="muted">
              {email && <span className="wrap">{email}, </span>}linked <Time at={linkedAt} />
            </p>
          </div>
          <ConfirmButton
            title={`Unlink ${display(provider)}?`}
            explanation="You can no longer sign in with it, until you link it again."
            confirm="Unlink"
            aria-label={`Unlink ${display(provider)}`}
            action={async () => {
              await recently(() => auth.call("DELETE", `/api/auth/identities/${encodeURIComponent(provider)}`));
              await auth.user();
              say(`${display(provider)} is unlinked.`);
            }}
          >
            Unlink
          </ConfirmButton>
        </li>
      ))}
      {linkable.map((provider) => (
        <li key={provider.name} className="row">
          <div className="row-text">
            <p className="row-title">{provider.displayName}</p>
            <p className="muted">not linked</p>
          </div>
          <LinkButton provider={provider} />
        </li>
      ))}
    </ul>
  );
}

function LinkButton({ provider }: { provider: Provider }) {
  const { auth } = useAuth();
  const recently = useRecently();
  const lookout = useLookout();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const link = async () => {
    setBusy(true);
    setError(null);
    const back = encodeURIComponent(`${location.origin}/profile`);
    const path = `/api/auth/${encodeURIComponent(provider.name)}/link?redirectTo=${back}`;
    try {
      const { authUrl } = await recently(() => auth.call<{ authUrl: string }>("POST", path));
      location.assign(authUrl);
    } catch (thrown) {
      setBusy(false);
      if (hasCode(thrown, "REAUTHENTICATION_REQUIRED")) return; // they closed the dialog
      if (isOutage(thrown)) lookout.lost();
      setError(explain(thrown));
    }
  };
  return (
    <div>
      <Button busy={busy} onClick={link} aria-label={`Link ${provider.displayName}`}>
        Link
      </Button>
      <div role="alert">{error && <p className="field-error">{error}</p>}</div>
    </div>
  );
}
