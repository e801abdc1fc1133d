import { useAuth } from "gatepost-client/react";
import { useAnnounce } from "../../ui/announcer";
import { ConfirmButton } from "../../ui/dialog";
import { Field, Form } from "../../ui/form";
import { Card } from "../../ui/page";
import { PASSWORD_HINT } from "../passwords";

export function PasswordCard() {
  const { auth, user } = useAuth();
  const say = useAnnounce();
  if (!user) return null;
  return (
    <Card title="Password">
      <Form
        submit="Change password"
        onSubmit={async ({ currentPassword, newPassword }, form) => {
          await auth.call("POST", "/api/auth/password/change", { currentPassword, newPassword });
          form.reset();
          say("Your password is changed. Your other devices were signed out.");
        }}
        place={(problem) =>
          problem.code === "INVALID_CREDENTIALS" ? { currentPassword: "That is not your current password." } : undefined
        }
      >
        <input type="text" name="username" autoComplete="username" defaultValue={user.email} hidden readOnly />
        <Field
          name="currentPassword"
          label="Current password"
          type="password"
          autoComplete="current-password"
          missing="Enter your current password."
        />
        <Field
          name="newPassword"
          label="New password"
          type="password"
          autoComplete="new-password"
          hint={PASSWORD_HINT}
          missing="Choose a new password."
        />
      </Form>
      {user.identities.length > 0 && (
        <p className="muted">
          You only ever signed in elsewhere and have no password?{" "}
          <ConfirmButton
            kind="quiet"
            title="Set a password by mail?"
            explanation={`We send a link to ${user.email}. Setting the password signs you out everywhere.`}
            confirm="Send the link"
            action={async () => {
              await auth.call("POST", "/api/auth/password/forgot", { email: user.email });
              say("The link is on its way to you.");
            }}
          >
            Set one by mail
          </ConfirmButton>
        </p>
      )}
    </Card>
  );
}
