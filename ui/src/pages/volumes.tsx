import { kinds } from "../kinds";
import { useStore } from "../store";
import { ServerTable } from "./resources";

const SECTIONS: [string, string, string, string][] = [
  ["Claims", "", "persistentvolumeclaims", "No claims."], ["Volumes", "", "persistentvolumes", "No volumes."], ["Storage classes", "storage.k8s.io", "storageclasses", "No storage classes."],
];

export function Volumes() {
  const all = useStore(kinds);
  return (
    <>
      <h1>Volumes</h1>
      {SECTIONS.map(([title, group, plural, empty]) => {
        const k = all.find((x) => x.group === group && x.plural === plural);
        return <section><h2>{title}</h2>{k ? <ServerTable group={group} version={k.version} plural={plural} namespaced={k.namespaced} empty={empty} short /> : <p class="quiet">{all.length ? "This server does not serve them." : "Loading…"}</p>}</section>;
      })}
    </>
  );
}
