export { createAuth } from "./auth.js";
export { NetworkError, Problem } from "./problem.js";
export type { Code, FieldError } from "./problem.js";
export { returnTo } from "./return-to.js";
export type * from "./types.js";
