import { useAuth } from "gatepost-client/react";
import { useLoad } from "../../service/hooks";
import type { Statistics } from "../../service/types";

/** The roles that there must be. */
const ALWAYS = ["user", "moderator", "admin"];

/** The roles that an account can have. An operator may have added some: the statistics know, for those who may see them. */
export function useRoles(): string[] {
  const { auth, user } = useAuth();
  const may = user?.permissions.includes("stats:read") ?? false;
  const { data } = useLoad(`roles ${may}`, async (signal) => {
    if (!may) return ALWAYS;
    return Object.keys((await auth.call<Statistics>("GET", "/api/admin/stats", undefined, { signal })).roles);
  });
  return data ?? ALWAYS;
}
