/**
 * What the cells of the matrix sync: the two builds of test/support/tree.ts, which have every kind of
 * entry and of change, and beside them what single options are about: filter files, names alike, clocks
 * that disagree, extended attributes.
 *
 * Some entries of those two are left out: each cell copies the first build twice, and paths of 3,000
 * bytes leave no room for the directories that options such as --backup-dir put before them.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import {
  firstBuild,
  randomBytes,
  repetitiveText,
  SpecWriter,
  secondBuild,
  splice,
  type TreeSpec,
} from '../support/tree.ts'

/** As the default of test/support/tree.ts. */
const THEN = 1_195_776_000
const LATER = THEN + 86_400

/** `1` is what devices have, `2` what they ask for. */
export function matrixBuilds(): { 1: TreeSpec; 2: TreeSpec } {
  const everything = firstBuild()
  const first = new SpecWriter(everything)
  const second = new SpecWriter(secondBuild(everything))
  for (const tree of [first, second]) {
    tree.remove('data/five-megabytes')
    for (const name of ['directory-to-file', 'directory-to-symlink']) {
      // Only --force and --delete replace a directory that is not empty: that would end each cell with 23.
      if (tree === first) tree.remove(`types/${name}/content`)
    }
    tree.remove(`dirs/${'a'.repeat(246)}`)
    addFilterFiles(tree)
  }
  addDeltas(first, second)
  addClocks(first, second)
  addAlike(first, second)
  addLists(second)
  return { 1: first.spec, 2: second.spec }
}

function addFilterFiles(tree: SpecWriter): void {
  for (const directory of ['filters', 'filters/sub', 'filters/sub/deep', 'filters/other'])
    tree.directory(directory)
  tree.file('filters/.rsync-filter', Buffer.from('# for -F\n- *.tmp\n+ kept.o\n'))
  tree.file('filters/sub/.rsync-filter', Buffer.from('+ *.tmp\n- /anchored\n'))
  tree.file('filters/other/.rsync-filter', Buffer.from('!\n- *.c\n'))
  tree.file('filters/.cvsignore', Buffer.from('*.log core\n'))
  for (const directory of ['filters', 'filters/sub', 'filters/sub/deep', 'filters/other']) {
    for (const name of [
      'a.c',
      'a.o',
      'kept.o',
      'a.tmp',
      'a.log',
      'a.bak',
      'core',
      'anchored',
      '[x]',
      'x',
      'Ab',
    ]) {
      tree.file(`${directory}/${name}`, Buffer.from(`${directory}/${name}\n`))
    }
  }
}

/** Lengths around the edges of blocks and of the counts of them, and each kind of edit. */
function addDeltas(first: SpecWriter, second: SpecWriter): void {
  for (const tree of [first, second]) tree.directory('delta')
  for (const size of [699, 1_399, 1_400, 1_401, 32_768, 32_769, 490_000, 490_001]) {
    const content = randomBytes(size, size)
    const middle = Math.floor(size / 2)
    first.file(`delta/middle-${size}`, content)
    second.file(`delta/middle-${size}`, splice(content, middle, 3, Buffer.from('???')), { mtime: LATER })
  }
  const large = randomBytes(50, 700_000)
  const edits = {
    appended: Buffer.concat([large, randomBytes(51, 4_321)]),
    truncated: large.subarray(0, 444_444),
    'other-start': splice(large, 0, 1_000, randomBytes(52, 500)),
    'moved-halves': Buffer.concat([large.subarray(350_000), large.subarray(0, 350_000)]),
    unlike: randomBytes(53, 20_000),
  }
  for (const [name, content] of Object.entries(edits)) {
    first.file(`delta/${name}`, name === 'unlike' ? randomBytes(54, 20_000) : large)
    second.file(`delta/${name}`, content, { mtime: LATER })
  }
}

/** The same content at other times, and files of the device that are newer than the build's. */
function addClocks(first: SpecWriter, second: SpecWriter): void {
  for (const tree of [first, second]) tree.directory('clocks')
  const file = (name: string, mine: number, theirs: number, content = `${name}\n`): void => {
    first.file(`clocks/${name}`, Buffer.from(`${name}\n`), { mtime: mine })
    second.file(`clocks/${name}`, Buffer.from(content), { mtime: theirs })
  }
  file('one-second-later', THEN, THEN + 1)
  file('two-seconds-later', THEN, THEN + 2)
  file('half-a-second-later', THEN, THEN + 0.5)
  file('much-later', THEN, LATER)
  file('earlier', LATER, THEN)
  file('earlier-and-other', LATER, THEN, 'other content\n')
  file('one-second-later-and-other', THEN, THEN + 1, 'one-second-LATER\n')
}

/** For --fuzzy: files that are new under their names, beside files that are like them. */
function addAlike(first: SpecWriter, second: SpecWriter): void {
  const program = randomBytes(60, 150_000)
  for (const tree of [first, second]) tree.directory('alike')
  first.file('alike/program-1.0.bin', program)
  second.file('alike/program-1.1.bin', splice(program, 70_000, 100, randomBytes(61, 100)), { mtime: LATER })
  first.file('alike/notes.txt', repetitiveText(500))
  second.file('alike/renamed.txt', repetitiveText(500)) // same size and time: taken whatever its name
}

/** For --files-from with a list on the server. */
function addLists(second: SpecWriter): void {
  second.file(
    'list',
    Buffer.from('data/small\ndata/added\nhard/sub\nnames/with space\n# comment\n\nlinks/added\n'),
  )
  second.file('list0', Buffer.from('data/small\0names/new\nline\0'))
}

/** Gives a build on disk what only the system's own tools can: attributes, ACLs, capabilities. */
export function decorate(id: string, root: string): void {
  const set = (name: string, value: string, path: string): void => {
    execFileSync('setfattr', ['-h', '-n', name, '-v', value, join(root, path)])
  }
  set('user.same', 'in both builds', 'data/small')
  set('user.build', id, 'data/text')
  set('user.empty', '', 'data/empty')
  set('user.binary', `0x${'00ff0a'.repeat(20)}`, 'data/random')
  set('user.large', id.repeat(1_000), 'data/zeros') // more than rsync sends at once: it asks for it later
  set('user.large', 'x'.repeat(1_000), 'data/block-sized')
  set('user.shared', 'by all names', 'hard/original')
  set('user.directory', 'of a directory', 'dirs')
  set('trusted.only-root', 'sees this', 'links/relative')
  set('security.capability', '0x0100000200200000000000000000000000000000', 'modes/0755')
  if (id === '1') set('user.goes', 'in build 2', 'data/one-byte')
  execFileSync('setfacl', ['-m', `u:1:rwx,g:54322:r--,u:${id}000:r--`, join(root, 'data/text')])
  execFileSync('setfacl', ['-m', 'u:1:r-x', '-d', '-m', 'g:2:rwx', join(root, 'dirs/empty')])
  if (id === '1') execFileSync('setfacl', ['-m', 'u:3:r', join(root, 'data/small')])
}

/** What the matrix cannot do without, and this machine lacks. */
export function missingTools(): string[] {
  const tools = ['setfattr', 'getfattr', 'setfacl', 'getfacl']
  return tools.filter((tool) => spawnSync(tool, ['--version']).error !== undefined)
}
