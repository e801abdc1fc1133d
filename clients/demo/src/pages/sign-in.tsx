import { useAuth } from "gatepost-client/react";
import { Link, useLocation } from "react-router";
import { onward } from "../service/onward";
import { Field, Form } from "../ui/form";
import { Page } from "../ui/page";
import { ProviderButtons } from "../ui/providers";

export function SignIn() {
  const { login, reason } = useAuth();
  const { search } = useLocation();
  return (
    <Page title="Sign in">
      <WhyHere reason={reason === "none" ? new URLSearchParams(search).get("session") : reason} />
      <Form submit="Sign in" onSubmit={({ email = "", password = "" }) => login({ email, password })}>
        <Field name="email" label="Email" type="email" autoComplete="username" missing="Enter your email." />
        <Field
          name="password"
          label="Password"
          type="password"
          autoComplete="current-password"
          missing="Enter your password."
        />
        <p className="forgot">
          <Link to="/forgot-password">Forgot your password?</Link>
        </p>
      </Form>
      <ProviderButtons redirectTo={`${location.origin}/login${search}`} />
      <p className="aside">
        New here? <Link to={`/register${onward(search)}`}>Create an account</Link>
      </p>
    </Page>
  );
}

/** Why somebody who was signed in stands here; after a reload the address still says so. */
function WhyHere({ reason }: { reason: string | null }) {
  if (reason === "reused") {
    return (
      <div role="alert" className="notice notice-danger">
        <p>
          <strong>We ended your session to protect your account.</strong> A token of this browser was used a second time,
          so somebody may have a copy of it. It is worthless now. Sign in again, look through{" "}
          <Link to="/login?next=/sessions">your devices</Link>, and change your password if one of them is not yours.
        </p>
      </div>
    );
  }
  const words = WORDS.get(reason);
  return words ? (
    <p role="status" className="notice">
      {words}
    </p>
  ) : null;
}

const WORDS = new Map<string | null, string>([
  ["expired", "Your session has expired. Sign in again to go on where you were."],
  ["ended", "Your session was ended, here or on another device. Sign in again to go on."],
  ["disabled", "This account is disabled. Ask an administrator."],
  ["signed-out", "You are signed out."],
]);
