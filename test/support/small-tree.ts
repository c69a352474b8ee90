/** A tree small enough to write down what each request for a part of it must bring. */
import { SpecWriter, type TreeSpec } from './tree.ts'

export const SMALL_TREE_PATHS = [
  '-dash',
  '.hidden',
  'a.txt',
  'ab.txt',
  'b.txt',
  'br[a]ck',
  'dir',
  'dir/.rsync-filter',
  'dir/one',
  'dir/sub',
  'dir/sub/deep',
  'dir/sub/deep/bottom',
  'dir/sub/three',
  'dir/two',
  'dir2',
  'dir2/one',
  'empty',
  'link',
  'link-to-dir',
  'sp ace',
  'sp ace/in side',
  'star*',
  'x.o',
]

export function smallTree(): TreeSpec {
  const tree = new SpecWriter()
  const text = (path: string): Buffer => Buffer.from(`content of ${path}\n`)
  tree.directory('')
  for (const path of ['dir', 'dir/sub', 'dir/sub/deep', 'dir2', 'empty', 'sp ace']) tree.directory(path)
  tree.symlink('link', 'a.txt')
  tree.symlink('link-to-dir', 'dir2')
  tree.file('dir/.rsync-filter', Buffer.from('- two\n'))
  const made = tree.spec as ReadonlyMap<string, unknown>
  for (const path of SMALL_TREE_PATHS) if (!made.has(path)) tree.file(path, text(path))
  return tree.spec
}

/** The paths of the tree that are `directory` or beneath it, relative to its parent. */
export function withParent(directory: string): string[] {
  const above = directory.lastIndexOf('/') + 1
  return SMALL_TREE_PATHS.filter((path) => path === directory || path.startsWith(`${directory}/`)).map(
    (path) => path.slice(above),
  )
}

/** The paths beneath `directory`, relative to it. */
export function inside(directory: string): string[] {
  return SMALL_TREE_PATHS.filter((path) => path.startsWith(`${directory}/`)).map((path) =>
    path.slice(directory.length + 1),
  )
}
