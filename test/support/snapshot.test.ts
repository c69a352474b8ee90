/** A comparison that cannot fail would make every interop test worthless: each kind of change is noticed. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { makeScratch, skipUnlessRoot } from './scratch.ts'
import { assertSameTree, carriedBy, differences, snapshot, type Tolerance } from './snapshot.ts'
import { firstBuild, makeTree, secondBuild } from './tree.ts'

interface Change {
  /** A shell command, run in the tree. It must leave the times of the directory alone, or say so. */
  command: string
  expected: string[]
  tolerance?: Tolerance
  root?: true
}

const keepTime = (dir: string, command: string): string =>
  `touch -r ${dir} ../t; ${command}; touch -r ../t ${dir}`

// biome-ignore format: a table
const CHANGES: readonly Change[] = [
  { command: 'true', expected: [] },
  { command: 'chmod 0640 data/small', expected: ['data/small: mode 0640, expected 0644'] },
  { command: 'chmod u-s modes/4755', expected: ['modes/4755: mode 0755, expected 4755'] },
  { command: 'chown 7:8 data/small', expected: ['data/small: owner 7:8, expected 0:0'], root: true },
  { command: 'chown -h 7 links/dangling', expected: ['links/dangling: owner 7:0, expected 0:0'], root: true },
  { command: 'touch -d @5 data/small', expected: ['data/small: mtime 5, expected 1195776000'] },
  { command: 'touch -h -d @5 links/dangling', expected: ['links/dangling: mtime 5, expected 1195776000'] },
  { command: 'touch -d @1195776000.75 data/small', expected: ['data/small: nanoseconds 750000000, expected 0'] },
  { command: 'touch -d @1195776000.75 data/small', expected: [], tolerance: { wholeSeconds: true } },
  { command: 'touch -d @8495776000 data/small', expected: ['data/small: mtime 8495776000, expected 1195776000'] },
  { command: `touch -d @${2 ** 32 + 1_195_776_000} data/small`, expected: [], tolerance: { mtime32: true } },
  { command: keepTime('data', 'rm data/small'), expected: ['data/small: missing (file)'] },
  { command: keepTime('dirs', 'mkdir dirs/more'), expected: ['dirs/more: should not be there (directory)'] },
  { command: keepTime('dirs', 'rmdir dirs/empty; touch -d @1195776000 dirs/empty'), expected: ['dirs/empty: type file, expected directory'] },
  { command: keepTime('links', 'ln -sfn elsewhere links/dangling; touch -h -d @1195776000 links/dangling'), expected: ['links/dangling: size 9, expected 13, target elsewhere, expected no/such/thing'] },
  { command: keepTime('specials', 'rm specials/null; mknod -m 666 specials/null c 1 300; touch -d @1195776000 specials/null'), expected: ['specials/null: device 1,300, expected 1,3'], root: true },
  { command: 'touch -r data/text ../f; printf X | dd of=data/text bs=1 seek=100000 conv=notrunc status=none; touch -r ../f data/text', expected: ['data/text: content'] },
  { command: keepTime('hard', 'cp -p hard/second ../c; rm hard/second; cp -p ../c hard/second'), expected: ['hard/original: links hard/sub/third, expected hard/second+hard/sub/third', 'hard/second: links none, expected hard/original+hard/sub/third', 'hard/sub/third: links hard/original, expected hard/original+hard/second'] },
  { command: keepTime('hard', 'cp -p hard/second ../c; rm hard/second; cp -p ../c hard/second'), expected: [], tolerance: { hardLinks: 'ignored' } },
  { command: 'touch -d @5 .', expected: ['.: mtime 5, expected 1195775995'] },
]

for (const { command, expected, tolerance, root } of CHANGES) {
  const given = tolerance ? ` (${JSON.stringify(tolerance)})` : ''
  test(`snapshot after: ${command}${given}`, { skip: root ? skipUnlessRoot : false }, () => {
    using scratch = makeScratch('snapshot')
    const tree = `${scratch.path}/tree`
    makeTree(tree, firstBuild())
    const before = snapshot(tree)
    execFileSync('sh', ['-ec', command], { cwd: tree, env: { ...process.env, TZ: 'UTC' } })
    const found = differences(before, snapshot(tree), tolerance)
    assert.equal(found.length, expected.length, found.join('\n'))
    for (const [index, line] of expected.entries()) assert.ok(found[index]!.startsWith(line), found[index]!)
    if (expected.length > 0) {
      assert.throws(() => assertSameTree(before, snapshot(tree), tolerance), /the trees differ in/)
    }
  })
}

test('a tree is the same each time it is made, and its builds differ', () => {
  using scratch = makeScratch('snapshot')
  for (const name of ['a', 'b']) makeTree(`${scratch.path}/${name}`, firstBuild())
  makeTree(`${scratch.path}/next`, secondBuild(firstBuild()))
  const first = snapshot(`${scratch.path}/a`)
  assertSameTree(first, snapshot(`${scratch.path}/b`))
  assert.ok(differences(first, snapshot(`${scratch.path}/next`), carriedBy(27)).length > 40)
})
