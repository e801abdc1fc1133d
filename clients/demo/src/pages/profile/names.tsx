import { useAuth } from "gatepost-client/react";
import { useAnnounce } from "../../ui/announcer";
import { Field, Form } from "../../ui/form";
import { Card } from "../../ui/page";
import { Person } from "../../ui/person";
import { Time } from "../../ui/time";

export function Names() {
  const { auth, user } = useAuth();
  const say = useAnnounce();
  if (!user) return null;
  return (
    <Card title="You">
      <div className="who">
        <Person user={user} />
        <div>
          <p className="who-name">{user.name ?? user.email}</p>
          <p className="muted">
            Here since <Time at={user.createdAt} plain="day" />
          </p>
        </div>
      </div>
      <Form
        key={user.id}
        submit="Save"
        onSubmit={async ({ firstName, lastName, picture }) => {
          const changes = { firstName: firstName || null, lastName: lastName || null, picture: picture || null };
          await auth.call("PATCH", "/api/users/profile", changes);
          await auth.user();
          say("Your profile is saved.");
        }}
      >
        <div className="pair">
          <Field
            name="firstName"
            label="First name"
            autoComplete="given-name"
            defaultValue={user.firstName}
            maxLength={100}
            optional
          />
          <Field
            name="lastName"
            label="Last name"
            autoComplete="family-name"
            defaultValue={user.lastName}
            maxLength={100}
            optional
          />
        </div>
        <Field
          name="picture"
          label="Picture"
          type="url"
          autoComplete="photo"
          defaultValue={user.picture}
          maxLength={2048}
          hint="The https address of an image. Without one we show your initials."
          optional
        />
      </Form>
    </Card>
  );
}
