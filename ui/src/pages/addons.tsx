import { kinds } from "../kinds";
import { useStore } from "../store";
import { ServerTable } from "./resources";

export function Addons() {
  const all = useStore(kinds), k = all.find((x) => x.kind === "Addon");
  return (
    <>
      <h1>Add-ons</h1>
      {k ? <ServerTable group={k.group} version={k.version} plural={k.plural} namespaced={k.namespaced} empty="No add-ons." /> : <p class="quiet">{all.length ? "This server does not manage add-ons: it serves no kind Addon." : "Loading…"}</p>}
    </>
  );
}
