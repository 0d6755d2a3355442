// The page's policy allows no inline styles, but the terminal makes style elements and style attributes at run time. The elements get the page's nonce;
// attributes are set through the object model, which the policy leaves to scripts. Loaded with the terminal and the editor only.
export const nonce = document.querySelector<HTMLScriptElement>("script[nonce]")?.nonce ?? "";

const createElement = document.createElement.bind(document);
document.createElement = ((name: string, options?: ElementCreationOptions) => {
  const el = createElement(name, options);
  if (el instanceof HTMLStyleElement) el.nonce = nonce;
  return el;
}) as typeof document.createElement;

const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name: string, value: string) {
  if (name === "style" && this instanceof HTMLElement) this.style.cssText = value;
  else setAttribute.call(this, name, value);
};
