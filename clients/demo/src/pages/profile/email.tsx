import { useAuth } from "gatepost-client/react";
import { useState } from "react";
import { useLookout } from "../../service/hooks";
import { explain, isOutage } from "../../service/problems";
import { useAnnounce } from "../../ui/announcer";
import { Button } from "../../ui/button";
import { Field, Form } from "../../ui/form";
import { Card } from "../../ui/page";

export function EmailCard() {
  const { auth, user } = useAuth();
  const [asked, setAsked] = useState<string | null>(null);
  if (!user) return null;
  return (
    <Card title="Email">
      <p className="fact">
        <span className="wrap">{user.email}</span>
        {user.emailVerified ? (
          <span className="badge badge-good">verified</span>
        ) : (
          <span className="badge badge-warn">not verified</span>
        )}
      </p>
      {!user.emailVerified && <Resend />}
      <div role="status">
        {asked && (
          <p className="notice notice-good">
            We have written to <strong className="wrap">{asked}</strong>. Your email changes once you follow the link in that mail;
            we have told your old address about it.
          </p>
        )}
      </div>
      <details className="more">
        <summary>Change your email</summary>
        <Form
          submit="Change email"
          onSubmit={async ({ newEmail = "", password }, form) => {
            await auth.call("POST", "/api/auth/email/change", { newEmail, password });
            setAsked(newEmail);
            form.reset();
          }}
          place={(problem) => {
            if (problem.code === "INVALID_CREDENTIALS") return { password: "That is not your password." };
            if (problem.code === "EMAIL_EXISTS") return { newEmail: "There is already an account with this email." };
            return undefined;
          }}
        >
          <Field name="newEmail" label="New email" type="email" autoComplete="email" missing="Enter the new email." />
          <Field
            name="password"
            label="Password"
            type="password"
            autoComplete="current-password"
            missing="Enter your password."
          />
        </Form>
      </details>
    </Card>
  );
}

function Resend() {
  const { auth } = useAuth();
  const lookout = useLookout();
  const say = useAnnounce();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const ask = async () => {
    setBusy(true);
    setError(null);
    try {
      await auth.call("POST", "/api/auth/email/resend");
      say("A new link is on its way to you.");
    } catch (thrown) {
      if (isOutage(thrown)) lookout.lost();
      setError(explain(thrown));
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="notice notice-warn notice-row">
      <p>We have sent you a link to confirm this address. Without it you cannot get back in should you lose your password.</p>
      <Button busy={busy} onClick={ask}>
        Send it again
      </Button>
      <div role="alert">{error && <p>{error}</p>}</div>
    </div>
  );
}
