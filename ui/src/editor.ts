// The editor for YAML, loaded when somebody looks at an object as YAML.
import { nonce } from "./csp";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, bracketMatching, codeFolding, foldGutter, foldKeymap, indentOnInput, syntaxHighlighting } from "@codemirror/language";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { EditorState, StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, drawSelection, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

const colours = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent)" }, { tag: tags.string, color: "var(--ink)" },
  { tag: tags.comment, color: "var(--quiet)", fontStyle: "italic" }, { tag: [tags.number, tags.bool, tags.null, tags.keyword], color: "var(--plot2)" },
]);

// A browser that types over a selection by itself gives what it joins inline styles, which the page's policy forbids; so the editor does it.
const typeOver = EditorView.domEventHandlers({
  beforeinput(e, view) {
    if (e.inputType !== "insertText" || e.data === null || view.composing || view.state.selection.main.empty) return false;
    view.dispatch(view.state.replaceSelection(e.data), { userEvent: "input.type", scrollIntoView: true });
    return true;
  },
});

const wrong = StateEffect.define<number[]>();
const wrongLines = StateField.define({
  create: () => Decoration.none,
  update(set, tr) {
    set = set.map(tr.changes);
    for (const e of tr.effects) {
      if (e.is(wrong)) set = Decoration.set(e.value.map((n) => Decoration.line({ class: "cm-wrong" }).range(tr.state.doc.line(n).from)));
    }
    return set;
  },
  provide: (f) => EditorView.decorations.from(f),
});

export interface Editor { text(): string; set(text: string): void; mark(lines: number[]): void; destroy(): void }

export function edit(parent: HTMLElement, text: string, changed: () => void, check: () => void): Editor {
  const extensions = [
    EditorView.cspNonce.of(nonce), lineNumbers(), foldGutter(), codeFolding(), history(), drawSelection(), indentOnInput(), bracketMatching(), highlightActiveLine(),
    highlightSelectionMatches(), search({ top: true }), yaml(), typeOver, syntaxHighlighting(colours), wrongLines, EditorView.contentAttributes.of({ "aria-label": "YAML" }),
    keymap.of([{ key: "Mod-s", run: () => (check(), true) }, ...defaultKeymap, ...historyKeymap, ...searchKeymap, ...foldKeymap, indentWithTab]),
    EditorView.updateListener.of((u) => u.docChanged && changed()),
  ];
  const view = new EditorView({ parent, state: EditorState.create({ doc: text, extensions }) });
  return {
    text: () => view.state.doc.toString(),
    set: (t) => view.setState(EditorState.create({ doc: t, extensions })),
    mark(lines) {
      const there = [...new Set(lines)].filter((n) => n > 0 && n <= view.state.doc.lines).sort((a, b) => a - b);
      view.dispatch({ effects: [wrong.of(there), ...(there.length ? [EditorView.scrollIntoView(view.state.doc.line(there[0]).from, { y: "center" })] : [])] });
    },
    destroy: () => view.destroy(),
  };
}
