// Pages are named in the address's fragment, so that a link to one can be kept and the server need not know them.
import { store } from "./store";

const parse = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);

export const route = store(parse());
addEventListener("hashchange", () => route.set(parse()));

export const link = (...parts: string[]) => "#/" + parts.map(encodeURIComponent).join("/");
export const go = (...parts: string[]) => void (location.hash = link(...parts));
