/** The little that a page of lists needs: making elements, and changing only what is another. */

/**
 * Makes an element. Properties are set as they are; `class`, `role`, `aria-*` and `data-*` as attributes.
 * Text from outside becomes text, never markup.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (/^(class|role|scope|for|colspan|lang|aria-.*|data-.*)$/.test(name))
      element.setAttribute(name, value)
    else element[name] = value
  }
  element.append(...children.filter((child) => child !== undefined))
  return element
}

export function find(id) {
  return document.getElementById(id)
}

/** Sets the text of an element. What is the same already is left alone, so that nobody's selection is lost. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text
}

export function attribute(element, name, value) {
  if (value === undefined) element.removeAttribute(name)
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value)
}

/**
 * Makes the children of a list those of `items`, in their order: each is made once, and from then on updated. So
 * focus stays where it is.
 */
export function keep(list, items, keyOf, create, update) {
  list.kept ??= new Map()
  const seen = new Set()
  let place = list.firstElementChild
  for (const item of items) {
    const key = keyOf(item)
    seen.add(key)
    let child = list.kept.get(key)
    if (!child) {
      child = create(item)
      list.kept.set(key, child)
    }
    if (child === place) place = place.nextElementSibling
    else list.insertBefore(child, place)
    update(child, item)
  }
  for (const [key, child] of list.kept) {
    if (seen.has(key)) continue
    child.remove()
    list.kept.delete(key)
  }
}

/** A bar that screen readers can read. `share` from 0 to 1; null when nobody knows. */
export function progressBar(label) {
  const fill = make('span')
  const bar = make(
    'div',
    { class: 'bar', role: 'progressbar', 'aria-valuemin': '0', 'aria-valuemax': '100' },
    fill,
  )
  bar.show = (share, name = label) => {
    attribute(bar, 'aria-label', name)
    bar.classList.toggle('unknown', share === null)
    attribute(bar, 'aria-valuenow', share === null ? undefined : String(Math.round(share * 100)))
    fill.style.width = share === null ? '' : `${Math.min(100, share * 100)}%`
  }
  return bar
}
