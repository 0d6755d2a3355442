// Whatever the server serves, custom resources included: as the server's own table, and as YAML.
import { useMemo, useState } from "preact/hooks";
import { ApiError, request } from "../api";
import { age } from "../format";
import { Kind, base, kinds, namespace, pathOf } from "../kinds";
import { Col, Dialog, Fault, Heading, Loaded, Table, say } from "../parts";
import { go, link } from "../router";
import { useStore } from "../store";
import { Column, Row, useRows } from "../watch";
import { Yaml } from "../yaml";

export function Resources() {
  const all = useStore(kinds), [making, setMaking] = useState(false);
  const rows = useMemo(() => all.map((k) => ({ ...k, metadata: { uid: pathOf(k), name: k.plural } })), [all]);
  const cols: Col<(typeof rows)[0]>[] = useMemo(() => [
    { name: "Resource", width: "minmax(180px, 2fr)", sort: (k) => k.plural, cell: (k) => <a href={href(k)}>{k.plural}</a> },
    { name: "Kind", width: "minmax(140px, 1.5fr)", sort: (k) => k.kind, cell: (k) => k.kind },
    { name: "Group", width: "minmax(140px, 2fr)", sort: (k) => k.group, cell: (k) => k.group || <span class="quiet">core</span> },
    { name: "Version", width: "90px", wide: true, cell: (k) => k.version },
    { name: "Short", width: "90px", wide: true, cell: (k) => k.short.join(", ") },
    { name: "Scope", width: "110px", wide: true, sort: (k) => String(k.namespaced), cell: (k) => (k.namespaced ? "namespaced" : "cluster") },
  ], []);
  return (
    <>
      <h1>All resources</h1>
      <Table rows={rows} cols={cols} open={(k) => go("list", k.group || "core", k.version, k.plural)} text={(k) => `${k.kind} ${k.group} ${k.short.join(" ")}`} tools={<button onClick={() => setMaking(true)}>Create from YAML</button>} />
      {making && <Create close={() => setMaking(false)} />}
    </>
  );
}

const href = (k: Kind) => link("list", k.group || "core", k.version, k.plural);

function Create({ close }: { close: () => void }) {
  const [text, setText] = useState(""), [error, setError] = useState<ApiError>();
  const field = (name: string, indent = "") => new RegExp(`^${indent}${name}:\\s*["']?([^\\s"'#]+)`, "m").exec(text)?.[1] ?? "";
  const make = async (dry: boolean) => {
    const [group, version] = field("apiVersion").includes("/") ? field("apiVersion").split("/") : ["", field("apiVersion")];
    const k = kinds.get().find((x) => x.kind === field("kind") && x.group === group);
    try {
      if (!k) throw new ApiError(400, "", `the server has no kind "${field("kind")}" of apiVersion "${field("apiVersion")}"`);
      const path = pathOf({ ...k, version }, field("namespace", "  ") || namespace.get() || "default");
      await request("POST", `${path}?fieldValidation=Strict${dry ? "&dryRun=All" : ""}`, { type: "application/yaml", body: text });
      setError(undefined);
      say(dry ? "The server would take this" : "Created");
      if (!dry) close();
    } catch (e) {
      setError(e as ApiError);
    }
  };
  return (
    <Dialog title="Create from YAML" close={close}>
      <textarea class="code" rows={18} spellcheck={false} aria-label="YAML" placeholder={"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: …"} value={text} onInput={(e) => setText(e.currentTarget.value)} />
      {error && <Fault error={error} />}
      <div class="buttons"><button onClick={close}>Cancel</button><button disabled={!text} onClick={() => void make(true)}>Check</button><button class="solid" disabled={!text} onClick={() => void make(false)}>Create</button></div>
    </Dialog>
  );
}

export function ResourceList({ group, version, plural }: { group: string; version: string; plural: string }) {
  const g = group === "core" ? "" : group, k = useStore(kinds).find((x) => x.group === g && x.plural === plural);
  return <><Heading kind="All resources" back="#/resources" name={k?.kind ?? plural} /><p class="quiet">{plural}{g && "." + g}/{version}</p><ServerTable group={g} version={version} plural={plural} namespaced={k?.namespaced ?? true} /></>;
}

// ServerTable shows the columns that the server prints for kubectl.
export function ServerTable(p: { group: string; version: string; plural: string; namespaced: boolean; short?: boolean; empty?: string }) {
  const ns = useStore(namespace), feed = useRows(base(p.group, p.version) + (p.namespaced && ns ? `/namespaces/${ns}` : "") + "/" + p.plural);
  const open = (r: Row) => go("object", p.group || "core", p.version, p.plural, r.metadata.namespace ?? "-", r.metadata.name);
  const cols = useMemo(() => columns(feed.columns, p.namespaced, open), [feed.columns, p.namespaced]);
  return <Loaded feed={feed}><Table rows={feed.list} cols={cols} open={open} text={(r) => r.cells.join(" ")} short={p.short} empty={p.empty} /></Loaded>;
}

function columns(defs: Column[], namespaced: boolean, open: (r: Row) => void): Col<Row>[] {
  const shown = defs.map((d, i) => ({ d, i })).filter(({ d }) => d.priority === 0);
  const cols: Col<Row>[] = shown.map(({ d, i }, n) => {
    const isAge = d.name === "Age", wide = n > 2 && !isAge;
    return {
      name: d.name, wide, width: n === 0 ? "minmax(180px, 2.5fr)" : isAge ? "56px" : "minmax(80px, 1fr)",
      sort: (r) => (isAge ? -Date.parse(r.metadata.creationTimestamp) : typeof r.cells[i] === "number" ? (r.cells[i] as number) : String(r.cells[i] ?? "")),
      cell: (r, now) => n === 0 ? <button class="linklike" onClick={() => open(r)}>{String(r.cells[i])}</button> : isAge ? age(r.metadata.creationTimestamp, now) : <span title={String(r.cells[i] ?? "")}>{String(r.cells[i] ?? "")}</span>,
    };
  });
  if (namespaced) cols.splice(1, 0, { name: "Namespace", wide: true, width: "minmax(90px, 1fr)", sort: (r) => r.metadata.namespace ?? "", cell: (r) => r.metadata.namespace });
  return cols;
}

export function ObjectPage({ group, version, plural, ns, name }: { group: string; version: string; plural: string; ns: string; name: string }) {
  const g = group === "core" ? "" : group, path = base(g, version) + (ns === "-" ? "" : `/namespaces/${ns}`) + `/${plural}/${encodeURIComponent(name)}`;
  const k = useStore(kinds).find((x) => x.group === g && x.plural === plural);
  if (!name) return <Fault error={new ApiError(404, "", "the address names no object")} />;
  return <><Heading kind={plural} back={link("list", group, version, plural)} name={name} ns={ns === "-" ? undefined : ns} /><Yaml path={path} deletable={`the ${k?.kind ?? plural} ${name}`} deleted={() => go("list", group, version, plural)} /></>;
}
