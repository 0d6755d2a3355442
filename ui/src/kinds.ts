// The kinds that pages know, their paths, and what the server has besides.
import { get } from "./api";
import { kept, store } from "./store";

// namespace that lists are limited to; "" is all.
export const namespace = kept("skiff.namespace", "");

export interface Kind { group: string; version: string; plural: string; kind: string; namespaced: boolean; verbs: string[]; short: string[] }

export const base = (group: string, version: string) => (group ? `/apis/${group}/${version}` : `/api/${version}`);

export const PATHS: Record<string, [string, string, string]> = {
  Pod: ["", "v1", "pods"], Node: ["", "v1", "nodes"], Service: ["", "v1", "services"], Event: ["", "v1", "events"], Namespace: ["", "v1", "namespaces"],
  Deployment: ["apps", "v1", "deployments"], StatefulSet: ["apps", "v1", "statefulsets"], DaemonSet: ["apps", "v1", "daemonsets"],
  ReplicaSet: ["apps", "v1", "replicasets"], ControllerRevision: ["apps", "v1", "controllerrevisions"], ReplicationController: ["", "v1", "replicationcontrollers"],
  Job: ["batch", "v1", "jobs"], CronJob: ["batch", "v1", "cronjobs"], EndpointSlice: ["discovery.k8s.io", "v1", "endpointslices"],
};

// KEEPERS are the kinds that keep pods, each with a page.
export const KEEPERS = new Set(["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"]);

export function listPath(kind: string, ns?: string): string {
  const [group, version, plural] = PATHS[kind];
  return base(group, version) + (ns ? `/namespaces/${ns}` : "") + "/" + plural;
}

export const objectPath = (kind: string, ns: string | undefined, name: string) => `${listPath(kind, ns)}/${encodeURIComponent(name)}`;

// selecting is the part of a list's address that limits it to what a label selector selects.
export function selecting(s: { matchLabels?: Record<string, string>; matchExpressions?: { key: string; operator: string; values?: string[] }[] }): string {
  const said = { In: "in", NotIn: "notin" } as Record<string, string>;
  const terms = Object.entries(s.matchLabels ?? {}).map(([k, v]) => `${k}=${v}`)
    .concat((s.matchExpressions ?? []).map((e) => (e.operator === "Exists" ? e.key : e.operator === "DoesNotExist" ? "!" + e.key : `${e.key} ${said[e.operator]} (${(e.values ?? []).join(",")})`)));
  return "labelSelector=" + encodeURIComponent(terms.join(","));
}

// pathOf any object that the API shows.
export function pathOf(k: Kind, ns?: string, name?: string): string {
  return base(k.group, k.version) + (k.namespaced && ns ? `/namespaces/${ns}` : "") + "/" + k.plural + (name ? "/" + encodeURIComponent(name) : "");
}

// kinds that the server serves, sorted; empty until they are known.
export const kinds = store<Kind[]>([]);

export async function discover() {
  const groups = await get("/apis");
  const versions: [string, string][] = [["", "v1"], ...groups.groups.map((g: any) => [g.name, g.preferredVersion.version])];
  const lists = await Promise.all(versions.map(([g, v]) => get(base(g, v)).then((l) => ofList(g, v, l)).catch(() => [])));
  kinds.set(lists.flat().sort((a, b) => a.group.localeCompare(b.group) || a.plural.localeCompare(b.plural)));
}

function ofList(group: string, version: string, list: any): Kind[] {
  return list.resources
    .filter((r: any) => !r.name.includes("/") && r.verbs.includes("list"))
    .map((r: any) => ({ group, version, plural: r.name, kind: r.kind, namespaced: r.namespaced, verbs: r.verbs, short: r.shortNames ?? [] }));
}

export const kindOf = (name: string, group?: string) => kinds.get().find((k) => k.kind === name && (group === undefined || k.group === group));
