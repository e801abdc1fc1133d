import { useAuth } from "gatepost-client/react";
import { useState } from "react";
import { Link, useLocation } from "react-router";
import { onward } from "../service/onward";
import { Field, Form } from "../ui/form";
import { Page } from "../ui/page";
import { ProviderButtons } from "../ui/providers";
import { PASSWORD_HINT } from "./passwords";

export function SignUp() {
  const { auth } = useAuth();
  const { search } = useLocation();
  const [mailed, setMailed] = useState<string | null>(null);
  if (mailed) {
    return (
      <Page key="mailed" title="Check your mail">
        <p role="status">
          We have written to <strong>{mailed}</strong>. Follow the link in that mail to go on.
        </p>
        <p className="aside">
          <Link to="/login">Back to sign in</Link>
        </p>
      </Page>
    );
  }
  return (
    <Page title="Create an account">
      <Form
        submit="Create account"
        onSubmit={async ({ email = "", password = "", firstName, lastName }) => {
          const names = { ...(firstName && { firstName }), ...(lastName && { lastName }) };
          if (!(await auth.register({ email, password, ...names }))) setMailed(email);
        }}
        place={(problem) =>
          problem.code === "EMAIL_EXISTS" ? { email: "There is already an account with this email." } : undefined
        }
      >
        <div className="pair">
          <Field name="firstName" label="First name" autoComplete="given-name" maxLength={100} optional />
          <Field name="lastName" label="Last name" autoComplete="family-name" maxLength={100} optional />
        </div>
        <Field name="email" label="Email" type="email" autoComplete="username" missing="Enter your email." />
        <Field
          name="password"
          label="Password"
          type="password"
          autoComplete="new-password"
          hint={PASSWORD_HINT}
          missing="Choose a password."
        />
      </Form>
      <ProviderButtons redirectTo={`${location.origin}/login${search}`} />
      <p className="aside">
        Already have an account? <Link to={`/login${onward(search)}`}>Sign in</Link>
      </p>
    </Page>
  );
}
