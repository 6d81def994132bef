/**
 * Make an element. Text is only ever set as text: nothing from an event becomes markup.
 *
 * `fields` are properties of the element, but for `data` (its dataset) and `aria` (attributes).
 */
export function make(tag, { data = {}, aria = {}, ...fields } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), fields);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** One of the page's icons. It says nothing to a screen reader. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Set a text only where it changed, so that selections and screen readers are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const $ = (id) => document.getElementById(id);
