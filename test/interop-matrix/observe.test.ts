/** The judge is judged: what must count as different does, and what varies from run to run does not. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ascii } from '../../src/lib/bytes.ts'
import type { SnapshotEntry } from '../support/snapshot.ts'
import { type CellRun, compare, observe } from './observe.ts'

const FILE: SnapshotEntry = {
  type: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 1,
  mtime: 1_000,
  mtimeNsec: 5,
  linkTarget: ascii(''),
  major: 0,
  minor: 0,
  links: [],
  sha256: 'abc',
}
const STDOUT = '>f+++++++++ b\n>f+++++++++ a\nLiteral data: 5 bytes\nTotal bytes sent: 10\n'
const STDERR = 'rsync: link_stat "build-2/root/x" failed: No such file or directory (2)\n'

interface Change {
  stdout?: string
  stderr?: string
  code?: number
  entry?: Partial<SnapshotEntry>
  attributes?: string
}

function cell({ stdout = STDOUT, stderr = STDERR, code = 0, entry = {}, attributes = '' }: Change): CellRun {
  const run = { command: '', code, signal: null, stdout, stderr, milliseconds: 0 }
  return {
    runs: [run],
    tree: new Map([[ascii('f'), { ...FILE, ...entry }]]),
    attributes,
    began: 5_000,
    ended: 5_001,
  }
}

// biome-ignore format: a table
const CASES: readonly { name: string; change: Change; aspects: readonly string[] }[] = [
  { name: 'the same', change: {}, aspects: [] },
  { name: 'exit code', change: { code: 23 }, aspects: ['exit'] },
  { name: 'mode', change: { entry: { mode: 0o600 } }, aspects: ['tree'] },
  { name: 'nanoseconds', change: { entry: { mtimeNsec: 6 } }, aspects: ['tree'] },
  { name: 'content', change: { entry: { sha256: 'abd' } }, aspects: ['tree'] },
  { name: 'made now instead of then', change: { entry: { mtime: 5_000 } }, aspects: ['tree'] },
  { name: 'attributes', change: { attributes: 'user.a' }, aspects: ['attributes', 'attributes'] },
  { name: 'an item more', change: { stdout: `${STDOUT}>f+++++++++ c\n` }, aspects: ['items'] },
  { name: 'an item twice', change: { stdout: `${STDOUT}>f+++++++++ a\n` }, aspects: ['items'] },
  { name: 'another order', change: { stdout: STDOUT.replace('b\n>f+++++++++ a', 'a\n>f+++++++++ b') }, aspects: ['order'] },
  { name: 'literal data', change: { stdout: STDOUT.replace('5 bytes', '6 bytes') }, aspects: ['stats'] },
  { name: 'statistics on stderr', change: { stdout: STDOUT.replace('Literal data: 5 bytes\n', ''), stderr: `${STDERR}Literal data: 5 bytes\n` }, aspects: [] },
  { name: 'bytes sent', change: { stdout: STDOUT.replace('sent: 10', 'sent: 11') }, aspects: [] },
  { name: 'a complaint about another path', change: { stderr: STDERR.replace('root/x', 'root/y') }, aspects: ['complaints', 'complaints'] },
  { name: 'no complaint', change: { stderr: '' }, aspects: ['complaints'] },
  { name: 'the complaint in other words', change: { stderr: 'rsync: [sender] link_stat "/root/x" (in build-2) failed: No such file or directory (2)\n' }, aspects: [] },
]

for (const { name, change, aspects } of CASES) {
  test(`compared: ${name}`, () => {
    const found = compare(observe(cell(change)), observe(cell({})), { comparesOrder: true })
    assert.deepEqual(
      found.map(({ aspect }) => aspect),
      aspects,
    )
  })
}

test('made now by both, a second apart', () => {
  const found = compare(
    observe(cell({ entry: { mtime: 5_000 } })),
    observe(cell({ entry: { mtime: 5_001, mtimeNsec: 1 } })),
    {
      comparesOrder: false,
    },
  )
  assert.deepEqual(found, [])
})
