// Any object as YAML: looked at, edited, checked by the server before it is saved.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, request, session } from "./api";
import { Action, Fault, say } from "./parts";
import type { Editor } from "./editor";

const MEDIA = "application/yaml";

// What was changed and not saved, by path, so that it is still there when one comes back to the page; with what it was made of. It is gone when its author has signed out.
const drafts = new Map<string, { was: string; text: string }>();
export const dropDrafts = () => drafts.clear();

export function Yaml({ path, deletable, deleted }: { path: string; deletable?: string; deleted?: () => void }) {
  const box = useRef<HTMLDivElement>(null), editor = useRef<Editor>(), was = useRef("");
  const [error, setError] = useState<ApiError>(), [dirty, setDirty] = useState(false), [good, setGood] = useState(false);
  const load = async () => {
    const text = withoutManagedFields(await (await request("GET", path, { accept: MEDIA })).text());
    was.current = text;
    setError(undefined);
    setDirty(false);
    setGood(false);
    return text;
  };
  const put = async (dry: boolean) => {
    setGood(false);
    try {
      await request("PUT", `${path}?fieldValidation=Strict${dry ? "&dryRun=All" : ""}`, { type: MEDIA, body: editor.current!.text() });
      editor.current!.mark([]);
      setError(undefined);
      setGood(dry);
      if (!dry) {
        say("Saved");
        editor.current!.set(await load());
      }
    } catch (e) {
      if (!(e instanceof ApiError)) throw e;
      setError(e);
      editor.current!.mark(linesOf(editor.current!.text(), e));
    }
  };
  useEffect(() => {
    let gone = false;
    const draft = drafts.get(path), author = session.get()?.user;
    const begin = draft ? (was.current = draft.was, setDirty(true), Promise.resolve(draft.text)) : load();
    const changed = () => { setDirty(editor.current!.text() !== was.current); setGood(false); };
    Promise.all([import("./editor"), begin]).then(([{ edit }, text]) => {
      if (!gone) editor.current = edit(box.current!, text, changed, () => void put(true));
    }).catch((e) => gone || setError(e));
    return () => {
      gone = true;
      drafts.delete(path);
      const text = editor.current?.text();
      if (text !== undefined && text !== was.current && session.get()?.user === author) drafts.set(path, { was: was.current, text });
      editor.current?.destroy();
      editor.current = undefined;
    };
  }, [path]);
  useEffect(() => {
    if (!dirty) return;
    const warn = (e: BeforeUnloadEvent) => e.preventDefault();
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [dirty]);
  return (
    <section class="yaml">
      <div class="tools">
        <Action label="Check" title="Let the server validate this, without saving (Ctrl-S)" disabled={!dirty} run={() => put(true)} />
        <Action label="Save" disabled={!dirty} run={() => put(false)} />
        <Action label={dirty ? "Revert" : "Reload"} run={async () => editor.current?.set(await load())} />
        {deletable && <Action label="Delete" danger ask={`Delete ${deletable}?`} run={async () => { await request("DELETE", path); deleted?.(); }} done="Being deleted" />}
        {good && <span class="fine" role="status">The server would take this.</span>}
        {dirty && !good && !error && <span class="quiet">changed, not saved</span>}
      </div>
      {error && <Fault error={error} />}
      {error?.code === 409 && <p class="quiet">Somebody has changed it meanwhile. Reload, and make your change again.</p>}
      <div class="editor" ref={box} />
    </section>
  );
}

// withoutManagedFields leaves out what machines keep about each other. A PUT without them keeps them.
export function withoutManagedFields(text: string): string {
  const out: string[] = [];
  let inside = false;
  for (const line of text.split("\n")) {
    if (line === "  managedFields:") inside = true;
    else if (inside && /^ {0,2}[^ -]/.test(line)) inside = false;
    if (!inside) out.push(line);
  }
  return out.join("\n");
}

// linesOf finds the lines that the errors are about: of "spec.containers[0].image", the line of image below that of containers below that of spec.
function linesOf(text: string, e: ApiError): number[] {
  const fields = e.causes.map((c) => c.field ?? "").concat([...e.message.matchAll(/unknown field "([^"]+)"/g)].map((m) => m[1]));
  const all = text.split("\n");
  const found = fields.filter(Boolean).map((field) => {
    let at = 0, hit = 0;
    for (const part of field.split(/[.[\]]+/).filter((p) => p && !/^\d+$/.test(p))) {
      const next = all.findIndex((l, i) => i >= at && new RegExp(`^[\\s-]*"?${part.replace(/[^\w-]/g, "\\$&")}"?:`).test(l));
      if (next < 0) break;
      hit = next + 1;
      at = next + 1;
    }
    return hit;
  });
  const yamlLine = /line (\d+)/.exec(e.message);
  return yamlLine ? [...found, Number(yamlLine[1])] : found;
}
