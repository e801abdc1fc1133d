import { Page } from "../../ui/page";
import { DeleteAccount } from "./delete-account";
import { EmailCard } from "./email";
import { Identities } from "./identities";
import { Names } from "./names";
import { PasswordCard } from "./password";

export function Profile() {
  return (
    <Page title="Profile">
      <Names />
      <EmailCard />
      <PasswordCard />
      <Identities />
      <DeleteAccount />
    </Page>
  );
}
