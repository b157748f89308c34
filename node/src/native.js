// The addon's surface, as `bindings/node` offers it. Nothing here is public.
import { createRequire } from "node:module";
export const native = createRequire(import.meta.url)("../arcp.node");
native.attach();
