import { Link } from "react-router";
import { Page } from "../ui/page";

export function NotFound() {
  return (
    <Page title="There is nothing here" lead="The address is wrong, or what was here has moved.">
      <p>
        <Link to="/" className="button button-primary">
          Go to the start
        </Link>
      </p>
    </Page>
  );
}

export function NotAllowed() {
  return (
    <Page title="This is not for you" lead="Your account does not have the permission to see this page.">
      <p>
        <Link to="/profile" className="button button-primary">
          Go to your profile
        </Link>
      </p>
    </Page>
  );
}
