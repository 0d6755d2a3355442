import { age } from "./format";
import { KEEPERS, listPath } from "./kinds";
import { Dot, Loaded } from "./parts";
import { link } from "./router";
import { useNow } from "./store";
import { Obj, useFeed } from "./watch";

export const eventTime = (e: Obj) => e.series?.lastObservedTime || e.lastTimestamp || e.eventTime || e.metadata.creationTimestamp;

export function Events({ uid, ns }: { uid: string; ns: string }) {
  const feed = useFeed(listPath("Event", ns || "default"), `fieldSelector=involvedObject.uid%3D${uid}`);
  return <Loaded feed={feed}><EventList events={feed.list} /></Loaded>;
}

// About names what an event is of, and leads there if it has a page of its own.
function About({ of: o }: { of: any }) {
  const name = `${o.kind} ${o.namespace ? `${o.namespace}/` : ""}${o.name}`;
  const page = o.kind === "Node" ? ["node", o.name] : o.kind === "Pod" || o.kind === "Service" ? [o.kind.toLowerCase(), o.namespace, o.name] : KEEPERS.has(o.kind) ? ["workload", o.kind, o.namespace, o.name] : [];
  return <span class="about"> {page.length ? <a href={link(...page)}>{name}</a> : name}</span>;
}

export function EventList({ events, about }: { events: Obj[]; about?: boolean }) {
  const now = useNow();
  const sorted = [...events].sort((a, b) => Date.parse(eventTime(b)) - Date.parse(eventTime(a)));
  if (!sorted.length) return <p class="quiet">No events.</p>;
  return (
    <ul class="events">{sorted.slice(0, 200).map((e) => (
      <li key={e.metadata.uid}>
        <time title={eventTime(e)}>{age(eventTime(e), now)}</time>
        <Dot tone={e.type === "Warning" ? "bad" : "idle"} />
        <div><b>{e.reason}</b>{about && <About of={e.involvedObject} />}{e.count > 1 && <small> ×{e.count}</small>}<p>{e.message}</p></div>
      </li>
    ))}</ul>
  );
}
