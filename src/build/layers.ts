/**
 * An image's layers as one tree. Each layer was read into a directory of its own; here they are laid on each
 * other as overlayfs would: what an upper one has takes the place of what a lower one has, `.wh.NAME` takes
 * NAME of the lower ones away, and `.wh..wh..opq` all that lower ones have in that directory. Pure.
 */
import { type ByteString, utf8Bytes } from '../lib/bytes.ts'
import { isDirectoryMode } from '../lib/file-mode.ts'
import type { TreeEntry } from '../store/manifest.ts'

const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'

/** Directory of a layer; what is in it becomes the tree. */
export function layerDirectory(number: number): ByteString {
  return utf8Bytes(`layer-${number}`)
}

interface Node {
  /** The entry that describes it. */
  entry: number
  children: Map<ByteString, Node>
}

/**
 * The entries of the tree, parents before their children. `sameAs` and `blob` stay what they were.
 * @param isImplied a directory that its layer did not describe: a lower one's description holds.
 * @returns numbers of entries, and of the parent of each in the result.
 */
export function mergeLayers(
  entries: readonly TreeEntry[],
  count: number,
  isImplied: (entry: number) => boolean,
): { entry: number; parent: number; name: ByteString }[] {
  const children: number[][] = entries.map(() => [])
  for (let i = 1; i < entries.length; i++) children[entries[i]!.parent]!.push(i)
  const root: Node = { entry: 0, children: new Map() }
  for (let layer = 0; layer < count; layer++) {
    const name = layerDirectory(layer)
    const top = children[0]!.find((i) => entries[i]!.name === name)
    if (top !== undefined) lay(root, top)
  }
  const merged: { entry: number; parent: number; name: ByteString }[] = [
    { entry: root.entry, parent: 0, name: '' as ByteString },
  ]
  const todo: { node: Node; place: number }[] = [{ node: root, place: 0 }]
  for (let next = todo.pop(); next; next = todo.pop()) {
    for (const [name, node] of next.node.children) {
      merged.push({ entry: node.entry, parent: next.place, name })
      if (node.children.size > 0) todo.push({ node, place: merged.length - 1 })
    }
  }
  return merged

  function lay(bottom: Node, directory: number): void {
    const todo: [Node, number][] = [[bottom, directory]]
    for (let next = todo.pop(); next; next = todo.pop()) {
      const [node, upper] = next
      if (!isImplied(upper) || isImplied(node.entry) || node.entry === 0) node.entry = upper
      const own = children[upper]!
      // First what goes, wherever it stands in its layer; what the layer itself has stays.
      if (own.some((i) => entries[i]!.name === OPAQUE)) node.children.clear()
      for (const i of own) {
        const { name } = entries[i]!
        if (name.startsWith(WHITEOUT)) node.children.delete(name.slice(WHITEOUT.length) as ByteString)
      }
      for (const i of own) {
        const { name, mode } = entries[i]!
        if (name.startsWith(WHITEOUT)) continue
        const below = node.children.get(name)
        const merges =
          below !== undefined && isDirectoryMode(mode) && isDirectoryMode(entries[below.entry]!.mode)
        const child = merges ? below : { entry: i, children: new Map<ByteString, Node>() }
        node.children.set(name, child)
        if (isDirectoryMode(mode)) todo.push([child, i])
      }
    }
  }
}
