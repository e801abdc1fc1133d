import { useAuth } from "gatepost-client/react";
import { useState } from "react";
import { Link, useLocation, useNavigate } from "react-router";
import { hasCode } from "../service/problems";
import { Field, Form } from "../ui/form";
import { Page } from "../ui/page";

export const PASSWORD_HINT = "8 characters or more, and none of the common ones. A sentence is good.";

export function ForgotPassword() {
  const { auth } = useAuth();
  const [asked, setAsked] = useState<string | null>(null);
  if (asked) {
    return (
      <Page key="asked" title="Check your mail">
        <p role="status">
          If there is an account for <strong>{asked}</strong>, a link to set a new password is on its way. It works once.
        </p>
        <p className="aside">
          <Link to="/login">Back to sign in</Link>
        </p>
      </Page>
    );
  }
  return (
    <Page title="Forgot your password?" lead="We send you a link to set a new one.">
      <Form
        submit="Send the link"
        onSubmit={async ({ email = "" }) => {
          await auth.call("POST", "/api/auth/password/forgot", { email });
          setAsked(email);
        }}
      >
        <Field name="email" label="Email" type="email" autoComplete="username" missing="Enter your email." />
      </Form>
      <p className="aside">
        <Link to="/login">Back to sign in</Link>
      </p>
    </Page>
  );
}

/** `/reset-password#token=…`: what stands behind the # reaches no server, and nothing happens before the button. */
export function ResetPassword() {
  const token = useTokenOfMail();
  return <Reset key={token} token={token} />;
}

function Reset({ token }: { token: string }) {
  const { auth, status } = useAuth();
  const navigate = useNavigate();
  const [state, setState] = useState<"asking" | "done" | "spent">(token ? "asking" : "spent");
  if (state === "done") {
    return (
      <Page key="done" title="Your password is set">
        <p role="status">Every device was signed out. Sign in with the new password.</p>
        <p className="aside">
          <Link to="/login" className="button button-primary">
            Sign in
          </Link>
        </p>
      </Page>
    );
  }
  if (state === "spent") {
    return (
      <Page key="spent" title="This link does not work">
        <p role="alert">It was used already, is too old, or a newer one has replaced it.</p>
        <p className="aside">
          <Link to="/forgot-password" className="button button-primary">
            Ask for a new link
          </Link>
        </p>
      </Page>
    );
  }
  return (
    <Page title="Set a new password" lead="It signs you out everywhere.">
      <Form
        submit="Set password"
        onSubmit={async ({ newPassword }) => {
          try {
            await auth.call("POST", "/api/auth/password/reset", { token, newPassword });
          } catch (error) {
            if (!hasCode(error, "INVALID_ONE_TIME_TOKEN")) throw error;
            setState("spent");
            return;
          }
          setState("done");
          navigate("/reset-password", { replace: true });
          if (status === "authenticated") await auth.user().catch(() => null); // it is over; let this page know
        }}
      >
        <Field
          name="newPassword"
          label="New password"
          type="password"
          autoComplete="new-password"
          hint={PASSWORD_HINT}
          missing="Choose a password."
        />
      </Form>
    </Page>
  );
}

/** The token that the link of a mail has brought. It stays when the address changes, until another one comes. */
export function useTokenOfMail(): string {
  const token = new URLSearchParams(useLocation().hash.slice(1)).get("token");
  const [kept, keep] = useState(token ?? "");
  if (token && token !== kept) keep(token);
  return token ?? kept;
}
