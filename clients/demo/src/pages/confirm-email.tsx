import { useAuth } from "gatepost-client/react";
import { useState } from "react";
import { Link, useNavigate } from "react-router";
import { hasCode } from "../service/problems";
import { Form } from "../ui/form";
import { Page } from "../ui/page";
import { useTokenOfMail } from "./passwords";

/** `/verify-email#token=…`: a new account's email, or the one to move to. A button, so that a scanner of mails burns nothing. */
export function ConfirmEmail() {
  const token = useTokenOfMail();
  return <Confirm key={token} token={token} />;
}

function Confirm({ token }: { token: string }) {
  const { auth, status } = useAuth();
  const navigate = useNavigate();
  const [state, setState] = useState<"asking" | "done" | "spent">(token ? "asking" : "spent");
  const signedIn = status === "authenticated";
  if (state === "done") {
    return (
      <Page key="done" title="Your email is confirmed">
        <p role="status">Thank you. This address belongs to your account now.</p>
        <p className="aside">
          <Link to={signedIn ? "/profile" : "/login"} className="button button-primary">
            {signedIn ? "Go to your profile" : "Sign in"}
          </Link>
        </p>
      </Page>
    );
  }
  if (state === "spent") {
    return (
      <Page key="spent" title="This link does not work">
        <p role="alert">
          It was used already, is too old, or a newer one has replaced it. Sign in and ask for a new one in your profile.
        </p>
        <p className="aside">
          <Link to={signedIn ? "/profile" : "/login?next=/profile"} className="button button-primary">
            {signedIn ? "Go to your profile" : "Sign in"}
          </Link>
        </p>
      </Page>
    );
  }
  return (
    <Page title="Confirm your email" lead="One click, and we know that this address is yours.">
      <Form
        submit="Confirm my email"
        onSubmit={async () => {
          try {
            await auth.call("POST", "/api/auth/email/verify", { token });
          } catch (error) {
            if (!hasCode(error, "INVALID_ONE_TIME_TOKEN")) throw error;
            setState("spent");
            return;
          }
          setState("done");
          navigate("/verify-email", { replace: true });
          // Whoever was quick has pressed the button before it was known who they are.
          if (auth.state.status !== "unauthenticated") await auth.user().catch(() => null);
        }}
      />
    </Page>
  );
}
