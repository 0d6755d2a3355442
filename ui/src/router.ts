// Pages are named in the address's fragment, so that a link to one can be kept and the server need not know them.
import { store } from "./store";

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // an address typed by hand
  }
}

const parse = () => location.hash.replace(/^#\/?/, "").split("/").map(decoded);

export const route = store(parse());
addEventListener("hashchange", () => route.set(parse()));

export const link = (...parts: string[]) => "#/" + parts.map(encodeURIComponent).join("/");
export const go = (...parts: string[]) => void (location.hash = link(...parts));
