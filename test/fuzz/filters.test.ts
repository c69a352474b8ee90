/**
 * Filter rules by chance, over a tree by chance: the real client lists the same module of both servers, and
 * must see the same names. FUZZ_SECONDS says for how long (else a fixed number of rule sets is tried),
 * FUZZ_SEED repeats a run, FUZZ_CASE one rule set of it.
 */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { pick, type Random, randomOf, seedOfRun, some } from '../support/random.ts'
import { rsync, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { SpecWriter, type TreeSpec } from '../support/tree.ts'

const SEED = seedOfRun()
const SECONDS = process.env.FUZZ_SECONDS ? Number(process.env.FUZZ_SECONDS) : 0
const ONE_CASE = process.env.FUZZ_CASE ? Number(process.env.FUZZ_CASE) : undefined
/** Without a time: some 10 s. */
const CASES = 50

/** Few names, so that patterns meet them. */
const NAMES = ['a', 'b', 'ab', 'a.c', 'b.o', 'core', 'x y', '[a]', 'a*', '.hid', 'foo.bak']
const PATTERNS = [
  '*',
  '**',
  '?',
  'a*',
  '*.o',
  '*.[co]',
  '[!a]*',
  '[[:alpha:]]',
  'a?',
  '\\[a]',
  'a\\*',
  '***',
  ...NAMES,
]

const component = (random: Random): string => pick(random, PATTERNS)

function pattern(random: Random): string {
  const parts = Array.from({ length: 1 + random(3) }, () => component(random))
  return `${pick(random, ['', '', '/'])}${parts.join('/')}${pick(random, ['', '', '', '/', '/***', '/**'])}`
}

/** A rule as it stands in a file or behind --filter. */
function ruleOf(random: Random): string {
  const modifiers = pick(random, ['', '', '', '', '!', '/', 's', 'r'])
  return `${pick(random, ['-', '-', '-', '+', '+', 'H', 'S', 'P'])}${modifiers} ${pattern(random)}`.replace(
    /^([HSP])[sr]/,
    '$1',
  )
}

function optionsOf(random: Random): string[] {
  const options = Array.from({ length: 1 + random(6) }, () => {
    switch (random(12)) {
      case 0:
        return `--filter=${pick(random, [': .rules', ':n .rules', ':w .words', ':- .list', ':+n .list', ':e .rules', ': /.rules', ':C'])}`
      case 1:
        return pick(random, ['-C', '-F', '--filter=!', '--filter=-C'])
      case 2:
        return `--exclude=${pattern(random)}`
      case 3:
        return `--include=${pattern(random)}`
      default:
        return `--filter=${ruleOf(random)}`
    }
  })
  return options
}

function randomTree(random: Random): TreeSpec {
  const tree = new SpecWriter()
  tree.directory('')
  const fill = (path: string, depth: number): void => {
    const inside = (name: string): string => (path === '' ? name : `${path}/${name}`)
    if (random(2) === 0) {
      const lines = some(random, ['# a comment', '', '!'], 1).concat(
        Array.from({ length: random(4) }, () => ruleOf(random)),
      )
      tree.file(inside('.rules'), Buffer.from(`${lines.join('\n')}\n`))
    }
    if (random(4) === 0) {
      const words = Array.from({ length: random(3) }, () => ruleOf(random).replaceAll(' ', '_'))
      tree.file(inside('.words'), Buffer.from(words.join(' ')))
    }
    if (random(3) === 0) {
      tree.file(inside('.list'), Buffer.from(`${some(random, NAMES, 3).join('\n')}\n`))
    }
    if (random(3) === 0) {
      tree.file(inside(pick(random, ['.cvsignore', '.rsync-filter'])), Buffer.from('- a\n'))
    }
    for (const name of NAMES) {
      const kind = random(5)
      if (kind < 2) tree.file(inside(name), Buffer.from(name))
      else if (kind === 2) tree.symlink(inside(name), 'a')
      else if (kind === 3 && depth < 3) {
        tree.directory(inside(name))
        fill(inside(name), depth + 1)
      }
    }
  }
  fill('', 0)
  return tree.spec
}

let server: TestServer
let stock: { url: string }
before(async () => {
  server = await startServer({ 1: randomTree(randomOf(SEED)) }, 'upserv')
  stock = await server.stock()
  await rsyncSucceeds(['--list-only', `${server.url}/build-1/`])
})
after(() => server?.stop())

test('any filter rules: the same listing as from the stock server', {
  timeout: (SECONDS + 300) * 1000,
}, async (t) => {
  t.diagnostic(`FUZZ_SEED=${SEED}`)
  const until = performance.now() + SECONDS * 1000
  let listed = 0
  let cases = 0
  const more = (): boolean => (SECONDS > 0 ? performance.now() < until : cases < CASES)
  for (let number = ONE_CASE ?? 1; more(); number++) {
    const random = randomOf(SEED + number)
    const protocol = pick(random, [28, 29, 30, 31, 32, 32])
    const top = pick(random, ['root/', 'root/', 'root', 'root/a/'])
    const options = optionsOf(random)
    const list = async (url: string) => {
      const { code, stdout } = await rsync(['-r', ...options, '--list-only', `${url}/build-1/${top}`], {
        protocol,
      })
      // Kinds and names: servers differ in how large directories are, and in what they say beside the list.
      const lines = [...stdout.matchAll(/^([-dlpcbs])[-rwxsStT]{9} +[\d,]+ \S+ \S+ (.*)$/gm)]
      // Which error it is that a rule is refused with does not matter.
      return { refused: code !== 0, lines: lines.map(([, kind, name]) => `${kind} ${name}`).sort() }
    }
    const [theirs, ours] = await Promise.all([list(stock.url), list(server.url)])
    cases++
    listed += theirs.lines.length
    assert.deepEqual(
      ours,
      theirs,
      `FUZZ_SEED=${SEED} FUZZ_CASE=${number} script/fuzz filters: --protocol=${protocol} ${options.join(' ')} ${top}`,
    )
    if (ONE_CASE !== undefined) return
  }
  t.diagnostic(`${cases} rule sets, ${listed} names listed`)
  assert.ok(listed > 2 * cases, 'too little is ever listed')
})
